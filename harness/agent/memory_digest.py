"""What is in a guest's shared memory, page by page: a digest of each, so that two can be compared.

The memory is a file that QEMU made with memfd_create(2); it is read through the process that has
it open, without stopping or asking it.
"""

from __future__ import annotations

import hashlib
import mmap
import os
from pathlib import Path
from typing import Any

from harness.agent.errors import AgentError

DIGEST_BYTES = 8
PAGE = mmap.PAGESIZE
_FILE = "/memfd:{} (deleted)"
"""What /proc/PID/fd says of such a file.  Ref: memfd_create(2)."""


def digest(pid: int, name: str, path: str) -> dict[str, Any]:
    """Write a digest of each page of the memory *name* of a process to the file *path*.

    DIGEST_BYTES for each page, in the order of the file; returns how many pages.  Raises AgentError
    if the process has no such memory.
    """
    with open(_descriptor(pid, name), "rb") as file, open(path, "wb", opener=_for_owner) as out:
        with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as memory:
            view = memoryview(memory)
            digests = bytearray()
            for begin in range(0, len(view), PAGE):
                page = hashlib.blake2b(view[begin : begin + PAGE], digest_size=DIGEST_BYTES)
                digests += page.digest()
            view.release()
        out.write(digests)
    return {"pages": len(digests) // DIGEST_BYTES}


def _descriptor(pid: int, name: str) -> str:
    folder, wanted = Path(f"/proc/{pid}/fd"), _FILE.format(name)
    try:
        found = [link for link in folder.iterdir() if _target(link) == wanted]
    except OSError as error:
        raise AgentError(
            f"the memory of process {pid} cannot be read: {error.strerror}",
            because="it has ended, or is not ours",
            fix="see whether the guest still runs",
        ) from error
    if not found:
        raise AgentError(
            f"process {pid} has no shared memory called {name}",
            because="the guest was started without",
            fix="start it with memory-backend-memfd,share=on",
        )
    return str(found[0])


def _target(link: Path) -> str:
    try:
        return str(link.readlink())
    except FileNotFoundError:  # closed since it was listed, as a QEMU does that has just arrived
        return ""


def _for_owner(path: str, flags: int) -> int:
    return os.open(path, flags, 0o600)
