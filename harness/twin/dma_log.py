"""The DMA log keeps what the device read and wrote in the guest's memory, and when.

A file of records, mapped and as long as it will ever be, so that an entry costs a write to memory
and is there even if the twin dies.  The file's head says how many there are.
"""

from __future__ import annotations

import mmap
import os
import struct
import time
from enum import IntEnum

HEAD = struct.Struct("<QQQQ")
"""Records in the file; accesses that are not in the file; how many records the file has room for;
number of the access that the first record is of, counted from 0."""

RECORD = struct.Struct("<QQIHH")
"""time (ns, CLOCK_MONOTONIC), address (the guest's physical), length (bytes), kind, queue."""

CAPACITY = 2_000_000
"""Records: a minute of 2000 frames a second of 9014 bytes, there and back."""


class Kind(IntEnum):
    """A kind says what an access is for; kinds from WRITES on are writes by the device."""

    TX_DESCRIPTOR = 0
    TX_DATA = 1
    RX_DESCRIPTOR = 2
    RX_DATA = 8
    RX_WRITEBACK = 9
    TX_WRITEBACK = 10


WRITES = Kind.RX_DATA

MISBEHAVED = 1 << 15
"""Set in the kind of a write that the device had no right to make."""

_BYTES, _put, _now_ns = RECORD.size, RECORD.pack_into, time.monotonic_ns  # looked up once


class DmaLog:
    """Records of accesses, in the order in which they were made; the file is *path*.

    A log that is full takes no more records; one that *wraps* forgets all that it has, and begins
    again at the front.
    """

    def __init__(self, path: str, capacity: int = CAPACITY, *, wraps: bool = False) -> None:
        """Make the file.  Raises OSError where there is no room for it."""
        self.path = path
        self._room = HEAD.size + capacity * _BYTES
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
        try:
            os.posix_fallocate(descriptor, 0, self._room)  # a disk that fills up would end us later
            self._map = mmap.mmap(descriptor, 0)
        finally:
            os.close(descriptor)
        self._capacity = capacity
        self._wraps = wraps
        self.dropped = 0
        """Accesses that are not in the file, since it was full."""
        self._end = HEAD.size
        self._note()

    @property
    def count(self) -> int:
        """How many records there are."""
        return (self._end - HEAD.size) // _BYTES

    def add(self, address: int, length: int, kind: int, queue: int) -> None:
        """Note one access, made now."""
        end = self._end
        if end == self._room:
            if not self._wraps:
                self.dropped += 1
                self._note()
                return
            self.dropped += self._capacity
            end = HEAD.size
        _put(self._map, end, _now_ns(), address, length, kind, queue)
        self._end = end + _BYTES

    def settle(self) -> None:
        """Write the number of records into the file; done once for each batch."""
        self._note()

    def close(self) -> None:
        """Let go of the file, whole."""
        self._note()
        self._map.close()

    def written(self, since: int = 0) -> list[tuple[int, int]]:
        """The (address, length) of each write from record *since* on."""
        begin = HEAD.size + since * _BYTES
        with memoryview(self._map)[begin : self._end] as records:
            return [
                (address, length)
                for _, address, length, kind, _ in RECORD.iter_unpack(records)
                if kind & ~MISBEHAVED >= WRITES
            ]

    def _note(self) -> None:
        first = self.dropped if self._wraps else 0
        HEAD.pack_into(self._map, 0, self.count, self.dropped, self._capacity, first)
