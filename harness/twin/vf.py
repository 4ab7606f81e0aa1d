"""A VF has BAR 0, configuration space and resets, as its driver sees them."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import Callable

from harness.twin.capability import Capability
from harness.twin.config_bytes import BYTES
from harness.twin.config_space import MSIX_BAR, ConfigSpace
from harness.twin.dma_log import DmaLog
from harness.twin.interrupts import Interrupts
from harness.twin.lender import Lender
from harness.twin.memory import GuestMemory
from harness.twin.misbehaviour import Misbehaviour
from harness.twin.queue import Queue
from harness.twin.receive import Receiver
from harness.twin.statistics import Statistics
from harness.twin.transmit import Send, Transmitter
from harness.twin.vectors import Vectors
from harness.uapi import ixgbe_vf
from harness.uapi.ixgbe_vf import (
    BAR_BYTES,
    MAILBOX_WORDS,
    QUEUE_BYTES,
    RECEIVE,
    TRANSMIT,
    QueueRegister,
    Register,
    VfControl,
)
from harness.uapi.vfio import PciRegion

_MAILBOX_END = Register.VFMBMEM + 4 * MAILBOX_WORDS


class Vf:
    """One VF of *port*.  *send* puts its frames onto the wire.

    *commanded* is told the COMMAND register whenever it is written, *changed* the registers of
    *capabilities*; see ``config_space``.  *queues* is how many the port may lend it, 2 or more.
    """

    def __init__(
        self,
        *,
        port: Lender,
        send: Send,
        log: DmaLog | None = None,
        erratum_35: bool = True,
        capabilities: Sequence[Capability] = (),
        configuration: type[ConfigSpace] = ConfigSpace,
        queues: int = ixgbe_vf.QUEUES,
        commanded: Callable[[int], None] = lambda _: None,
        changed: Callable[[str, bytes], None] = lambda _name, _now: None,
    ) -> None:
        self.config = configuration(
            erratum_35=erratum_35, capabilities=capabilities, commanded=self._command_written,
            changed=changed, reset=self.reset,
        )  # fmt: skip
        self._commanded = commanded
        self.misbehaviour = Misbehaviour(self.config)
        self.memory = GuestMemory(self.misbehaviour, log)
        self._port = port
        self.interrupts = Interrupts(self.misbehaviour, queues)
        self.statistics = Statistics()
        parts = (self.memory, port, self.interrupts, self.statistics)
        self.receiver = Receiver(*parts, self.misbehaviour, queues)
        self.transmitter = Transmitter(*parts, send, queues)
        port.ring = self.interrupts.cause_other

    @property
    def regions(self) -> Mapping[int, int]:
        """The size of each region that the VF has."""
        return _REGIONS

    @property
    def vectors(self) -> Vectors:
        """The MSI-X vectors that its interrupts are sent by."""
        return self.interrupts

    @property
    def has_late_work(self) -> bool:
        """Whether something waits for a time, and not for an event."""
        return self.receiver.has_late_writes or self._port.has_late_replies

    def connect(self) -> None:
        """Be as after power-on; ``vfio_pci_core_enable()`` resets a VF for whoever opens it."""
        self.reset()

    def reset(self) -> None:
        """Reset the function (FLR, or VFIO's): the VF is off the bus; BARs stay.

        Of its queues only the rings are gone; see ``queue``.  Its mailbox keeps what it holds.
        """
        self.config.clear()
        self.receiver.reset_function()
        self.transmitter.reset_function()
        self._was_reset()

    def read(self, offset: int) -> int:
        """Read a register of BAR 0; an offset without a register reads as 0."""
        if Register.VFMBMEM <= offset < _MAILBOX_END:
            return self._port.mailbox.read_word((offset - Register.VFMBMEM) >> 2)
        if offset == Register.VFMAILBOX:
            return self._port.mailbox.read_status()
        if offset == Register.VFLINKS:
            return self._port.links()
        if offset == Register.VFPSRTYPE:
            return self._port.psrtype
        if offset == Register.VFFRTIMER:
            return time.monotonic_ns() // 1000 & 0xFFFFFFFF
        if (count := self.statistics.read(offset)) is not None:
            return count
        if (found := self._queue(offset)) is not None:
            queue, register = found
            return queue.read(register)
        return self.interrupts.read(offset)

    def write(self, offset: int, value: int) -> None:
        """Write a register of BAR 0; a write to an offset without a register changes nothing."""
        if Register.VFMBMEM <= offset < _MAILBOX_END:
            self._port.mailbox.write_word((offset - Register.VFMBMEM) >> 2, value)
        elif offset == Register.VFMAILBOX:
            self._port.mailbox.write_status(value)
        elif offset == Register.VFPSRTYPE:
            self._port.psrtype = value
        elif offset == Register.VFCTRL:
            if value & VfControl.RST:
                self.receiver.disable()
                self.transmitter.disable()
                self._was_reset()
        elif (found := self._queue(offset)) is not None:
            queue, register = found
            queue.write(register, value)
            if offset >= TRANSMIT and register in (QueueRegister.TAIL, QueueRegister.DCTL):
                self.transmitter.run(queue)
        else:
            self.interrupts.write(offset, value)

    def _command_written(self, command: int) -> None:
        self._commanded(command)
        self.interrupts.deliver()

    def _was_reset(self) -> None:
        self.interrupts.clear()
        self._port.vf_was_reset()

    def _queue(self, offset: int) -> tuple[Queue, QueueRegister] | None:
        """The queue, and its register, at *offset*."""
        for first, queues in (
            (RECEIVE, self.receiver.queues),
            (TRANSMIT, self.transmitter.queues),
        ):
            number, register = divmod(offset - first, QUEUE_BYTES)
            if 0 <= number < len(queues) and register in _QUEUE_REGISTERS:
                return queues[number], QueueRegister(register)
        return None


_QUEUE_REGISTERS = frozenset(QueueRegister)
_REGIONS: Mapping[int, int] = {
    PciRegion.BAR0: BAR_BYTES,
    PciRegion(MSIX_BAR): BAR_BYTES,
    PciRegion.CONFIG: BYTES,
}
