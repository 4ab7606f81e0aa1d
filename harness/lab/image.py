"""A lab's image is built once from Debian packages, and found again by a hash of its recipe.

mmdebstrap makes ``tree-<hash>/`` in the cache from packages.  The lab boots from ``image-<hash>/``
in the cache: a disk, a kernel, two initramfs and keys.  Each folder is built under another name and
renamed when it is complete, so a build that was cut off is never used.
"""

from __future__ import annotations

import hashlib
import itertools
import os
import shutil
import tempfile
import time
from dataclasses import dataclass
from importlib import resources
from pathlib import Path

from harness.lab import initramfs, packages
from harness.lab.guest import INITRAMFS, KERNEL, KEYS, TREE, guest_in, write_guest
from harness.lab.keys import make_keys
from harness.lab.programs import output_of
from harness.lab.tree import (
    Progress,
    Recipe,
    built_by_one,
    cache,
    complete_or_absent,
    tree,
)
from harness.topology import DebianKernel

RECIPES: dict[DebianKernel, Recipe] = {
    "stable": Recipe(packages.PACKAGES, packages.PINNED, packages.LEFT_OUT),
    "backports": Recipe(
        packages.PACKAGES, f"{packages.PINNED}\n{packages.NEWEST_KERNEL}", packages.LEFT_OUT
    ),
}
"""The recipe of a kernel makes the tree of a lab whose hosts boot that kernel."""

RUN = Path("/run/vf-harness")
"""This folder has a folder for each lab that is up, in which ``image`` links to the lab's image."""

KEEP_DAYS = 3
DISK_MIB = 700

DISK_SECONDS = 600
NO_DISK = "the lab's disk could not be made"


@dataclass(frozen=True, slots=True)
class Image:
    """A complete image is in *folder* in the cache.

    *tree* is the file tree that the image was made from; this machine runs QEMU of that tree.
    *hash* is a hash of everything that the image was made from.
    """

    tree: Path
    folder: Path
    hash: str

    @property
    def keys(self) -> Path:
        return self.folder / KEYS

    @property
    def host_kernel(self) -> DebianKernel | None:
        """The kernel that its hosts boot; None if another version of the harness made the image."""
        made = {f"tree-{recipe.hash}": kernel for kernel, recipe in RECIPES.items()}
        return made.get(self.tree.name)


def image(hosts: tuple[str, ...], progress: Progress, kernel: DebianKernel = "stable") -> Image:
    """Return the image with keys for *hosts* (names), built if the cache does not have it.

    The hosts boot *kernel*, and so does the guest in the image.  Raises LabError if packages cannot
    be fetched or the disk is full.
    """
    recipe = RECIPES[kernel]
    made_from = tree(recipe, "the lab's file tree", progress)
    image_hash = _image_hash(hosts, recipe)
    folder = cache() / f"image-{image_hash}"
    with built_by_one(progress):
        if not folder.is_dir():
            progress("building the lab's disk, initramfs and keys")
            with complete_or_absent(folder) as building:
                building.mkdir()
                _build_image(made_from, building, hosts)
                (building / TREE).symlink_to(made_from)
            _prune(keep=folder)
    os.utime(folder)
    return image_in(folder)


def image_in(folder: Path) -> Image:
    """Return the complete image in *folder*."""
    return Image((folder / TREE).readlink(), folder, folder.name.removeprefix("image-"))


def _image_hash(hosts: tuple[str, ...], recipe: Recipe) -> str:
    """Return a hash of all that an image is made from, the files of this package included."""
    digest = hashlib.sha256(repr((recipe.hash, hosts, DISK_MIB)).encode())
    package = resources.files("harness.lab")
    for name in ("image.py", "guest.py", "initramfs.py", "cpio.py", "keys.py"):
        digest.update(package.joinpath(name).read_bytes())
    for file in sorted(package.joinpath("files").iterdir(), key=lambda each: each.name):
        digest.update(file.name.encode() + file.read_bytes())
    return digest.hexdigest()[:12]


def _prune(keep: Path) -> None:
    """Remove images, guests, and trees without either, that were not used for KEEP_DAYS.

    The image *keep* and the images of labs that are up stay.  The modification time of a folder
    says when the folder was used last: `image`, `guest_image` and `tree` set that time.
    """
    oldest = time.time() - KEEP_DAYS * 86_400
    running = {link.resolve() for link in RUN.glob("*/image")}
    made = itertools.chain.from_iterable(
        map(cache().glob, ("image-????????????", "guest-????????????"))
    )
    for folder in made:
        if folder != keep and folder.resolve() not in running and folder.stat().st_mtime < oldest:
            shutil.rmtree(folder)
    needed = {link.resolve() for link in cache().glob(f"*/{TREE}")}
    for unused in cache().resolve().glob("tree-????????????"):
        if unused not in needed and unused.stat().st_mtime < oldest:
            shutil.rmtree(unused)


def _build_image(tree: Path, folder: Path, hosts: tuple[str, ...]) -> None:
    make_keys(tree, folder / KEYS, hosts)
    initramfs.write_host(tree, folder / "host-initramfs")
    write_guest(tree, tree, folder / KEYS, folder)
    _write_disk(tree, folder, hosts)


def _write_disk(tree: Path, folder: Path, hosts: tuple[str, ...]) -> None:
    """Write ``disk.img`` to *folder*: an ext4 file system with *tree* and the files of a host.

    The file system lacks the tree's kernel and lists of apt.
    """
    with tempfile.TemporaryDirectory(dir=tree.parent) as temporary:
        stage = Path(temporary) / "stage"
        output_of(
            "cp", "--archive", "--link", str(tree), str(stage), means=NO_DISK, seconds=DISK_SECONDS
        )
        for unneeded in ("boot", "var/lib/apt", "var/cache", "dev", "etc/ssh"):
            shutil.rmtree(stage / unneeded)
            (stage / unneeded).mkdir()
        _add(stage / "usr/sbin/lab-init", initramfs.script("host-init"), 0o755)
        _add(stage / "etc/inittab", initramfs.script("inittab"), 0o644)
        _add(stage / "etc/ssh/sshd_config", initramfs.script("sshd_config"), 0o644)
        for host in hosts:
            _add(stage / "etc/ssh/keys" / host, (folder / "keys" / host).read_bytes(), 0o600)
        authorized = (folder / "keys/authorized_keys").read_bytes()
        (stage / "root/.ssh").mkdir(mode=0o700, exist_ok=True)
        _add(stage / "root/.ssh/authorized_keys", authorized, 0o600)
        guest = stage / "var/lib/vf-harness/images" / guest_in(folder, folder / KEYS).digest
        guest.mkdir(parents=True)
        shutil.copy(folder / KERNEL, guest)
        shutil.copy(folder / INITRAMFS, guest / "initramfs")
        disk = folder / "disk.img"
        disk.touch()
        output_of(
            "mke2fs", "-q", "-t", "ext4", "-O", "^has_journal", "-m", "0", "-d", str(stage),
            str(disk), f"{DISK_MIB}M", means=NO_DISK, seconds=DISK_SECONDS,
            fix=f"see whether {folder.parent} has room, or raise DISK_MIB in harness/lab/image.py",
        )  # fmt: skip


def _add(path: Path, data: bytes, mode: int) -> None:
    """Write *data* to a new file *path*, in place of any file that is there.

    A file that is there is a hard link to the tree's file.  Removing the link leaves the tree as it
    is; writing to the link would change the tree.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    path.unlink(missing_ok=True)
    path.write_bytes(data)
    path.chmod(mode)
