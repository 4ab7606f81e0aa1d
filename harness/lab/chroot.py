"""Running a tree's own programs on this machine, whatever it has installed itself."""

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
    """The command that runs *argv* inside a file tree, in a mount namespace of its own.

    *binds* says what is where in there: the path, and what of this machine stands at it; /dev is
    this machine's in any case.  The process that is started becomes the program itself, so its id
    and descriptors are the program's.  With *dies_with_us* the kernel ends it when the process
    that started it ends.
    """
    guard = ("setpriv", "--pdeathsig", "KILL") if dies_with_us else ()
    pairs = [str(each) for pair in {"/dev": Path("/dev"), **binds}.items() for each in pair]
    return [
        "unshare", "--mount", "--propagation", "private",
        "sh", "-c", _ENTER, "sh", str(tree), *pairs, "--", *guard, *argv,
    ]  # fmt: skip
