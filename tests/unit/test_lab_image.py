"""An image is complete or not there, and one that a lab runs is not thrown away."""

from __future__ import annotations

import os
import queue
import shutil
import stat
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import pytest

from harness.errors import LabError
from harness.lab import guest, image, tree
from harness.topology import DebianKernel


class Usage(NamedTuple):
    total: int
    used: int
    free: int


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The cache of images for this test; a disk with room."""
    monkeypatch.setenv("VF_HARNESS_CACHE", str(tmp_path / "cache"))
    has_room(monkeypatch, mib=10_000)
    return tree.cache()


def has_room(monkeypatch: pytest.MonkeyPatch, mib: int) -> None:
    """Let every disk have so much left."""
    usage = Usage(100_000 << 20, 0, mib << 20)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage)


@contextmanager
def half_built(target: Path) -> Iterator[None]:
    """A build of *target* that has got so far when the body runs."""
    with tree.complete_or_absent(target) as building:
        building.mkdir()
        (building / "disk.img").write_bytes(b"half")
        yield


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_what_was_built_is_found_under_its_name(cache: Path) -> None:
    """And nothing beside it: the next start would take a leftover for disk that is in use."""
    target = cache / "image-0123456789ab"
    with tree.complete_or_absent(target) as building:
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
        tree.complete_or_absent(cache / "tree-0123456789ab"),
    ):
        raise LabError("this machine: mmdebstrap is not installed", because="y", fix="z")
    assert names(cache) == []


def test_a_full_disk_is_told_before_anything_is_built(
    cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Found by mke2fs after a minute, it would be quoted as `Could not allocate block`."""
    has_room(monkeypatch, mib=tree.FREE_MIB - 1)
    with (
        pytest.raises(LabError) as full,
        tree.complete_or_absent(cache / "tree-0123456789ab"),
    ):
        pytest.fail("it was built")
    assert full.value.what == (
        f"this machine: {tree.FREE_MIB - 1} MiB are free where images are kept ({cache})"
    )
    assert full.value.because.endswith(f"take up to {tree.FREE_MIB} MiB")
    assert "VF_HARNESS_CACHE" in full.value.fix
    assert names(cache) == []


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root: it mounts a small disk")
def test_a_disk_that_fills_up_meanwhile_is_told_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Others write there as well: what was free at the beginning is no promise."""
    monkeypatch.setattr(tree, "FREE_MIB", 0)
    small = tmp_path / "small"
    small.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=256k", "tmpfs", small], check=True)
    try:
        with pytest.raises(LabError, match="0 MiB are free where images are kept"):
            too_large_for(small / "tree-0123456789ab")
        assert names(small) == []
    finally:
        subprocess.run(["umount", small], check=True)


def too_large_for(target: Path) -> None:
    with tree.complete_or_absent(target) as building:
        building.mkdir()
        (building / "large").write_bytes(bytes(1 << 20))


def test_two_builders_do_not_build_at_once(cache: Path) -> None:
    """The second would find its place taken after a minute's work, and say so with a traceback."""
    cache.mkdir(parents=True)
    waited = threading.Event()
    told: queue.Queue[str] = queue.Queue()

    def another() -> None:
        with tree.built_by_one(told.put):
            waited.set()

    with tree.built_by_one(print):
        other = threading.Thread(target=another)
        other.start()
        assert told.get(timeout=10) == "waiting for another process, which builds an image"
        assert not waited.wait(0.2)
    assert waited.wait(10)
    other.join()


