"""Frames from the guest's memory onto the wire: contexts, checksums, segments, VLAN tags."""

from __future__ import annotations

from typing import Callable, Protocol, Union

from harness.twin import offload
from harness.twin.dma_log import Kind
from harness.twin.filters import vlan_of
from harness.twin.lender import Lender
from harness.twin.memory import DmaFault, GuestMemory
from harness.twin.offload import Context
from harness.twin.queue import Queue
from harness.twin.statistics import Counts
from harness.twin.vectors import Causes
from harness.uapi import ixgbe_vf
from harness.uapi.ixgbe_vf import (
    DESCRIPTOR_BYTES,
    POPTS_IXSM,
    POPTS_TXSM,
    TX_DESCRIPTOR,
    QueueRegister,
    TxCommand,
)

Part = Union[bytes, bytearray, memoryview]
Send = Callable[[list[Part]], bool]
"""Puts one frame, given in parts, onto the wire; whether the wire took it."""

_HEADER_BYTES = 14
_HEAD_BYTES = 16  # with the first half of a tag, if there is one
_LEAST_BYTES = 60
"""Of a frame without its checksum: the port pads shorter ones (HLREG0.TXPADEN)."""

_MOST_PARTS = 64  # of a frame; writev(2) takes 1024, padding included
_LARGEST_BYTES = ixgbe_vf.MAX_FRAME_BYTES - ixgbe_vf.CHECKSUM_BYTES
_LARGEST_TAGGED = _LARGEST_BYTES + ixgbe_vf.TAG_BYTES
_LARGEST_SEGMENTED = 1 << 18  # PAYLEN has 18 bits (IXGBE_ADVTXD_PAYLEN_SHIFT is 14)
_OFFLOADED = POPTS_IXSM | POPTS_TXSM
_DONE = ixgbe_vf.TX_DONE.to_bytes(4, "little")
_STATUS_AT = DESCRIPTOR_BYTES - len(_DONE)


class Rate(Protocol):
    """A rate limits how fast the queues of a function send."""

    def may_send(self, queue: int) -> bool:
        """Say whether a frame of *queue* may leave now; else somebody runs the queue later."""

    def sent(self, queue: int, length: int) -> None:
        """A frame of *queue* left, of so many bytes without its checksum."""


