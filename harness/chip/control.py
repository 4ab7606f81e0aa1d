"""A lab asks and tells a chip things by JSON lines over a UNIX socket.

Requests and replies are as of a twin (``harness.twin.control``).  The words are the methods of
`Control`; *port* is a port's number, *vf* a VF's on that port.
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
from harness.uapi.ixgbe_pf import Register, Row

_PORT_FAULTS = frozenset(("silent_mailbox", "loses_resets", "loses", "dies"))
VF_FAULTS = frozenset(("ignores_bme", "late_ms", "corrupts", "loses", "hears_all"))
_MOST = 1e9


class Control:
    """Each public method is a word that a caller can say.

    *has_client* says whether the function of that name has a client.
    """

    def __init__(
        self, ports: Sequence[PhysicalFunction], has_client: Callable[[str], bool]
    ) -> None:
        self._ports = ports
        self._has_client = has_client

    def status(self) -> dict[str, Any]:
        """Return all that can be told of the chip, and change nothing."""
        return {
            "cpu_s": time.process_time(),
            "ports": [self._port_status(port) for port in self._ports],
        }

    def set_link(self, port: int, up: bool, mbit: int = 10_000) -> None:
        """Plug a port's cable in, or pull it; 100, 1000 or 10,000 Mbit/s."""
        self._port(port).link.plug(up, mbit)

    def misbehave(self, port: int, vf: int = -1, **faults: float) -> None:
        """Have a port, or one of its VFs, be at fault in this way alone; without a fault, be good.

        Of a port: *silent_mailbox*, *loses_resets* (no VFLR reaches its driver), *loses* (so many
        interrupts), *dies*.  Of a VF: *ignores_bme*, *late_ms*, *corrupts*, *loses*, and
        *hears_all*: the switch gives it every frame of every other pool.  Nothing changes if one is
        unknown.
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
            "largest_frame": port.registers.held(Register.MAXFRS) >> 16,
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
