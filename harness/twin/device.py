"""The VF as its guest sees it: BAR 0, configuration space, resets; put together from its rooms."""

from __future__ import annotations

import struct
import time
from collections.abc import Sequence
from typing import Any, Callable

from harness.twin.capability import Capability
from harness.twin.config_space import ConfigSpace
from harness.twin.dma_log import DmaLog
from harness.twin.filters import NO_MAC
from harness.twin.interrupts import Interrupts
from harness.twin.memory import GuestMemory
from harness.twin.misbehaviour import Misbehaviour
from harness.twin.port import Port
from harness.twin.queue import Queue
from harness.twin.receive import Receiver
from harness.twin.statistics import Statistics
from harness.twin.transmit import Send, Transmitter
from harness.uapi.ixgbe_vf import (
    MAILBOX_WORDS,
    QUEUE_BYTES,
    QUEUES,
    RECEIVE,
    TRANSMIT,
    QueueRegister,
    Register,
    VfControl,
)

_MAILBOX_END = Register.VFMBMEM + 4 * MAILBOX_WORDS


class Device:
    """One VF.  *send* puts its frames onto the wire, *commanded* is told its COMMAND register.

    *changed* is told of the registers of *capabilities*; see ``config_space``.  *follow* has the
    host's bridge follow the filter; see ``forwarding``.
    """

    def __init__(
        self,
        *,
        port: Port,
        send: Send,
        log: DmaLog | None = None,
        erratum_35: bool = True,
        capabilities: Sequence[Capability] = (),
        commanded: Callable[[int], None] = lambda _: None,
        changed: Callable[[str, bytes], None] = lambda _name, _now: None,
        follow: Callable[[bytes], str] = lambda _: "",
    ) -> None:
        self.config = ConfigSpace(
            erratum_35=erratum_35, capabilities=capabilities, commanded=self._command_written,
            changed=changed, reset=self.reset,
        )  # fmt: skip
        self._commanded = commanded
        self._mastered = False
        self._follow = follow
        self._on_release = ""
        self.released: list[dict[str, Any]] = []
        """What `clear_filter_on_release` came to: events as an observer has them."""
        self.misbehaviour = Misbehaviour(self.config)
        self.memory = GuestMemory(self.misbehaviour, log)
        self.port = port
        self.interrupts = Interrupts(self.misbehaviour)
        self.statistics = Statistics()
        parts = (self.memory, port, self.interrupts, self.statistics)
        self.receiver = Receiver(*parts, self.misbehaviour)
        self.transmitter = Transmitter(*parts, send)
        self._send = send
        port.ring = self.interrupts.cause_other
        port.stop_transmitting = self.transmitter.disable
        port.clear_write_back = self.transmitter.clear_write_back

    @property
    def has_late_work(self) -> bool:
        """Whether something waits for a time, and not for an event."""
        return self.receiver.has_late_writes or self.port.mailbox.has_late_replies

    def clear_filter_on_release(self, name: str) -> None:
        """Clear the port's filter when Bus Master Enable next falls, and note it as *name*."""
        self._on_release = name
        self.released.clear()

    def follow_filter(self) -> str:
        """Have the host's bridge follow the port's filter; what it refused, or ``""``."""
        return self._follow(self.port.filters.mac)

    def reset(self) -> None:
        """Reset the function (FLR, or VFIO's): the VF is off the bus; BARs stay.

        Of its queues only the rings are gone; see ``queue``.  Its mailbox keeps what it holds.
        """
        self.config.clear()
        self.receiver.reset_function()
        self.transmitter.reset_function()
        self._was_reset()

    def announce(self, mac: bytes) -> None:
        """Let the port tell the wire that *mac* is here: a reverse ARP request (RFC 903)."""
        request = struct.pack("!HHBBH", 1, 0x0800, 6, 4, 3) + mac + bytes(4) + mac + bytes(4)
        self._send([b"\xff" * 6 + mac + b"\x80\x35" + request + bytes(18)])

    def read(self, offset: int) -> int:
        """A register of BAR 0; one that is not there reads as 0."""
        if Register.VFMBMEM <= offset < _MAILBOX_END:
            return self.port.mailbox.read_word((offset - Register.VFMBMEM) >> 2)
        if offset == Register.VFMAILBOX:
            return self.port.mailbox.read_status()
        if offset == Register.VFLINKS:
            return self.port.links()
        if offset == Register.VFFRTIMER:
            return time.monotonic_ns() // 1000 & 0xFFFFFFFF
        if (count := self.statistics.read(offset)) is not None:
            return count
        if (found := self._queue(offset)) is not None:
            queue, register = found
            return queue.read(register)
        return self.interrupts.read(offset)

    def write(self, offset: int, value: int) -> None:
        """Write a register of BAR 0; one that is not there takes nothing."""
        if Register.VFMBMEM <= offset < _MAILBOX_END:
            self.port.mailbox.write_word((offset - Register.VFMBMEM) >> 2, value)
        elif offset == Register.VFMAILBOX:
            self.port.mailbox.write_status(value)
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
        was, self._mastered = self._mastered, self.config.masters_bus
        self.interrupts.deliver()
        if was and not self._mastered and self._on_release:
            name, self._on_release = self._on_release, ""
            data = {}
            try:
                self.port.set_mac(NO_MAC)
            except OSError:
                data["note"] = "the filter was empty already: a reset took the address out"
            if wrong := self.follow_filter():
                data["error"] = wrong
            self.released.append({"t_ns": time.monotonic_ns(), "name": name, "data": data})

    def _was_reset(self) -> None:
        self.interrupts.clear()
        self.port.vf_was_reset()

    def _queue(self, offset: int) -> tuple[Queue, QueueRegister] | None:
        """The queue, and its register, at *offset*."""
        for first, queues in (
            (RECEIVE, self.receiver.queues),
            (TRANSMIT, self.transmitter.queues),
        ):
            number, register = divmod(offset - first, QUEUE_BYTES)
            if 0 <= number < QUEUES and register in _QUEUE_REGISTERS:
                return queues[number], QueueRegister(register)
        return None


_QUEUE_REGISTERS = frozenset(QueueRegister)
