"""An image is complete or not there, and one that a lab runs is not thrown away."""

from __future__ import annotations

import os
import shutil
import stat
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import pytest

from harness.errors import LabError
from harness.lab import image, packages


class Usage(NamedTuple):
    total: int
    used: int
    free: int


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The cache of images for this test; a disk with room."""
    monkeypatch.setenv("VF_HARNESS_CACHE", str(tmp_path / "cache"))
    has_room(monkeypatch, mib=10_000)
    return image.cache()


def has_room(monkeypatch: pytest.MonkeyPatch, mib: int) -> None:
    """Let every disk have so much left."""
    usage = Usage(100_000 << 20, 0, mib << 20)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage)


@contextmanager
def half_built(target: Path) -> Iterator[None]:
    """A build of *target* that has got so far when the body runs."""
    with image._complete_or_absent(target) as building:
        building.mkdir()
        (building / "disk.img").write_bytes(b"half")
        yield


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_what_was_built_is_found_under_its_name(cache: Path) -> None:
    """And nothing beside it: the next start would take a leftover for disk that is in use."""
    target = cache / "image-0123456789ab"
    with image._complete_or_absent(target) as building:
        building.mkdir(mode=0o700)
        (building / "disk.img").touch()
        assert not target.exists(), "who looks now must not find half of it"
    assert names(cache) == ["image-0123456789ab"]
    assert names(target) == ["disk.img"]
    assert stat.S_IMODE(target.stat().st_mode) == 0o755, "QEMU in a chroot must get in"


@pytest.mark.parametrize("error", [LabError("x", because="y", fix="z"), KeyboardInterrupt()])
def test_a_build_that_is_cut_off_leaves_nothing(cache: Path, error: BaseException) -> None:
    """Half an image under its final name would be used for ever after."""
    with pytest.raises(type(error)), half_built(cache / "image-0123456789ab"):
        raise error
    assert names(cache) == []


def test_a_build_that_made_nothing_leaves_nothing(cache: Path) -> None:
    """Where mmdebstrap is not installed, not even the folder is made."""
    with (
        pytest.raises(LabError),
        image._complete_or_absent(cache / "tree-0123456789ab"),
    ):
        raise LabError("this machine: mmdebstrap is not installed", because="y", fix="z")
    assert names(cache) == []


def test_a_full_disk_is_told_before_anything_is_built(
    cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Found by mke2fs after a minute, it would be quoted as `Could not allocate block`."""
    has_room(monkeypatch, mib=image.TREE_MIB - 1)
    with (
        pytest.raises(LabError) as full,
        image._complete_or_absent(cache / "tree-0123456789ab"),
    ):
        pytest.fail("it was built")
    assert full.value.what == (
        f"this machine: {image.TREE_MIB - 1} MiB are free where images are kept ({cache})"
    )
    assert full.value.because.endswith(f"take up to {image.TREE_MIB} MiB")
    assert "VF_HARNESS_CACHE" in full.value.fix
    assert names(cache) == []


def test_just_enough_room_is_enough(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The other side of the limit above."""
    has_room(monkeypatch, mib=image.TREE_MIB)
    with image._complete_or_absent(cache / "tree-0123456789ab") as building:
        building.mkdir()
    assert names(cache) == ["tree-0123456789ab"]


def last_used(folder: Path, days_ago: float) -> None:
    """Let *folder* and what is in it be read for the last time so long ago."""
    moment = time.time() - days_ago * 86_400
    for path in (*folder.iterdir(), folder):
        os.utime(path, (moment, moment), follow_symlinks=False)


def test_old_images_go_but_not_one_that_a_lab_runs(
    cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """QEMU reads disk and kernel from there: a lab that is up would break under its tests.

    All of them lead to one tree, which is in use every day; that must keep none of them.
    """
    run = tmp_path / "run"
    (run / "lab-emulated").mkdir(parents=True)
    tree = cache / "tree-0123456789ab"
    tree.mkdir(parents=True)
    ages = {
        "image-000000000new": 2 * image.KEEP_DAYS,
        "image-00000running": 2 * image.KEEP_DAYS,
        "image-000yesterday": image.KEEP_DAYS - 0.5,
        "image-000000000old": image.KEEP_DAYS + 0.5,
        "image-building.x1": 2 * image.KEEP_DAYS,
    }
    for name, days in ages.items():
        (cache / name).mkdir()
        (cache / name / "disk.img").touch()
        (cache / name / image.TREE).symlink_to(tree)
        last_used(cache / name, days)
    (run / "lab-emulated" / "image").symlink_to(cache / "image-00000running")
    monkeypatch.setattr(
        image, "Path", lambda *parts: run if parts == ("/run/vf-harness",) else Path(*parts)
    )

    image._prune(keep=cache / "image-000000000new")
    assert set(ages) - set(names(cache)) == {"image-000000000old"}
    assert tree.is_dir()


def test_an_image_that_was_booted_today_is_kept(cache: Path, tmp_path: Path) -> None:
    """Two checkouts with two recipes: each would build anew what the other one threw away."""
    folder = cache / "image-0000000other"
    folder.mkdir(parents=True)
    for name in ("disk.img", "vmlinuz"):
        (folder / name).write_bytes(b"content")
    last_used(folder, 2 * image.KEEP_DAYS)
    now = time.time()
    os.utime(folder / "vmlinuz", (now, now - 10 * 86_400))

    image._prune(keep=tmp_path / "image-000000000new")
    assert names(cache) == [folder.name]


@pytest.mark.parametrize(
    ("variables", "expected"),
    [
        ({"VF_HARNESS_CACHE": "/named", "XDG_CACHE_HOME": "/xdg", "HOME": "/home"}, "/named"),
        ({"VF_HARNESS_CACHE": "", "XDG_CACHE_HOME": "/xdg", "HOME": "/home"}, "/xdg/vf-harness"),
        ({"XDG_CACHE_HOME": "", "HOME": "/home"}, "/home/.cache/vf-harness"),
    ],
)
def test_the_cache_is_where_its_user_says(
    monkeypatch: pytest.MonkeyPatch, variables: dict[str, str], expected: str
) -> None:
    """It takes 2 GB; the error about a full disk names the variable that moves it."""
    for name in ("VF_HARNESS_CACHE", "XDG_CACHE_HOME", "HOME"):
        monkeypatch.delenv(name, raising=False)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    assert image.cache() == Path(expected)


def test_an_image_is_known_by_what_it_is_made_of(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without one of these in its name, an old image would be used for a new recipe."""
    of_two = image._image_hash(("alder", "birch"))
    assert image._image_hash(("alder", "birch")) == of_two
    assert image._image_hash(("alder", "cedar")) != of_two
    tree = image._tree_hash()
    monkeypatch.setattr(packages, "PACKAGES", ("python3",))
    assert image._tree_hash() != tree
    assert image._image_hash(("alder", "birch")) != of_two


def test_a_guest_is_known_by_its_kernel_and_initramfs(tmp_path: Path) -> None:
    """A host that has this digest is not sent the files again; each of the two must count."""
    (tmp_path / "vmlinuz").write_bytes(b"kernel")
    (tmp_path / "guest-initramfs").write_bytes(b"initramfs")
    first = image.guest_image(tmp_path).digest
    (tmp_path / "guest-initramfs").write_bytes(b"another")
    second = image.guest_image(tmp_path).digest
    (tmp_path / "vmlinuz").write_bytes(b"another")
    assert len({first, second, image.guest_image(tmp_path).digest}) == 3
