"""What a twin can be asked and told by those who run it: JSON lines over a UNIX socket.

A request is ``{"do": WORD, ...}``; the reply ``{"ok": ...}`` or ``{"error": TEXT}``.  The words
are the methods of `Control`, and their arguments the request's other keys.
"""

from __future__ import annotations

import inspect
import json
import os
import signal
import socket
import subprocess
import time
from typing import Any, Callable

from harness.twin.device import Device
from harness.twin.filters import VLAN_IDS
from harness.twin.marking import mark
from harness.twin.memory import DmaFault
from harness.uapi.ixgbe_vf import Api

_LONGEST_LINE = 64 << 10


class Control:
    """The words; each of them can be called."""

    def __init__(self, device: Device, has_client: Callable[[], bool]) -> None:
        self._device = device
        self._has_client = has_client

    def status(self) -> dict[str, Any]:
        """All that can be told of the twin; changes nothing."""
        device, port = self._device, self._device.port
        log = device.memory.log
        return {
            "client": self._has_client(),
            "cpu_s": time.process_time(),
            "command": device.config.command,
            "statistics": vars(device.statistics).copy(),
            "dma": {"records": log.count if log else None, "faults": device.memory.faults},
            "memory": [
                {"address": each.address, "size": each.size, "offset": each.offset}
                for each in device.memory.regions
                if each.view
            ],
            "port": {
                "mtu": port.mtu,
                "largest_frame": port.largest_frame,
                "link_up": port.link_up,
                "link_mbit": port.link_mbit,
            },
            "vf": {
                "api": port.api,
                "clear_to_send": port.clear_to_send,
                "receives": port.receives,
                "mac": port.filters.mac.hex(":"),
                "vlans": sorted(port.filters.vlans),
                "multicast": len(port.filters.multicast),
                "xcast": port.filters.xcast,
                "queues": sum(queue.enabled for queue in device.receiver.queues),
            },
        }

    def now(self) -> dict[str, int]:
        """The COMMAND register, and when that was."""
        return {"t_ns": time.monotonic_ns(), "command": self._device.config.command}

    def clear_filter_on_release(self, name: str, argv: list[str]) -> None:
        """Clear the filter when BME next falls, and run *argv*, by which the host follows."""
        if not argv or not all(isinstance(each, str) for each in argv):
            raise ValueError(f"{argv!r} is no command")

        def follow() -> str:
            try:
                done = subprocess.run(argv, capture_output=True, text=True, check=False)
            except OSError as missing:
                return str(missing)
            return done.stderr.strip()

        self._device.clear_filter_on_release(name, follow)

    def released(self) -> list[dict[str, Any]]:
        """What that came to, if the VF was released since."""
        return list(self._device.released)

    def announce(self, mac: str) -> None:
        """Send what QEMU sends for its own interfaces after a migration: RARP, to everybody."""
        self._device.announce(_mac(mac))

    def set_mac(self, mac: str) -> None:
        self._device.port.set_mac(_mac(mac))

    def set_vlan(self, vlan: int) -> None:
        """The VLAN that the port puts the VF into; 0 for none."""
        if not 0 <= vlan <= VLAN_IDS:
            raise ValueError(f"there is no VLAN {vlan}")
        self._device.port.set_vlan(vlan)

    def set_trust(self, trusted: bool) -> None:
        self._device.port.set_trust(trusted)

    def set_state(self, enabled: bool) -> None:
        self._device.port.set_state(enabled)

    def set_link(self, up: bool, mbit: int = 10_000) -> None:
        self._device.port.set_link(up, mbit)

    def set_port_mtu(self, mtu: int) -> None:
        self._device.port.set_mtu(mtu)

    def set_api(self, newest: int) -> None:
        """The newest mailbox API that the port's driver speaks; counts from the next reset on."""
        self._device.port.administered.api = Api(newest)

    def reset_port(self) -> None:
        self._device.port.reset()

    def set_tracked(self, on: bool) -> None:
        """All DMA writes by message, which marks pages; or straight."""
        self._device.memory.tracked = on

    def clear_bus_master(self) -> None:
        """Clear BME as a host does through VFIO; the guest's driver is told nothing."""
        self._device.config.clear_master()

    def mark(self, since: int = 0) -> int:
        """Mark the pages written from that record of the DMA log on; how many."""
        if since < 0:
            raise ValueError(f"there is no record {since}")
        return mark(self._device.memory, since)

    def misbehave(self, **faults: Any) -> None:
        """Be at fault from now on, in this way alone; without a fault, be good again.

        The faults: those of `Misbehaviour` (*late_ms* for its *late_ns*), *late_mailbox_ms*,
        *silent_mailbox*, *loses* (so many interrupts), *dies*.
        """
        device, mailbox = self._device, self._device.port.mailbox
        if faults.pop("dies", False):
            os.kill(os.getpid(), signal.SIGKILL)
        mailbox.late_ns = int(faults.pop("late_mailbox_ms", 0) * 1e6)
        mailbox.silent = bool(faults.pop("silent_mailbox", False))
        device.interrupts.lost = int(faults.pop("loses", 0))
        device.misbehaviour.ignores_bme = bool(faults.pop("ignores_bme", False))
        device.misbehaviour.late_ns = int(faults.pop("late_ms", 0) * 1e6)
        device.misbehaviour.corrupts = int(faults.pop("corrupts", 0))
        if faults:
            raise ValueError(f"no such fault: {', '.join(faults)}")


class ControlConnection:
    """One who asks; *fileno* is readable when there is a request."""

    def __init__(self, connection: socket.socket, control: Control) -> None:
        self._socket = connection
        self._control = control
        self._rest = b""

    def fileno(self) -> int:
        return self._socket.fileno()

    def serve(self) -> bool:
        """Answer what has been asked; whether more may come."""
        try:
            data = self._socket.recv(_LONGEST_LINE)
            *lines, self._rest = (self._rest + data).split(b"\n")
            for line in lines:
                self._socket.sendall(json.dumps(self._answer(line)).encode() + b"\n")
        except OSError:
            return False
        return bool(data) and len(self._rest) <= _LONGEST_LINE

    def close(self) -> None:
        self._socket.close()

    def _answer(self, line: bytes) -> dict[str, Any]:
        try:
            request = dict(json.loads(line))
            word = str(request.pop("do", ""))
            method = getattr(self._control, word, None) if word.isidentifier() else None
            if word.startswith("_") or not inspect.ismethod(method):
                return {"error": f"there is no {word!r}"}
            inspect.signature(method).bind(**request)
            return {"ok": method(**request)}
        except (ValueError, TypeError, AttributeError, RecursionError, DmaFault) as wrong:
            return {"error": str(wrong)}


def _mac(text: str) -> bytes:
    address = bytes.fromhex(text.replace(":", ""))
    if len(address) != 6:
        raise ValueError(f"{text!r} is no MAC address")
    return address
