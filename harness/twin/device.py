"""A twin has a VF whose port is a model of the port's driver."""

from __future__ import annotations

import struct
import time
from collections.abc import Sequence
from typing import Any, Callable

from harness.twin.capability import Capability
from harness.twin.dma_log import DmaLog
from harness.twin.filters import NO_MAC
from harness.twin.port import Port
from harness.twin.transmit import Send
from harness.twin.vf import Vf


class Device(Vf):
    """A twin's VF has a wire of its own and is lent by *port*; for the rest see `Vf`.

    *follow* has the host's bridge follow the filter; see ``forwarding``.
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
        super().__init__(
            port=port, send=send, log=log, erratum_35=erratum_35, capabilities=capabilities,
            commanded=commanded, changed=changed,
        )  # fmt: skip
        self.port = port
        self._send = send
        self._mastered = False
        self._follow = follow
        self._on_release = ""
        self.released: list[dict[str, Any]] = []
        """The events of `clear_filter_on_release`, as an observer has them."""
        port.stop_transmitting = self.transmitter.disable
        port.clear_write_back = self.transmitter.clear_write_back
        port.clear_queues = self._clear_queues
        port.holds_frames = self.transmitter.holds_frames

    def receive(self, frame: memoryview) -> None:
        """Take a frame from the wire; what no filter of the port's wants is dropped."""
        if self.port.accepts(frame):
            self.receiver.take(frame)
        else:
            self.statistics.filtered += 1

    def clear_filter_on_release(self, name: str) -> None:
        """Clear the port's filter when Bus Master Enable next falls, and note it as *name*."""
        self._on_release = name
        self.released.clear()

    def follow_filter(self) -> str:
        """Have the host's bridge follow the port's filter; return what it refused, or ``""``."""
        return self._follow(self.port.filters.mac)

    def announce(self, mac: bytes) -> None:
        """Let the port tell the wire that *mac* is here: a reverse ARP request (RFC 903)."""
        request = struct.pack("!HHBBH", 1, 0x0800, 6, 4, 3) + mac + bytes(4) + mac + bytes(4)
        self._send([b"\xff" * 6 + mac + b"\x80\x35" + request + bytes(18)])

    def _clear_queues(self) -> None:
        """Do to the queues what a reset of the port does (ixgbe_stop_adapter_generic)."""
        self.receiver.clear()
        self.transmitter.clear()
        self.port.psrtype = 0

    def _command_written(self, command: int) -> None:
        super()._command_written(command)
        was, self._mastered = self._mastered, self.config.masters_bus
        if was and not self._mastered and self._on_release:
            name, self._on_release = self._on_release, ""
            data = {}
            try:
                self.port.set_mac(NO_MAC)
            except OSError:  # ENOMEM, the only refusal of zeros
                data["note"] = "the filter was empty already: a reset took the address out"
            if wrong := self.follow_filter():
                data["error"] = wrong
            self.released.append({"t_ns": time.monotonic_ns(), "name": name, "data": data})
