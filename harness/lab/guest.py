"""A lab's guest boots a kernel of Debian, with drivers as shipped, and programs of the lab's tree.

The lab's image has a guest with the kernel of the lab's tree.  `guest_image` builds another guest,
with the newest kernel of Debian's backports, in a folder of its own in the cache.
"""

from __future__ import annotations

import hashlib
import os
import shutil
from importlib import resources
from pathlib import Path

from harness.guest.spec import GuestImage
from harness.lab import initramfs
from harness.lab.keys import CLIENT
from harness.lab.packages import LEFT_OUT, NEWEST_KERNEL
from harness.lab.tree import Progress, Recipe, built_by_one, cache, complete_or_absent, tree
from harness.topology import DebianKernel

NEWEST = Recipe(
    ("kmod", "linux-image-amd64"),
    NEWEST_KERNEL,
    LEFT_OUT,
)
"""This recipe makes a tree with the kernel of backports."""

KERNEL, INITRAMFS, KEYS, TREE = "vmlinuz", "guest-initramfs", "keys", "tree"
"""These are the names of what is in the folder of an image; a guest's folder has all but KEYS.

KERNEL and INITRAMFS are files, KEYS is a folder, and TREE is a link to the tree of the kernel.
"""


def write_guest(programs: Path, kernel_of: Path, keys: Path, folder: Path) -> None:
    """Write a guest's KERNEL and INITRAMFS to *folder*.

    The kernel and its modules are those of the tree *kernel_of*, and the programs those of the tree
    *programs*.  *keys* is a folder that `make_keys` filled.
    """
    modules = initramfs.modules_of(kernel_of)
    shutil.copy(kernel_of / "boot" / f"vmlinuz-{modules.name}", folder / KERNEL)
    initramfs.write_guest(programs, modules, keys, folder / INITRAMFS)


def guest_in(folder: Path, keys: Path) -> GuestImage:
    """Return the guest whose KERNEL and INITRAMFS are in *folder*, with the keys in *keys*."""
    kernel, packed = folder / KERNEL, folder / INITRAMFS
    digest = hashlib.sha256(kernel.read_bytes() + packed.read_bytes()).hexdigest()[:12]
    return GuestImage(kernel, packed, digest, keys / CLIENT, keys / "known_hosts")


def guest_image(image: Path, kernel: DebianKernel, progress: Progress) -> GuestImage:
    """Return the guest with Debian's *kernel* for the lab whose image is in the folder *image*.

    The guest is built if the cache does not have it.  Raises LabError if packages cannot be fetched
    or the disk is full.
    """
    keys = image / KEYS
    if kernel == "stable":
        return guest_in(image, keys)
    kernel_of = tree(NEWEST, "the newest kernel's file tree", progress)
    folder = cache() / f"guest-{_hash(image)}"
    with built_by_one(progress):
        if not folder.is_dir():
            progress("building a guest with the newest kernel")
            with complete_or_absent(folder) as building:
                building.mkdir()
                write_guest((image / TREE).resolve(), kernel_of, keys, building)
                (building / TREE).symlink_to(kernel_of)
    os.utime(folder)
    return guest_in(folder, keys)


def _hash(image: Path) -> str:
    """Return a hash of the lab's image, the recipe NEWEST, and the code in this file."""
    own = resources.files("harness.lab").joinpath("guest.py").read_bytes()
    return hashlib.sha256(repr((image.name, NEWEST.hash, own)).encode()).hexdigest()[:12]
