"""A program of a file tree runs on this machine, in a chroot of that tree."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

_ENTER = """\
set -e
tree=$1
shift
while [ "$1" != -- ]; do
  mkdir -p "$tree$1"
  mount --rbind "$2" "$tree$1"
  shift 2
done
shift
exec chroot "$tree" "$@"
"""


def in_tree(
    tree: Path, *argv: str, binds: Mapping[str, Path], dies_with_us: bool = True
) -> list[str]:
    """Return the command that runs *argv* inside *tree*, in a mount namespace of its own.

    *binds* names a path inside the tree, and the folder of this machine that is mounted there; the
    tree gets this machine's /dev without being asked.  The command must run as root.  Its process
    becomes the program, so the program has the id and the descriptors of that process.  With
    *dies_with_us* the kernel kills the program when the process that started the command ends.
    """
    guard = ("setpriv", "--pdeathsig", "KILL") if dies_with_us else ()
    pairs = [str(each) for pair in {"/dev": Path("/dev"), **binds}.items() for each in pair]
    return [
        "unshare", "--mount", "--propagation", "private",
        "sh", "-c", _ENTER, "sh", str(tree), *pairs, "--", *guard, *argv,
    ]  # fmt: skip
