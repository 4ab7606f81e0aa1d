"""What is in a guest's memory, page by page: a digest of each, so that two can be compared.

The memory is read through the process that has it, a mebibyte at a time, without stopping or asking
it.  Of shared memory, which is a file that QEMU made with memfd_create(2), the file is read; other
memory through /proc/PID/mem.  Neither gives a page to memory that nobody has touched: that reads as
zeroes, and is not read.
"""

from __future__ import annotations

import errno
import hashlib
import mmap
import os
import time
import zlib
from array import array
from contextlib import closing
from pathlib import Path
from typing import Any, Callable, NamedTuple, Protocol

from harness.agent.errors import AgentError

PAGE = mmap.PAGESIZE
CHUNK = 1 << 20
"""What is read at once: it stays in a processor's own cache until it is digested."""

_FILE = "/memfd:{} (deleted)"
"""What /proc/PID/fd says of such a file.  Ref: memfd_create(2)."""

_MAPPED = 1 << 62
"""A page is in memory (bit 63) or in swap (62).  Ref: Linux, admin-guide/mm/pagemap.rst."""


def _blake2b(page: memoryview) -> int:
    return int.from_bytes(hashlib.blake2b(page, digest_size=8).digest(), "little")


class Digest(NamedTuple):
    """What makes a number of a page, and the numbers' type, as of ``array``."""

    code: str
    digest_of: Callable[[Any], int]


DIGESTS = {"crc32": Digest("I", zlib.crc32), "blake2b": Digest("Q", _blake2b)}
"""By name.  Which is faster depends on the machine; 32 bits miss one change of four billion."""

_SAMPLE = 16 << 20


class _Memory(Protocol):
    size: int

    def untouched(self, begin: int, length: int) -> bool:
        """Whether nobody has touched that stretch."""

    def read(self, begin: int, into: memoryview) -> None:
        """Fill *into* from there on."""

    def close(self) -> None: ...


def digest(
    pid: int, path: str, digest: str, name: str = "", address: int = 0, size: int = 0
) -> dict[str, Any]:
    """Write a *digest* (of DIGESTS) of each page of a process's memory to the file *path*.

    It is the shared memory called *name*, or else *size* bytes from *address* on.  The numbers are
    in the order of the pages, little-endian.  Returns how many pages, how many of them nobody has
    touched, and the seconds that it took.  Raises AgentError if there is no such memory.
    """
    code, digest_of = DIGESTS[digest]
    of_zeroes = digest_of(memoryview(bytes(PAGE)))
    began, untouched = time.monotonic(), 0
    memory: _Memory = _File(pid, name) if name else _Stretch(pid, address, size)
    with closing(memory), open(path, "wb", opener=_for_owner) as out:
        buffer = memoryview(bytearray(CHUNK))
        for begin in range(0, memory.size, CHUNK):
            length = min(CHUNK, memory.size - begin)
            if memory.untouched(begin, length):
                untouched += length // PAGE
                digests = array(code, [of_zeroes]) * (length // PAGE)
            else:
                chunk = buffer[:length]
                memory.read(begin, chunk)
                pages = (chunk[at : at + PAGE] for at in range(0, length, PAGE))
                digests = array(code, map(digest_of, pages))
            out.write(digests.tobytes())
    seconds = time.monotonic() - began
    return {"pages": memory.size // PAGE, "untouched": untouched, "seconds": seconds}


def speeds() -> dict[str, float]:
    """How many bytes a second each of DIGESTS takes in here, by name, on one processor."""
    sample = memoryview(os.urandom(CHUNK))
    pages = [sample[at : at + PAGE] for at in range(0, CHUNK, PAGE)]
    return {name: _speed(each.digest_of, pages) for name, each in DIGESTS.items()}


def _speed(digest_of: Callable[[Any], int], pages: list[memoryview]) -> float:
    began = time.perf_counter()
    for _ in range(_SAMPLE // CHUNK):
        array("Q", map(digest_of, pages))
    return _SAMPLE / (time.perf_counter() - began)


class _File:
    """Shared memory: a file without a name, of which a process has a descriptor."""

    def __init__(self, pid: int, name: str) -> None:
        self._descriptor = os.open(_descriptor(pid, name), os.O_RDONLY | os.O_CLOEXEC)
        self.size = os.fstat(self._descriptor).st_size

    def untouched(self, begin: int, length: int) -> bool:
        try:
            return os.lseek(self._descriptor, begin, os.SEEK_DATA) >= begin + length
        except OSError as error:
            if error.errno != errno.ENXIO:  # no data from there to the end
                raise
            return True

    def read(self, begin: int, into: memoryview) -> None:
        _fill(self._descriptor, into, begin)

    def close(self) -> None:
        os.close(self._descriptor)


class _Stretch:
    """A stretch of a process's own memory."""

    def __init__(self, pid: int, address: int, size: int) -> None:
        self._address, self.size = address, size
        try:
            self._mem = os.open(f"/proc/{pid}/mem", os.O_RDONLY | os.O_CLOEXEC)
            self._pagemap = os.open(f"/proc/{pid}/pagemap", os.O_RDONLY | os.O_CLOEXEC)
        except OSError as error:
            raise _unreadable(pid, error) from error
        try:
            os.pread(self._mem, 1, address + size - 1)
        except OSError as error:
            self.close()
            raise AgentError(
                f"process {pid} has no {size} bytes of memory at {address:#x}",
                because=f"reading the last of them failed: {error.strerror}",
                fix="ask QEMU again where the guest's memory is (HMP gpa2hva)",
            ) from error

    def untouched(self, begin: int, length: int) -> bool:
        first, count = (self._address + begin) // PAGE, length // PAGE
        entries = array("Q", os.pread(self._pagemap, count * 8, first * 8))
        return max(entries) < _MAPPED

    def read(self, begin: int, into: memoryview) -> None:
        _fill(self._mem, into, self._address + begin)

    def close(self) -> None:
        os.close(self._mem)
        os.close(self._pagemap)


def _fill(descriptor: int, into: memoryview, at: int) -> None:
    """Read until *into* is full: what it held before must not be taken for memory."""
    done = 0
    while done < len(into):
        count = os.preadv(descriptor, [into[done:]], at + done)
        if not count:
            raise AgentError(
                f"memory ends at {at + done:#x}, before it was read whole",
                because="the process has ended or let it go meanwhile",
                fix="see whether the guest still runs",
            )
        done += count


def _descriptor(pid: int, name: str) -> str:
    folder, wanted = Path(f"/proc/{pid}/fd"), _FILE.format(name)
    try:
        found = [link for link in folder.iterdir() if _target(link) == wanted]
    except OSError as error:
        raise _unreadable(pid, error) from error
    if not found:
        raise AgentError(
            f"process {pid} has no shared memory called {name}",
            because="the guest was started without",
            fix="start it with memory-backend-memfd,share=on",
        )
    return str(found[0])


def _unreadable(pid: int, error: OSError) -> AgentError:
    return AgentError(
        f"the memory of process {pid} cannot be read: {error.strerror}",
        because="it has ended, or is not ours",
        fix="see whether the guest still runs",
    )


def _target(link: Path) -> str:
    try:
        return str(link.readlink())
    except FileNotFoundError:  # closed since it was listed, as a QEMU does that has just arrived
        return ""


def _for_owner(path: str, flags: int) -> int:
    return os.open(path, flags, 0o600)
