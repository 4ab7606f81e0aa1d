"""The guest's memory, as its client lends it; every access of the device goes through here."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from typing import Protocol, Union

from harness.twin.channel import Channel, ClientGone
from harness.twin.dma_log import DmaLog
from harness.twin.regions import MOST_REGIONS, PAGE, Refused, Region, Regions
from harness.twin.say import say
from harness.uapi import vfio_user
from harness.uapi.vfio_user import Command, Flag, MapFlag

__all__ = ["MOST_REGIONS", "PAGE", "Bytes", "DmaFault", "Gate", "GuestMemory", "Refused", "Region"]

Bytes = Union[bytes, bytearray, memoryview]


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


class GuestMemory:
    """The device reaches the client's memory straight, or by messages through the client.

    The client marks as dirty only what is written by message.  With *tracked* all writes go by
    message.  No access is made while the *gate* is shut.
    """

    def __init__(self, gate: Gate, log: DmaLog | None) -> None:
        self._gate = gate
        self._regions = Regions()
        self.log = log
        self.channel: Channel | None = None
        self.tracked = False
        self.largest_transfer = vfio_user.MAX_TRANSFER
        """Bytes of one message's access, as agreed on with the client."""
        self.faults = 0
        """Accesses that found nothing lent, or that the client refused or took back."""
        self.refusals = 0
        """Maps and unmaps that were refused; the first one of each client's is said, too."""
        self._said = False

    @property
    def regions(self) -> tuple[Region, ...]:
        """In the order of their addresses; a vIOMMU makes hundreds of thousands."""
        return self._regions.all()

    @property
    def maps(self) -> int:
        """The number of regions that are lent now."""
        return len(self._regions)

    def map(self, address: int, size: int, flags: int, offset: int, descriptor: int | None) -> None:
        """Lend a stretch; *descriptor* stays the caller's.  Raises Refused; see `Regions.add`."""
        try:
            self._regions.add(address, size, flags, offset, descriptor)
        except Refused as refused:
            self._refused("map", address, size, refused)
            raise

    def unmap(self, address: int, size: int) -> None:
        """Give back all that lies in the range; only an access in progress still refers to it.

        Raises Refused; see `Regions.remove`.
        """
        try:
            self._regions.remove(address, size)
        except Refused as refused:
            self._refused("unmap", address, size, refused)
            raise

    def unmap_all(self) -> None:
        """Give everything back."""
        self._regions.clear()
        self._said = False

    def read(self, address: int, length: int, kind: int, queue: int = 0) -> Bytes:
        """Return *length* bytes; they may be a view of the memory, so do not keep them.

        Raises DmaFault.
        """
        region = self._lent(address, length, MapFlag.READABLE)
        if self.log:
            self.log.add(address, length, kind, queue)
        if region:
            return self._read(region, address, length)
        parts = self._parts(address, length, MapFlag.READABLE)
        return b"".join([self._read(*part) for part in parts])

    def write(self, address: int, data: Bytes, kind: int, queue: int = 0) -> None:
        """Write *data* there.  Raises DmaFault."""
        region = self._lent(address, len(data), MapFlag.WRITABLE)
        kind |= self._gate.misbehaved
        if region and region.file and not self.tracked:
            if self.log:
                self.log.add(address, len(data), kind, queue)
            self._write(region, address, data)
            return
        written = 0
        try:
            for each, at, length in self._parts(address, len(data), MapFlag.WRITABLE):
                self._write(each, at, data[written : written + length])
                written += length
        finally:  # what is refused is not in the log
            if self.log and written:
                self.log.add(address, written, kind, queue)

    def peek(self, address: int, length: int) -> Bytes:
        """Return bytes of the guest for the harness, not for the device: neither gated nor logged.

        Raises DmaFault where the client would have to be asked.
        """
        regions = self._regions.covering(address, length)
        if not regions or not all(region.file for region in regions):
            raise DmaFault(f"{length} bytes at {address:#x} are not lent as shared memory")
        if len(regions) == 1:
            return self._read(regions[0], address, length)
        ends = [*(region.end for region in regions[:-1]), address + length]
        begins = [address, *ends[:-1]]
        places = zip(regions, begins, ends)
        return b"".join([self._read(each, begin, end - begin) for each, begin, end in places])

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
            self.faults += 1
            raise DmaFault(f"the client refused: {os.strerror(reply.error & 0x7FFFFFFF)}")
        return reply.payload

    def _lent(self, address: int, length: int, flag: MapFlag) -> Region | None:
        """Return the region that holds the whole access; None if it spans neighbouring regions.

        Raises DmaFault unless all of it is lent for that, and the bus is the device's.
        """
        if not self._gate.is_open:
            raise DmaFault("Bus Master Enable is clear")
        region = self._regions.holding(address, length)
        if region:
            if region.flags & flag:
                return region
        else:
            regions = self._regions.covering(address, length)
            if regions and all(each.flags & flag for each in regions):
                return None
        self.faults += 1
        raise DmaFault(f"{length} bytes at {address:#x} are not lent for that")

    def _parts(self, address: int, length: int, flag: MapFlag) -> Iterator[tuple[Region, int, int]]:
        """Cut an access into parts: the region, the address and the length of each.

        A region is looked up when its turn comes: the client may have taken it back while it was
        asked for the one before.  Raises DmaFault then.
        """
        end = address + length
        while address < end:
            region = self._regions.holding(address, 1)
            if region is None or not region.flags & flag:
                self.faults += 1
                raise DmaFault(f"the client took back what is at {address:#x}")
            part = min(end, region.end) - address
            yield region, address, part
            address += part

    def _read(self, region: Region, address: int, length: int) -> Bytes:
        if region.file is None:
            return self._read_by_message(address, length)
        begin = address - region.address + region.offset
        return region.file.view[begin : begin + length]

    def _write(self, region: Region, address: int, data: Bytes) -> None:
        if region.file is None or self.tracked:
            self.write_by_message(address, data)
            return
        begin = address - region.address + region.offset
        region.file.view[begin : begin + len(data)] = data

    def _refused(self, what: str, address: int, size: int, refused: Refused) -> None:
        self.refusals += 1
        if self._said:
            return
        self._said = True
        fix = "see what the client itself says of it"
        if refused.error == errno.ENOSPC:
            fix = f"give the guest larger pages, or iommu=pt: there is room for {MOST_REGIONS} maps"
        say(
            f"it refused to {what} {size:#x} bytes at {address:#x}: {refused}; DMA there may fail "
            f"or go astray; {fix} (further refusals of this client are counted, and not told)"
        )
