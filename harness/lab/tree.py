"""A file tree of Debian packages in the cache, found again by a hash of what it is made of.

Whatever has to be the same on every machine comes out of such a tree and is run inside it: QEMU
for the lab, and other people's programs for the tests.
"""

from __future__ import annotations

import errno
import fcntl
import hashlib
import os
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib import resources
from pathlib import Path

from harness.errors import LabError
from harness.lab.packages import ADD_BACKPORTS, SUITE, sources

Progress = Callable[[str], None]

FREE_MIB = 1500
"""What a build needs of free disk, a tree and an image together, with room to spare."""


@dataclass(frozen=True, slots=True)
class Recipe:
    """What a tree is made of: *packages* of SUITE, *pinned* by apt, without files *left_out*."""

    packages: tuple[str, ...]
    pinned: str = ""
    left_out: tuple[str, ...] = ()

    @property
    def hash(self) -> str:
        how = resources.files("harness.lab").joinpath("tree.py").read_bytes()
        parts = (SUITE, self.packages, self.pinned, self.left_out, ADD_BACKPORTS, how)
        return hashlib.sha256(repr(parts).encode()).hexdigest()[:12]


def cache() -> Path:
    """Where trees and images are kept: ``VF_HARNESS_CACHE``, or ``vf-harness`` in the user's."""
    named = os.environ.get("VF_HARNESS_CACHE")
    if named:
        return Path(named)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "vf-harness"


def tree(recipe: Recipe, what: str, progress: Progress) -> Path:
    """The tree of *recipe*, built if the cache has none; *what* says to people what it is.

    Raises LabError where the packages cannot be fetched or the disk is full.
    """
    target = cache() / f"tree-{recipe.hash}"
    with built_by_one():
        if not target.is_dir():
            progress(f"building {what} from {SUITE} packages (about a minute)")
            with complete_or_absent(target) as building:
                _build(recipe, building)
    os.utime(target)  # its own time says when it was last used
    return target


@contextmanager
def built_by_one() -> Iterator[None]:
    """Keeps other processes from building meanwhile; they wait, and find what was built."""
    cache().mkdir(parents=True, exist_ok=True)
    folder = os.open(cache(), os.O_RDONLY | os.O_DIRECTORY)
    try:
        fcntl.flock(folder, fcntl.LOCK_EX)
        yield
    finally:
        os.close(folder)


@contextmanager
def complete_or_absent(target: Path) -> Iterator[Path]:
    """A path to build at; becomes *target* on success, and goes away otherwise.

    Raises LabError where the disk is too full, to begin or to go on.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    free_mib = shutil.disk_usage(target.parent).free >> 20
    if free_mib < FREE_MIB:
        raise _full(target.parent)
    building = Path(tempfile.mkdtemp(prefix=f"{target.name}.", dir=target.parent)) / "building"
    try:
        yield building
        building.chmod(0o755)
        building.rename(target)
    except OSError as error:
        if error.errno != errno.ENOSPC:
            raise
        raise _full(target.parent) from None
    finally:
        shutil.rmtree(building.parent)


def _full(folder: Path) -> LabError:
    free_mib = shutil.disk_usage(folder).free >> 20
    return LabError(
        f"this machine: {free_mib} MiB are free where images are kept ({folder})",
        because=f"an image and what it is made from take up to {FREE_MIB} MiB",
        fix="free some, or name another folder in VF_HARNESS_CACHE",
    )


def _build(recipe: Recipe, target: Path) -> None:
    preferences = target.parent / "preferences"
    preferences.write_text(recipe.pinned)
    argv = [
        "mmdebstrap", "--variant=minbase", "--mode=root", "--quiet",
        f"--include={' '.join(recipe.packages)}",
        "--aptopt=APT::Install-Recommends \"false\"",
        *(f"--dpkgopt=path-exclude={pattern}" for pattern in recipe.left_out),
        f'--setup-hook=cp {preferences} "$1/etc/apt/preferences.d/lab"',
        SUITE, str(target), *sources(),
    ]  # fmt: skip
    if not sources():
        argv.insert(-2, f"--setup-hook={ADD_BACKPORTS}")
    check_root()
    built = run_tool(argv, "the packages could not be fetched and unpacked")
    if built.returncode:
        if "No space left on device" in built.stderr:
            raise _full(target.parent.parent)
        raise LabError(
            f"this machine: mmdebstrap ended with status {built.returncode}",
            because=f"its last words: {last_words(built.stderr)}",
            fix="look whether the package mirror answers (apt-get update), and try again; "
            "VF_HARNESS_MIRROR names another Debian mirror",
        )


def run_tool(argv: list[str], means: str) -> subprocess.CompletedProcess[str]:
    """Run a program that makes files; *means* says what its absence would mean.

    Raises LabError if it is not installed; how it ended is the caller's to judge.
    """
    try:
        return subprocess.run(argv, capture_output=True, text=True, check=False)
    except FileNotFoundError as missing:
        raise LabError(
            f"this machine: {missing.filename} is not installed",
            because=means,
            fix="`make demo` and `make test` install it; or install its package by hand",
        ) from None


def last_words(text: str) -> str:
    """The end of what a program said."""
    return " | ".join(text.strip().splitlines()[-4:]) or "nothing"


def check_root() -> None:
    """Raise LabError unless we are root: trees, namespaces and taps are made by nobody else."""
    if os.geteuid() != 0:
        raise LabError(
            "this machine: not run as root",
            because="packages are unpacked, and namespaces, taps and a chroot made, by root alone",
            fix="run the same command with sudo",
        )
