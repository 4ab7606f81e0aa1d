"""Frames from the wire into the guest's memory: filters, queues, several buffers a frame."""

from __future__ import annotations

import contextlib
import time
from collections import deque

from harness.twin import checksum, rss
from harness.twin.dma_log import Kind
from harness.twin.lender import Lender
from harness.twin.memory import Bytes, DmaFault, GuestMemory
from harness.twin.misbehaviour import Misbehaviour
from harness.twin.queue import Queue
from harness.twin.statistics import Counts
from harness.twin.vectors import Causes
from harness.uapi import ixgbe_vf
from harness.uapi.ixgbe_vf import (
    DESCRIPTOR_BYTES,
    RX_READ,
    RX_WRITEBACK,
    PacketType,
    QueueControl,
    QueueRegister,
    RxStatus,
)

Write = tuple[int, Bytes, Kind]
"""An address in the guest, what is written there, and what for."""

_FETCH = 64
"""Descriptors fetched at once, as the device prefetches them."""


class Receiver:
    """The receive queues of a VF."""

    def __init__(
        self,
        memory: GuestMemory,
        port: Lender,
        interrupts: Causes,
        statistics: Counts,
        misbehaviour: Misbehaviour,
        queues: int = ixgbe_vf.QUEUES,
    ) -> None:
        self.queues = [Queue(number) for number in range(queues)]
        self._memory = memory
        self._port = port
        self._interrupts = interrupts
        self._statistics = statistics
        self.spread = rss.Spread()
        self._buffers: list[list[int]] = [[] for _ in self.queues]  # fetched, the next one last
        self._epochs = [queue.epoch for queue in self.queues]
        self._touched: set[int] = set()
        self._misbehaviour = misbehaviour
        self._late: deque[tuple[int, int, Queue, list[Write]]] = deque()  # due, epoch, where, what

    def clear(self) -> None:
        """Do what a reset of the whole port does."""
        for queue in self.queues:
            queue.clear()

    def reset_function(self) -> None:
        """Do what a function reset of the VF does."""
        for queue in self.queues:
            queue.reset_function()

    def disable(self) -> None:
        """Do what the VF's own reset does."""
        for queue in self.queues:
            queue.disable()

    def take(self, frame: memoryview) -> None:
        """Receive one frame that is for this function, without its checksum.

        The interrupt comes with `settle`, once for all frames of a batch.
        """
        length = len(frame)
        parsed = checksum.parse(frame)
        hashed, kind = self.spread.hash(frame, parsed)
        number = self._port.choose_queue(hashed)
        queue = self.queues[number]
        tag = 0
        status = _checked(frame, parsed)
        strips = queue.read(QueueRegister.DCTL) & QueueControl.VME
        if strips and length >= 18 and frame[12] == 0x81 and frame[13] == 0x00:
            tag = frame[14] << 8 | frame[15]
            frame = memoryview(bytes(frame[:12]) + bytes(frame[16:]))
            status |= RxStatus.VP  # a tag of the port's own VLAN too: QDE has no HIDE_VLAN
        first_word = _packet_type(parsed) | kind
        try:
            got_in = self._put(queue, frame, first_word, hashed, status, tag)
        except DmaFault:
            got_in = False
        if got_in:
            queue.count_frame(length)
            self._statistics.receive(length, multicast=bool(frame[0] & 1))
        else:
            queue.missed += 1
            self._statistics.missed += 1

    def settle(self) -> None:
        """Interrupt the driver of each queue that got frames."""
        while self._touched:
            self._interrupts.cause(self._touched.pop(), transmit=False)

    @property
    def has_late_writes(self) -> bool:
        return bool(self._late)

    def write_late(self) -> None:
        """Make the writes that misbehaviour postponed and that are due, BME or not."""
        while self._late and self._late[0][0] <= time.monotonic_ns():
            _, epoch, queue, writes = self._late.popleft()
            stale = queue.epoch != epoch
            with self._misbehaviour.overdue(stale=stale), contextlib.suppress(DmaFault):
                # The memory counts a fault, and what is left of the frame is not written.
                for address, data, kind in writes:
                    self._memory.write(address, data, kind, queue.number)
                self._touched.add(queue.number)

    def _put(
        self, queue: Queue, frame: memoryview, first_word: int, hashed: int, status: int, tag: int
    ) -> bool:
        """Write a frame into as many buffers as it takes; whether there were enough."""
        size = self._buffer_bytes(queue)
        needed = -(-len(frame) // size)
        buffers = self._fetched(queue, needed)
        if buffers is None:
            return False
        frame = self._misbehaviour.frame(frame)
        epoch, first = queue.epoch, queue.head
        writes: list[Write] = []
        for number in range(needed):
            part = frame[number * size : (number + 1) * size]
            writes.append((buffers[-1 - number], part, Kind.RX_DATA))
        for number in range(needed):
            part_bytes = len(writes[number][1])
            word = RxStatus.DD | (status | RxStatus.EOP if number == needed - 1 else 0)
            written = RX_WRITEBACK.pack(first_word, hashed, word, part_bytes, tag)
            writes.append((queue.address_of(first + number), written, Kind.RX_WRITEBACK))
        if self._misbehaviour.late_ns:
            self._postpone(queue, writes)
        else:
            for address, data, kind in writes:
                self._memory.write(address, data, kind, queue.number)
                if queue.epoch != epoch:
                    return False  # the driver took the ring away while the client wrote for us
            self._touched.add(queue.number)
        del buffers[-needed:]
        queue.head = (first + needed) % queue.count
        return True

    def _postpone(self, queue: Queue, writes: list[Write]) -> None:
        due_ns = time.monotonic_ns() + self._misbehaviour.late_ns
        kept: list[Write] = [(address, bytes(data), kind) for address, data, kind in writes]
        self._late.append((due_ns, queue.epoch, queue, kept))

    def _fetched(self, queue: Queue, needed: int) -> list[int] | None:
        """Buffer addresses from the queue's head on, at least *needed*; None if it has fewer."""
        buffers = self._buffers[queue.number]
        if self._epochs[queue.number] != queue.epoch:
            buffers.clear()
            self._epochs[queue.number] = queue.epoch
        if len(buffers) >= needed:
            return buffers
        available = queue.available
        if available < needed:
            return None
        buffers.clear()
        fetch, index = min(available, _FETCH), queue.head
        addresses: list[int] = []
        while fetch:
            run = min(fetch, queue.count - index)
            read = self._memory.read(
                queue.address_of(index), run * DESCRIPTOR_BYTES, Kind.RX_DESCRIPTOR, queue.number
            )
            if queue.epoch != self._epochs[queue.number]:
                return None  # the driver took the ring away while the client read for us
            addresses += [packet for packet, _ in RX_READ.iter_unpack(read)]
            index, fetch = (index + run) % queue.count, fetch - run
        addresses.reverse()
        buffers += addresses
        return buffers

    @staticmethod
    def _buffer_bytes(queue: Queue) -> int:
        kib = queue.read(QueueRegister.SRRCTL) & ixgbe_vf.SRRCTL_BSIZEPKT_MASK
        return (kib or 2) << ixgbe_vf.SRRCTL_BSIZEPKT_SHIFT


def _checked(frame: memoryview, parsed: checksum.Parsed | None) -> int:
    """Which checksums were looked at, and which are wrong."""
    if parsed is None or (parsed.version == 6 and not parsed.transport):
        return 0
    status = 0
    if parsed.version == 4:
        status = RxStatus.IPCS
        if not checksum.network_is_right(frame, parsed):
            status |= RxStatus.IPE
    if parsed.transport:
        status |= RxStatus.L4CS
        if not checksum.transport_is_right(frame, parsed):
            status |= RxStatus.TCPE
    return status


def _packet_type(parsed: checksum.Parsed | None) -> int:
    if parsed is None:
        return 0
    kind: int = PacketType.IPV4 if parsed.version == 4 else PacketType.IPV6
    if parsed.transport:
        kind |= PacketType.TCP if parsed.transport == checksum.TCP else PacketType.UDP
    return kind
