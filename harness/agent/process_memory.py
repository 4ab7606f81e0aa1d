"""The memory of a process: of a guest, through its QEMU, which is neither stopped nor asked.

Shared memory, which is a file that QEMU made with memfd_create(2), is read as that file; other
memory through /proc/PID/mem.  Neither gives a page to memory that nobody has touched: that is
zeroes, and need not be read.
"""

from __future__ import annotations

import errno
import mmap
import os
from array import array
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Protocol

from harness.agent.errors import AgentError

PAGE = mmap.PAGESIZE
CHUNK = 1 << 20
"""What is read at once: it stays in a processor's own cache until it is used."""

_FILE = "/memfd:{} (deleted)"
"""What /proc/PID/fd says of such a file.  Ref: memfd_create(2)."""

_MAPPED = 1 << 62
"""A page is in memory (bit 63) or in swap (62).  Ref: Linux, admin-guide/mm/pagemap.rst."""


class Memory(Protocol):
    """A stretch of memory, *size* bytes; places in it count from its beginning."""

    size: int

    def untouched(self, begin: int, length: int) -> bool:
        """Whether nobody has touched that part: it is zeroes."""

    def read(self, begin: int, into: memoryview) -> None:
        """Fill *into* from there on.  Raises AgentError if memory ends before."""


@contextmanager
def memory_of(pid: int, name: str = "", address: int = 0, size: int = 0) -> Iterator[Memory]:
    """The shared memory of a process that is called *name*, or *size* bytes from *address* on.

    Raises AgentError if there is no such memory.
    """
    memory = _File(pid, name) if name else _Stretch(pid, address, size)
    try:
        yield memory
    finally:
        memory.close()


class _File:
    """Shared memory: a file without a name, of which a process has a descriptor."""

    def __init__(self, pid: int, name: str) -> None:
        try:
            self._descriptor = os.open(_descriptor(pid, name), os.O_RDONLY | os.O_CLOEXEC)
        except OSError as error:  # its process has ended since it was found
            raise _unreadable(pid, error) from error
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
        with ExitStack() as held:
            try:
                self._mem = _opened(held, f"/proc/{pid}/mem")
                self._pagemap = _opened(held, f"/proc/{pid}/pagemap")
            except OSError as error:
                raise _unreadable(pid, error) from error
            try:
                os.pread(self._mem, 1, address + size - 1)
            except OSError as error:
                raise AgentError(
                    f"process {pid} has no {size} bytes of memory at {address:#x}",
                    because=f"reading the last of them failed: {error.strerror}",
                    fix="ask QEMU again where the guest's memory is (HMP gpa2hva)",
                ) from error
            self._held = held.pop_all()

    def untouched(self, begin: int, length: int) -> bool:
        first, count = (self._address + begin) // PAGE, length // PAGE
        entries = array("Q", os.pread(self._pagemap, count * 8, first * 8))
        return len(entries) == count and max(entries) < _MAPPED  # else reading it tells

    def read(self, begin: int, into: memoryview) -> None:
        _fill(self._mem, into, self._address + begin)

    def close(self) -> None:
        self._held.close()


def _opened(held: ExitStack, path: str) -> int:
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    held.callback(os.close, descriptor)
    return descriptor


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
