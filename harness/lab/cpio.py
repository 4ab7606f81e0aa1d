"""An initramfs is a cpio archive in the "newc" format.

The archive is not compressed, since unpacking costs an emulated processor more than reading does.
Ref: Linux, Documentation/driver-api/early-userspace/buffer-format.rst.
"""

from __future__ import annotations

import stat
from pathlib import Path
from typing import BinaryIO


class Archive:
    """The archive writes entries to *out*, and adds the missing parents of each path.

    Paths are relative to the root and use no ``..``.  Raises ValueError if a path is added twice.
    """

    def __init__(self, out: BinaryIO) -> None:
        self._out = out
        self._inode = 0
        self._paths: set[str] = set()

    def __contains__(self, path: object) -> bool:
        return str(path).strip("/") in self._paths

    def directory(self, path: str, mode: int = 0o755) -> None:
        self._entry(path, stat.S_IFDIR | mode)

    def file(self, path: str, data: bytes, mode: int = 0o644) -> None:
        self._entry(path, stat.S_IFREG | mode, data)

    def link(self, path: str, target: str) -> None:
        self._entry(path, stat.S_IFLNK | 0o777, target.encode())

    def device(self, path: str, major: int, minor: int, mode: int = 0o600) -> None:
        self._entry(path, stat.S_IFCHR | mode, major=major, minor=minor)

    def copy(self, source: Path, path: str) -> None:
        """Add the content of the file *source* at *path*, with the permissions of *source*."""
        self.file(path, source.read_bytes(), stat.S_IMODE(source.stat().st_mode))

    def close(self) -> None:
        """Write the trailer; the archive takes no more entries."""
        self._entry("TRAILER!!!", 0)

    def _entry(
        self, path: str, mode: int, data: bytes = b"", *, major: int = 0, minor: int = 0
    ) -> None:
        path = path.strip("/")
        parent = path.rpartition("/")[0]
        if parent and parent not in self._paths:
            self.directory(parent)
        if path in self._paths:
            raise ValueError(f"{path} is in the archive already")
        self._paths.add(path)
        self._inode += 1
        name = path.encode() + b"\0"
        fields = (
            self._inode if mode else 0,
            mode,
            0,  # owner: root
            0,  # group: root
            1,  # links
            0,  # modified: the epoch, so that the same content gives the same archive
            len(data),
            0,  # device that the file is on
            0,
            major,
            minor,
            len(name),
            0,  # checksum, unused in newc
        )
        head = b"070701" + b"".join(b"%08X" % field for field in fields) + name
        self._out.write(head + b"\0" * (-len(head) % 4))
        self._out.write(data + b"\0" * (-len(data) % 4))
