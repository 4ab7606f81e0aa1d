"""The guest's memory, as its client lends it; every access of the device goes through here."""

from __future__ import annotations

import bisect
import contextlib
import errno
import mmap
import os
from dataclasses import dataclass
from typing import Protocol, Union

from harness.twin.channel import Channel, ClientGone
from harness.twin.dma_log import DmaLog
from harness.uapi import vfio_user
from harness.uapi.vfio_user import Command, Flag, MapFlag

Bytes = Union[bytes, bytearray, memoryview]
PAGE = 4096
_TOP = 1 << 64
MOST_REGIONS = 256
"""A descriptor is kept for each; a client that is not told takes 65,535 for granted."""


class Refused(Exception):
    """A command that cannot be done; *error* is the errno that says why."""

    def __init__(self, error: int) -> None:
        super().__init__(os.strerror(error))
        self.error = error


class DmaFault(Exception):
    """An access to what is not lent, or not lent for that: the device's master abort."""


class Gate(Protocol):
    """Whether the device may master the bus now (BME)."""

    @property
    def is_open(self) -> bool:
        """What the device goes by."""

    @property
    def misbehaved(self) -> int:
        """MISBEHAVED while what the device writes it has no right to write; 0 otherwise."""


@dataclass(frozen=True)
class Region:
    """A stretch that is lent; *view* is empty where it was lent without a descriptor."""

    address: int
    size: int
    flags: int
    offset: int  # in the file that was lent
    map: mmap.mmap | None
    view: memoryview

    @property
    def end(self) -> int:
        return self.address + self.size


