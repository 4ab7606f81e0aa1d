"""The guest that boots in a lab: Debian's kernel, and programs out of the lab's own tree.

The lab's image has one, with the kernel of its tree.  The newest kernel of Debian's backports makes
another, which is kept beside that; its drivers are as shipped, too.
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
"""A tree with the kernel of backports."""

KERNEL, INITRAMFS, KEYS, TREE = "vmlinuz", "guest-initramfs", "keys", "tree"
"""In a guest's folder, which for the kernel of the lab's own tree is that of the lab's image."""


def write_guest(programs: Path, kernel_of: Path, keys: Path, folder: Path) -> None:
    """Write KERNEL and INITRAMFS to *folder*, of the two trees, with the guest's *keys*."""
    modules = initramfs.modules_of(kernel_of)
    shutil.copy(kernel_of / "boot" / f"vmlinuz-{modules.name}", folder / KERNEL)
    initramfs.write_guest(programs, modules, keys, folder / INITRAMFS)


def guest_in(folder: Path, keys: Path) -> GuestImage:
    """The complete guest in *folder*."""
    kernel, packed = folder / KERNEL, folder / INITRAMFS
    digest = hashlib.sha256(kernel.read_bytes() + packed.read_bytes()).hexdigest()[:12]
    return GuestImage(kernel, packed, digest, keys / CLIENT, keys / "known_hosts")


def guest_image(image: Path, kernel: DebianKernel, progress: Progress) -> GuestImage:
    """The guest of the lab's *image*, a folder, with that kernel; built if the cache has it not.

    Raises LabError where the packages cannot be fetched or the disk is full.
    """
    keys = image / KEYS
    if kernel == "stable":
        return guest_in(image, keys)
    kernel_of = tree(NEWEST, "the newest kernel's file tree", progress)
    folder = cache() / f"guest-{_hash(image)}"
    with built_by_one():
        if not folder.is_dir():
            progress("building a guest with the newest kernel")
            with complete_or_absent(folder) as building:
                building.mkdir()
                write_guest((image / TREE).resolve(), kernel_of, keys, building)
                (building / TREE).symlink_to(kernel_of)
    os.utime(folder)
    return guest_in(folder, keys)


def _hash(image: Path) -> str:
    """Over the lab's image, which names all of its own, and what is different here."""
    own = resources.files("harness.lab").joinpath("guest.py").read_bytes()
    return hashlib.sha256(repr((image.name, NEWEST.hash, own)).encode()).hexdigest()[:12]