class Transmitter:
    """The transmit queues of a VF; *send* is the wire."""

    def __init__(
        self,
        memory: GuestMemory,
        port: Lender,
        interrupts: Causes,
        statistics: Counts,
        send: Send,
        queues: int = ixgbe_vf.QUEUES,
    ) -> None:
        self.queues = [Queue(number) for number in range(queues)]
        self._contexts = [_no_contexts() for _ in self.queues]
        self._memory = memory
        self._port = port
        self._interrupts = interrupts
        self._statistics = statistics
        self._send = send
        self._running: set[int] = set()  # queues whose DMA the client is being asked for
        self._reported: set[int] = set()  # those with frames that their driver waits to be done
        self.rate: Rate | None = None
        """The limit of the function's queues, where a port can limit them."""

    def clear(self) -> None:
        """Do what a reset of the whole port does."""
        for number, queue in enumerate(self.queues):
            queue.clear()
            self._contexts[number] = _no_contexts()

    def reset_function(self) -> None:
        """Do what a function reset of the VF does."""
        for number, queue in enumerate(self.queues):
            queue.reset_function()
            self._contexts[number] = _no_contexts()

    def disable(self) -> None:
        """Do what the VF's own reset does, and the port's driver where the VF was reset."""
        for number, queue in enumerate(self.queues):
            queue.disable()
            self._contexts[number] = _no_contexts()

    def clear_write_back(self) -> None:
        """Clear where heads are written back to, as the port's driver does for a VF."""
        for queue in self.queues:
            for register in (QueueRegister.WBAL, QueueRegister.WBAH):
                queue.write(register, 0)

    def holds_frames(self) -> bool:
        """Say whether a queue has descriptors that the driver gave to the device."""
        return any(queue.available for queue in self.queues)

    def run_all(self) -> None:
        """Send what the driver has put into every ring, as the port does once it has its link."""
        for queue in self.queues:
            self.run(queue)

    def run(self, queue: Queue) -> None:
        """Send what the driver has put into the ring up to its tail.

        Where the bus is not ours, an address is not lent, or the port has no link, the ring stands
        still.  A tail that the driver writes while the client is asked for something is seen when
        that is done.
        """
        if queue.number in self._running:
            return
        self._running.add(queue.number)
        try:
            while queue.available and self._port.fetches:
                before = queue.epoch, queue.head, queue.tail
                self._run_available(queue)
                if before == (queue.epoch, queue.head, queue.tail):
                    break  # the end of a frame is not there yet
        except DmaFault:
            pass  # the ring stands still
        finally:
            self._running.discard(queue.number)
            if queue.number in self._reported:
                self._reported.discard(queue.number)
                self._interrupts.cause(queue.number, transmit=True)

    def _run_available(self, queue: Queue) -> None:
        """Send every whole frame that is there, and report those that the driver asks for."""
        epoch, start = queue.epoch, queue.head
        parts: list[Part] = []
        command = options = 0
        for index, descriptor in enumerate(self._descriptors(queue), 1):
            address, word, status = descriptor
            if word & ixgbe_vf.TX_TYPE_MASK == ixgbe_vf.TX_TYPE_CONTEXT:
                context = Context.of(address, word, status)
                self._contexts[queue.number][_context_of(status)] = context
                continue
            if not parts:
                if self.rate and not self.rate.may_send(queue.number):
                    return
                command, options = word, status
            length = word & ixgbe_vf.TX_LENGTH_MASK
            parts.append(self._memory.read(address, length, Kind.TX_DATA, queue.number))
            if queue.epoch != epoch:
                return  # the driver took the ring away while the client read for us
            if not word & TxCommand.EOP:
                continue
            self._emit(queue, parts, command, options)
            parts = []  # views of memory that may be taken away
            if word & TxCommand.RS:
                at = queue.address_of(start + index - 1) + _STATUS_AT
                self._memory.write(at, _DONE, Kind.TX_WRITEBACK, queue.number)
                self._reported.add(queue.number)
            if queue.epoch != epoch:
                return  # the driver took the ring away while the client wrote for us
            queue.head = (start + index) % queue.count

    def _descriptors(self, queue: Queue) -> list[tuple[int, int, int]]:
        """All that the device has, in the order of the ring; read in one go, or two at its end."""
        found: list[tuple[int, int, int]] = []
        left, index, epoch = queue.available, queue.head, queue.epoch
        while left:
            run = min(left, queue.count - index)
            read = self._memory.read(
                queue.address_of(index), run * DESCRIPTOR_BYTES, Kind.TX_DESCRIPTOR, queue.number
            )
            if queue.epoch != epoch:
                return []
            found += TX_DESCRIPTOR.iter_unpack(read)
            index, left = (index + run) % queue.count, left - run
        return found

    def _emit(self, queue: Queue, parts: list[Part], command: int, options: int) -> None:
        """Put one frame onto the wire, or what it becomes: a frame for each segment."""
        context = self._contexts[queue.number][_context_of(options)]
        tag = self._port.tag(context.vlan if command & TxCommand.VLE else None)
        if not (options & _OFFLOADED or command & TxCommand.TSE) and tag is None:
            self._put(queue, parts)
            return
        if sum(map(len, parts)) > (
            _LARGEST_SEGMENTED if command & TxCommand.TSE else _LARGEST_TAGGED
        ):
            self._statistics.malformed += 1
            return
        try:
            for frame in offload.finished(b"".join(parts), command, options, context):
                self._put(queue, [frame if tag is None else offload.tagged(frame, tag)])
        except ValueError:
            self._statistics.malformed += 1

    def _put(self, queue: Queue, parts: list[Part]) -> None:
        length = sum(map(len, parts))
        if len(parts[0]) < _HEAD_BYTES or len(parts) > _MOST_PARTS:
            parts = [b"".join(parts)]
        head = bytes(parts[0][:_HEAD_BYTES]).ljust(_HEAD_BYTES, b"\0")  # as it leaves: padded
        vlan = vlan_of(head)
        largest = _LARGEST_BYTES if vlan is None else _LARGEST_TAGGED
        if not _HEADER_BYTES <= length <= largest:
            self._statistics.malformed += 1
        elif not self._port.lets_out(head[6:12], vlan):
            self._statistics.spoofed += 1
        elif self._send([*parts, bytes(_LEAST_BYTES - length)] if length < _LEAST_BYTES else parts):
            length = max(length, _LEAST_BYTES)
            self._statistics.send(length)
            queue.count_frame(length + ixgbe_vf.CHECKSUM_BYTES)
            if self.rate:
                self.rate.sent(queue.number, length)
        else:
            self._statistics.unsent += 1


def _no_contexts() -> list[Context]:
    """Return the contexts of a queue whose driver wrote none yet."""
    return [Context() for _ in range(ixgbe_vf.TX_CONTEXTS)]


def _context_of(word: int) -> int:
    """Which of its queue's contexts a descriptor means, by its last word.

    Ref: 82599 datasheet, IDX of the context and data descriptors; ixgbevf_tso takes the second.
    """
    return word >> ixgbe_vf.TX_CONTEXT_SHIFT & (ixgbe_vf.TX_CONTEXTS - 1)