class GuestMemory:
    """What is mapped, and the two ways to it: straight, and by message through the client.

    Straight writes are unknown to the client's dirty-page tracking; those by message are marked.
    With *tracked* all writes go by message.  No access is made while the *gate* is shut.
    """

    def __init__(self, gate: Gate, log: DmaLog | None) -> None:
        self._gate = gate
        self._starts: list[int] = []
        self._regions: list[Region] = []
        self.log = log
        self.channel: Channel | None = None
        self.tracked = False
        self.largest_transfer = vfio_user.MAX_TRANSFER
        """Bytes of one message's access, as agreed on with the client."""
        self.faults = 0  # accesses that found nothing lent

    @property
    def regions(self) -> tuple[Region, ...]:
        """In the order of their addresses."""
        return tuple(self._regions)

    def map(self, address: int, size: int, flags: int, offset: int, descriptor: int | None) -> None:
        """Lend a stretch; *descriptor* stays the caller's.

        Raises Refused: EINVAL for one that is empty, out of bounds or not of whole pages, EEXIST
        for one that overlaps another, ENOSPC for one too many.
        """
        if len(self._regions) == MOST_REGIONS:
            raise Refused(errno.ENOSPC)
        if not size or address + size > _TOP or address % PAGE or size % PAGE:
            raise Refused(errno.EINVAL)
        if not flags & (MapFlag.READABLE | MapFlag.WRITABLE) or flags >> 2:
            raise Refused(errno.EINVAL)
        at = bisect.bisect(self._starts, address)
        overlaps = at < len(self._regions) and self._regions[at].address < address + size
        if overlaps or (at and self._regions[at - 1].end > address):
            raise Refused(errno.EEXIST)
        mapped = None if descriptor is None else _mapped(descriptor, offset, size, flags)
        view = memoryview(mapped) if mapped else memoryview(b"")
        self._starts.insert(at, address)
        self._regions.insert(at, Region(address, size, flags, offset, mapped, view))

    def unmap(self, address: int, size: int) -> None:
        """Give a stretch back; nothing refers to it any more but an access that is in progress.

        Raises Refused: ENOENT unless exactly this one is lent.
        """
        at = bisect.bisect_left(self._starts, address)
        if at == len(self._regions) or (self._regions[at].address, self._regions[at].size) != (
            address, size,
        ):  # fmt: skip
            raise Refused(errno.ENOENT)
        del self._starts[at]
        _let_go(self._regions.pop(at))

    def unmap_all(self) -> None:
        """Give everything back."""
        self._starts.clear()
        while self._regions:
            _let_go(self._regions.pop())

    def read(self, address: int, length: int, kind: int, queue: int = 0) -> Bytes:
        """What is there; a view of the memory itself where it can be, not to be kept.

        Raises DmaFault.
        """
        region = self._lent(address, length, MapFlag.READABLE)
        if self.log:
            self.log.add(address, length, kind, queue)
        if region.view:
            begin = address - region.address
            return region.view[begin : begin + length]
        return self._read_by_message(address, length)

    def write(self, address: int, data: Bytes, kind: int, queue: int = 0) -> None:
        """Write *data* there.  Raises DmaFault."""
        region = self._lent(address, len(data), MapFlag.WRITABLE)
        kind |= self._gate.misbehaved
        straight = bool(region.view) and not self.tracked
        if not straight:
            self.write_by_message(address, data)  # what is refused is not in the log
        if self.log:
            self.log.add(address, len(data), kind, queue)
        if straight:
            begin = address - region.address
            region.view[begin : begin + len(data)] = data

    def peek(self, address: int, length: int) -> Bytes:
        """What is there, for us and not for the device: neither gated nor in the log."""
        region = self._find(address, length)
        if region is None or not region.view:
            raise DmaFault(f"{length} bytes at {address:#x} are not lent as shared memory")
        begin = address - region.address
        return region.view[begin : begin + length]

    def write_by_message(self, address: int, data: Bytes) -> None:
        """Have the client write *data*, which marks its pages.  Raises DmaFault if it refuses."""
        for begin in range(0, len(data), self.largest_transfer):
            part = bytes(data[begin : begin + self.largest_transfer])
            head = vfio_user.DMA_ACCESS.pack(address + begin, len(part))
            self._request(Command.DMA_WRITE, head, part)

    def _read_by_message(self, address: int, length: int) -> bytes:
        read = bytearray()
        while len(read) < length:
            wanted = min(length - len(read), self.largest_transfer)
            head = vfio_user.DMA_ACCESS.pack(address + len(read), wanted)
            data = self._request(Command.DMA_READ, head)[len(head) :]
            if len(data) != wanted:
                raise DmaFault(f"the client sent {len(data)} bytes instead of {wanted}")
            read += data
        return bytes(read)

    def _request(self, command: Command, *payload: bytes) -> memoryview:
        """The payload of the client's reply.

        Raises DmaFault if it refuses, or is gone: who serves the channel learns of that by itself.
        """
        if self.channel is None:
            raise DmaFault("there is no client")
        try:
            reply = self.channel.request(command, *payload)
        except ClientGone as gone:
            raise DmaFault(str(gone)) from None
        if reply.flags & Flag.ERROR:
            raise DmaFault(f"the client refused: {os.strerror(reply.error & 0x7FFFFFFF)}")
        return reply.payload

    def _lent(self, address: int, length: int, flag: MapFlag) -> Region:
        if not self._gate.is_open:
            raise DmaFault("Bus Master Enable is clear")
        region = self._find(address, length)
        if region is None or not region.flags & flag:
            self.faults += 1
            raise DmaFault(f"{length} bytes at {address:#x} are not lent for that")
        return region

    def _find(self, address: int, length: int) -> Region | None:
        at = bisect.bisect(self._starts, address) - 1
        if at < 0:
            return None
        region = self._regions[at]
        return region if address + length <= region.end else None


def _mapped(descriptor: int, offset: int, size: int, flags: int) -> mmap.mmap:
    """The file's stretch, shared.  Raises Refused: EINVAL where it cannot be mapped so."""
    access = mmap.ACCESS_WRITE if flags & MapFlag.WRITABLE else mmap.ACCESS_READ
    try:
        if offset % mmap.ALLOCATIONGRANULARITY or os.fstat(descriptor).st_size < offset + size:
            raise Refused(errno.EINVAL)
        return mmap.mmap(descriptor, size, access=access, offset=offset)
    except (OSError, ValueError, OverflowError):
        raise Refused(errno.EINVAL) from None


def _let_go(region: Region) -> None:
    region.view.release()
    if region.map:
        with contextlib.suppress(BufferError):  # an access in progress holds it, and ends it
            region.map.close()
