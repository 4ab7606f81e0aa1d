"""The cache has file trees of Debian packages, found again by a hash of what each is made from.

Programs that have to be the same on every machine run inside such a tree: QEMU for the lab, and
the programs of ``tests/clients``.
"""

from __future__ import annotations

import errno
import fcntl
import hashlib
import os
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib import resources
from pathlib import Path

from harness.errors import LabError
from harness.lab.packages import ADD_BACKPORTS, SUITE, sources
from harness.lab.programs import last_words, run
from harness.waiting import wait_for

Progress = Callable[[str], None]

FREE_MIB = 1500
"""A build needs this much free disk: a tree and an image together, with room to spare."""

FETCH_SECONDS = 3600
"""A tree's packages are fetched and unpacked by then, also over a slow network."""

BUILD_SECONDS = 2 * FETCH_SECONDS
"""Another process has built by then what it builds."""


@dataclass(frozen=True, slots=True)
class Recipe:
    """A recipe makes a tree from *packages* of SUITE.

    *pinned* is the text of a file of apt preferences, and *left_out* are patterns of paths that
    dpkg leaves out.
    """

    packages: tuple[str, ...]
    pinned: str = ""
    left_out: tuple[str, ...] = ()

    @property
    def hash(self) -> str:
        how = resources.files("harness.lab").joinpath("tree.py").read_bytes()
        parts = (SUITE, self.packages, self.pinned, self.left_out, ADD_BACKPORTS, how)
        return hashlib.sha256(repr(parts).encode()).hexdigest()[:12]


def cache() -> Path:
    """Return the folder of trees and images.

    The environment variable ``VF_HARNESS_CACHE`` names the folder; without that variable, the
    folder is ``vf-harness`` in the user's cache folder (``XDG_CACHE_HOME``, or ``~/.cache``).
    """
    named = os.environ.get("VF_HARNESS_CACHE")
    if named:
        return Path(named)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "vf-harness"


def tree(recipe: Recipe, what: str, progress: Progress) -> Path:
    """Return the folder of the tree of *recipe*, built if the cache does not have the tree.

    *what* is what *progress* calls the tree.  Raises LabError if packages cannot be fetched, if the
    disk is full, or if a build is not run as root.
    """
    target = cache() / f"tree-{recipe.hash}"
    with built_by_one(progress):
        if not target.is_dir():
            progress(f"building {what} from {SUITE} packages (about a minute)")
            with complete_or_absent(target) as building:
                _build(recipe, building)
    os.utime(target)  # this time says when the tree was used last
    return target


@contextmanager
def built_by_one(progress: Progress) -> Iterator[None]:
    """Let only this process build during the body; other processes wait here until then.

    *progress* is told of a wait.  Raises LabError if another process builds for BUILD_SECONDS.
    """
    cache().mkdir(parents=True, exist_ok=True)
    folder = os.open(cache(), os.O_RDONLY | os.O_DIRECTORY)
    try:
        if not _locks(folder):
            progress("waiting for another process, which builds an image")
            wait_for(
                f"the lock of {cache()}", lambda: _locks(folder), within=BUILD_SECONDS,
                fix=f"`fuser {cache()}` names the process that has the lock", error=LabError,
            )  # fmt: skip
        yield
    finally:
        os.close(folder)


def _locks(folder: int) -> bool:
    """Return whether this process has the lock of *folder* now."""
    try:
        fcntl.flock(folder, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


@contextmanager
def complete_or_absent(target: Path) -> Iterator[Path]:
    """Yield a path to build at, which does not exist; a body that succeeds makes it *target*.

    If the body fails, nothing is left of the build.  Raises LabError if the disk has less than
    FREE_MIB free at the beginning, or is full later.
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
        _remove(building.parent, sys.exc_info()[1])


def _remove(folder: Path, error: BaseException | None) -> None:
    """Remove *folder*; if that fails after *error*, note it there, since *error* is under way."""
    try:
        shutil.rmtree(folder)
    except OSError as left:
        if error is None:
            raise
        error.add_note(f"{folder} could not be removed: {left}")


def _full(folder: Path) -> LabError:
    free_mib = shutil.disk_usage(folder).free >> 20
    return LabError(
        f"this machine: {free_mib} MiB are free where images are kept ({folder})",
        because=f"an image and the tree that it is made from take up to {FREE_MIB} MiB",
        fix="free disk space, or name another folder in VF_HARNESS_CACHE",
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
    built = run(
        *argv, means="the packages could not be fetched and unpacked", seconds=FETCH_SECONDS
    )
    if built.returncode:
        if "No space left on device" in built.stderr:
            raise _full(target.parent.parent)
        raise LabError(
            f"this machine: mmdebstrap ended with status {built.returncode}",
            because=f"the last words of mmdebstrap: {last_words(built.stderr)}",
            fix="look whether the package mirror answers (apt-get update), and try again; "
            "VF_HARNESS_MIRROR names another Debian mirror",
        )


def check_root() -> None:
    """Raise LabError unless this process runs as root, who alone makes trees and namespaces."""
    if os.geteuid() != 0:
        raise LabError(
            "this machine: not run as root",
            because="only root can unpack packages, and make namespaces, taps and a chroot",
            fix="run the same command with sudo",
        )