def test_what_cannot_be_removed_does_not_hide_why_a_build_failed(
    cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(folder: Path) -> None:
        raise OSError(39, "Directory not empty", str(folder))

    def build() -> None:
        with tree.complete_or_absent(cache / "tree") as building:
            building.mkdir(parents=True)
            raise LabError("no packages", because="b", fix="f")

    monkeypatch.setattr(shutil, "rmtree", refuse)
    with pytest.raises(LabError, match="no packages") as failed:
        build()
    assert "could not be removed: [Errno 39] Directory not empty" in str(failed.value)


@pytest.mark.usefixtures("cache")
def test_a_build_that_never_ends_is_waited_for_until_a_deadline(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(tree, "BUILD_SECONDS", 0.2)
    with (
        tree.built_by_one(print),
        pytest.raises(LabError, match="the lock of") as late,
        tree.built_by_one(print),
    ):
        pytest.fail("two builders built at once")
    assert "fuser" in late.value.fix


def test_just_enough_room_is_enough(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The other side of the limit above."""
    has_room(monkeypatch, mib=tree.FREE_MIB)
    with tree.complete_or_absent(cache / "tree-0123456789ab") as building:
        building.mkdir()
    assert names(cache) == ["tree-0123456789ab"]


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where labs that are up have their folders; one runs an image of its own."""
    run = tmp_path / "run"
    (run / "lab-emulated").mkdir(parents=True)
    monkeypatch.setattr(image, "RUN", run)
    return run


def last_used(folder: Path, days_ago: float) -> None:
    moment = time.time() - days_ago * 86_400
    os.utime(folder, (moment, moment))


def cached(cache: Path, name: str, days_ago: float, *, of: str) -> Path:
    """An image in the cache, made from the tree called *of*."""
    (cache / of).mkdir(parents=True, exist_ok=True)
    (cache / name).mkdir()
    (cache / name / guest.TREE).symlink_to(cache / of)
    last_used(cache / of, 2 * image.KEEP_DAYS)
    last_used(cache / name, days_ago)
    return cache / name


def test_old_images_go_but_not_one_that_a_lab_runs(cache: Path, run: Path) -> None:
    """QEMU reads disk and kernel from there: a lab that is up would break under its tests."""
    ages = {
        "image-000000000new": 2 * image.KEEP_DAYS,
        "image-00000running": 2 * image.KEEP_DAYS,
        "image-000yesterday": image.KEEP_DAYS - 0.5,
        "image-000000000old": image.KEEP_DAYS + 0.5,
        "image-building.x1": 2 * image.KEEP_DAYS,
    }
    for name, days in ages.items():
        cached(cache, name, days, of="tree-0123456789ab")
    (run / "lab-emulated" / "image").symlink_to(cache / "image-00000running")

    image._prune(keep=cache / "image-000000000new")
    assert set(ages) - set(names(cache)) == {"image-000000000old"}
    assert (cache / "tree-0123456789ab").is_dir()


def test_a_tree_goes_with_its_last_image_unless_it_was_used_of_late(cache: Path, run: Path) -> None:
    """A tree takes half a gigabyte, and each change of the packages leaves one behind."""
    assert not list(run.glob("*/image"))
    cached(cache, "image-000000000old", image.KEEP_DAYS + 0.5, of="tree-00000000left")
    kept = cached(cache, "image-000000000new", 0, of="tree-00000000used")
    (cache / "tree-0000browser").mkdir()  # no image is made from it

    image._prune(keep=kept)
    assert names(cache) == ["image-000000000new", "tree-00000000used", "tree-0000browser"]


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
    assert tree.cache() == Path(expected)


def test_an_image_is_known_by_what_it_is_made_of() -> None:
    """Without one of these in its name, an old image would be used for a new recipe."""
    stable = image.RECIPES["stable"]
    of_two = image._image_hash(("alder", "birch"), stable)
    assert image._image_hash(("alder", "birch"), stable) == of_two
    assert image._image_hash(("alder", "cedar"), stable) != of_two
    assert image._image_hash(("alder", "birch"), image.RECIPES["backports"]) != of_two
    assert image._image_hash(("alder", "birch"), tree.Recipe(("python3",))) != of_two


@pytest.mark.parametrize("kernel", image.RECIPES)
def test_an_image_tells_which_kernel_its_hosts_boot(kernel: DebianKernel) -> None:
    """A lab that is up is not to be taken for one with another kernel."""
    made_from = Path(f"/cache/tree-{image.RECIPES[kernel].hash}")
    assert image.Image(made_from, Path("/cache/image"), "").host_kernel == kernel
    assert image.Image(Path("/cache/tree-0"), Path("/cache/image"), "").host_kernel is None


@pytest.mark.parametrize(
    "other",
    [
        tree.Recipe(("a", "c"), "pin", ("x",)),
        tree.Recipe(("a", "b"), "another", ("x",)),
        tree.Recipe(("a", "b"), "pin", ()),
    ],
)
def test_a_tree_is_known_by_all_that_it_is_made_of(other: tree.Recipe) -> None:
    """The same, for trees."""
    one = tree.Recipe(("a", "b"), "pin", ("x",))
    assert one.hash == tree.Recipe(("a", "b"), "pin", ("x",)).hash
    assert one.hash != other.hash


def test_a_guest_is_known_by_its_kernel_and_initramfs(tmp_path: Path) -> None:
    """A host that has this digest is not sent the files again; each of the two must count."""
    (tmp_path / "vmlinuz").write_bytes(b"kernel")
    (tmp_path / "guest-initramfs").write_bytes(b"initramfs")
    first = guest.guest_in(tmp_path, tmp_path).digest
    (tmp_path / "guest-initramfs").write_bytes(b"another")
    second = guest.guest_in(tmp_path, tmp_path).digest
    (tmp_path / "vmlinuz").write_bytes(b"another")
    assert len({first, second, guest.guest_in(tmp_path, tmp_path).digest}) == 3
