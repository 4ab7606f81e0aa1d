"""A lab asks a chip for its state, and changes the chip, by JSON lines over a UNIX socket.

Requests and replies have the format of ``harness.twin.control``.  A request names a public method
of `Control`.  In its arguments, *port* is the number of a port on the chip, and *vf* the number of
a VF of that port; both count from 0.
"""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Sequence
from typing import Any

from harness.chip.physical_function import PhysicalFunction
from harness.twin.dma_log import DmaLog
from harness.twin.memory import GuestMemory
from harness.twin.queue import Queue
from harness.twin.vf import Vf
from harness.uapi.ixgbe_pf import MAXFRS_SHIFT, Register, Row

_PORT_FAULTS = frozenset(("silent_mailbox", "loses_resets", "loses", "dies"))
VF_FAULTS = frozenset(("ignores_bme", "late_ms", "corrupts", "loses", "hears_all"))
_MOST = 1e9


class Control:
    """A caller can call each public method by a request.

    *ports* are the chip's ports by number.  *has_client* is given the name of a function, such as
    ``port0-vf3``, and says whether a client is connected to the function.
    """

    def __init__(
        self, ports: Sequence[PhysicalFunction], has_client: Callable[[str], bool]
    ) -> None:
        self._ports = ports
        self._has_client = has_client

    def status(self) -> dict[str, Any]:
        """Return the state of the chip, its ports and their enabled VFs; change nothing."""
        return {
            "cpu_s": time.process_time(),
            "ports": [self._port_status(port) for port in self._ports],
        }

    def set_link(self, port: int, up: bool, mbit: int = 10_000) -> None:
        """Plug the cable of a port in, or pull the cable.

        *mbit* is the speed of the link: 100, 1000 or 10,000 Mbit/s.  Raises ValueError for another
        speed, and for a port that is not there.
        """
        self._port(port).link.plug(up, mbit)

    def misbehave(self, port: int, vf: int = -1, **faults: float) -> None:
        """Give VF *vf* of a port, or the port where *vf* is -1, these *faults* and no others.

        A port has these faults: *silent_mailbox* (the port hears no VF), *loses_resets* (the port's
        driver learns of no VF's reset), *loses* (that many interrupts get lost), *dies* (SIGKILL
        ends the chip).  A VF has these: *ignores_bme*, *late_ms* and *corrupts* (see
        ``harness.twin.misbehaviour``), *loses* (that many interrupts get lost), *hears_all* (the
        switch gives the VF every frame that any other pool gets).

        Raises ValueError for an unknown port, VF or fault, and for a value that is not from 0 to
        1e9; no fault changes then.
        """
        chosen = self._port(port)
        known = _PORT_FAULTS if vf < 0 else VF_FAULTS
        asked = dict.fromkeys(known, 0.0) | faults
        if unknown := asked.keys() - known:
            raise ValueError(f"no such fault: {', '.join(sorted(unknown))}")
        if not all(0 <= value <= _MOST for value in asked.values()):
            raise ValueError(f"a fault is a number from 0 to {_MOST}")
        if vf < 0:
            self._spoil_port(chosen, asked)
        else:
            self._spoil_vf(chosen, vf, asked)

    @staticmethod
    def _spoil_port(port: PhysicalFunction, asked: dict[str, float]) -> None:
        if asked["dies"]:
            os.kill(os.getpid(), signal.SIGKILL)
        port.mailboxes.silent = bool(asked["silent_mailbox"])
        port.mailboxes.loses_resets = bool(asked["loses_resets"])
        port.interrupts.lost = int(asked["loses"])

    def _spoil_vf(self, port: PhysicalFunction, number: int, asked: dict[str, float]) -> None:
        vf = self._vf(port, number)
        vf.interrupts.lost = int(asked["loses"])
        vf.misbehaviour.ignores_bme = bool(asked["ignores_bme"])
        vf.misbehaviour.late_ns = int(asked["late_ms"] * 1e6)
        vf.misbehaviour.corrupts = int(asked["corrupts"])
        if asked["hears_all"]:
            port.switch.leaks_to = number
        elif port.switch.leaks_to == number:
            port.switch.leaks_to = None

    def _port(self, number: int) -> PhysicalFunction:
        if not 0 <= number < len(self._ports):
            raise ValueError(f"there is no port {number}")
        return self._ports[number]

    @staticmethod
    def _vf(port: PhysicalFunction, number: int) -> Vf:
        if number >= port.vfs_enabled:
            raise ValueError(
                f"port {port.number} has no VF {number}: {port.vfs_enabled} are enabled"
            )
        return port.vfs[number]

    def _port_status(self, port: PhysicalFunction) -> dict[str, Any]:
        counted = port.statistics
        return {
            "client": self._has_client(f"port{port.number}"),
            "command": port.config.command,
            "link_up": port.link.is_up,
            "link_mbit": port.link.mbit,
            "largest_frame": port.registers.held(Register.MAXFRS) >> MAXFRS_SHIFT,
            "pools": port.switch.has_pools,
            "filters": port.switch.filters(),
            "drops": dict(counted.drops),
            "missed": counted.missed,
            "spoofed": counted.spoofed,
            "malformed": counted.malformed,
            "unsent": counted.unsent,
            "queues": _enabled(port.receiver.queues),
            "dma": _dma(port.memory, None),
            "vfs": [self._vf_status(port, n) for n in range(port.vfs_enabled)],
        }

    def _vf_status(self, port: PhysicalFunction, number: int) -> dict[str, Any]:
        vf, held = port.vfs[number], port.registers.held
        receives, sends = (
            bool(held(row.at(number >> 5)) >> (number & 31) & 1) for row in (Row.VFRE, Row.VFTE)
        )
        return {
            "client": self._has_client(f"port{port.number}-vf{number}"),
            "command": vf.config.command,
            "receives": receives,
            "sends": sends,
            "queues": _enabled(vf.receiver.queues),
            "statistics": vars(vf.statistics).copy(),
            "dma": _dma(vf.memory, vf.memory.log),
        }


def _enabled(queues: Sequence[Queue]) -> int:
    return sum(queue.enabled for queue in queues)


def _dma(memory: GuestMemory, log: DmaLog | None) -> dict[str, Any]:
    return {
        "records": log.count if log else None,
        "dropped": log.dropped if log else 0,
        "faults": memory.faults,
        "maps": memory.maps,
        "refusals": memory.refusals,
    }
