"""Running the image's own programs on this machine, whatever it has installed itself."""

from __future__ import annotations

from pathlib import Path

from harness.lab.image import Image

_ENTER = """\
set -e
image=$1 run=$2 tree=$3
shift 3
mount --bind "$image" "$tree/lab"
[ -z "$run" ] || mount --bind "$run" "$tree/run"
mount --rbind /dev "$tree/dev"
exec chroot "$tree" "$@"
"""


def in_tree(
    image: Image, *argv: str, run: Path | None = None, dies_with_us: bool = True
) -> list[str]:
    """The command that runs *argv* inside the image's file tree, in a mount namespace of its own.

    There ``/lab`` is the image's folder, ``/run`` is *run*, and ``/dev`` is this machine's.  The
    process that is started becomes the program itself, so its id and descriptors are the
    program's.  With *dies_with_us* the kernel ends it when the process that started it ends.
    """
    guard = ("setpriv", "--pdeathsig", "KILL") if dies_with_us else ()
    return [
        "unshare", "--mount", "--propagation", "private",
        "sh", "-c", _ENTER, "sh", str(image.folder), str(run or ""), str(image.tree),
        *guard, *argv,
    ]  # fmt: skip
