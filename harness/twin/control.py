"""What a twin can be asked and told by those who run it: JSON lines over a UNIX socket.

A request is ``{"do": WORD, ...}``; the reply ``{"ok": ...}`` or ``{"error": TEXT}``, with an
``"errno"`` beside it where the port's driver refuses.  The words are the methods of `Control`, and
their arguments the request's other keys.
"""

from __future__ import annotations

import inspect
import json
import os
import signal
import socket
import time
from typing import Any, Callable, get_origin, get_type_hints

from harness.twin.device import Device
from harness.twin.marking import mark
from harness.twin.memory import DmaFault
from harness.uapi.ixgbe_vf import Api
from harness.uapi.pci_regs import Register

_LONGEST_LINE = 64 << 10
_FAULTS = frozenset(
    ("ignores_bme", "late_ms", "corrupts", "late_mailbox_ms", "silent_mailbox", "loses", "dies")
)
_MOST = 1e9
_READ_SECONDS = 1  # for one who asks and does not read: the guest's VF stands still meanwhile


class Control:
    """A caller can call each public method by a request."""

    def __init__(self, device: Device, has_client: Callable[[], bool]) -> None:
        self._device = device
        self._has_client = has_client
        self.not_noted = 0
        """Changes of COMMAND or of a described register that their record had no room for."""

    def status(self) -> dict[str, Any]:
        """Return the state of the twin, its port and its VF; change nothing."""
        device, port = self._device, self._device.port
        log = device.memory.log
        return {
            "client": self._has_client(),
            "cpu_s": time.process_time(),
            "command": device.config.command,
            "not_noted": self.not_noted,
            "statistics": vars(device.statistics).copy(),
            "dma": {
                "records": log.count if log else None,
                "dropped": log.dropped if log else 0,
                "faults": device.memory.faults,
                "maps": device.memory.maps,
                "refusals": device.memory.refusals,
            },
            "port": {
                "up": port.is_up,
                "mtu": port.mtu,
                "largest_frame": port.largest_frame,
                "link_up": port.link_up,
                "link_mbit": port.link_mbit,
            },
            "vf": {
                "api": port.api,
                "enabled": port.administered.enabled,
                "clear_to_send": port.clear_to_send,
                "receives": port.receives,
                "mac": port.filters.mac.hex(":"),
                "vlans": sorted(port.filters.vlans),
                "multicast": len(port.filters.multicast),
                "xcast": port.administered.xcast,
                "queues": sum(queue.runs for queue in device.receiver.queues),
            },
            "administered": {
                "api": port.administered.api,
                "mac": port.administered.mac.hex(":"),
                "vlan": port.administered.vlan,
                "trusted": port.administered.trusted,
                "spoof_check": port.administered.spoof_check,
            },
        }

    def lent(self) -> list[dict[str, int]]:
        """Return the shared memory that the client lends: its place in guest and in file.

        Neighbours in guest and file are one stretch.  There may be hundreds of thousands of
        regions, so ask seldom.
        """
        stretches: list[dict[str, int]] = []
        before = None
        for region in self._device.memory.regions:
            if region.file is None:
                continue
            if before and region.continues(before):
                stretches[-1]["size"] += region.size
            else:
                stretches.append(
                    {"address": region.address, "size": region.size, "offset": region.offset}
                )
            before = region
        return stretches

    def now(self) -> dict[str, Any]:
        """The COMMAND register, those of each described capability in hex, and when that was."""
        config = self._device.config
        registers = {name: each.hex() for name, each in config.registers.items()}
        return {"t_ns": time.monotonic_ns(), "command": config.command, "registers": registers}

    def clear_filter_on_release(self, name: str) -> None:
        """Clear the filter when BME next falls, and the host's bridge with it."""
        self._device.clear_filter_on_release(name)

    def released(self) -> list[dict[str, Any]]:
        """Return the events of `clear_filter_on_release`, none until the VF was released."""
        return list(self._device.released)

    def announce(self, mac: str) -> None:
        """Send what QEMU sends for its own interfaces after a migration: RARP, to everybody."""
        self._device.announce(_mac(mac))

    def set_mac(self, mac: str) -> None:
        """The address that the VF has, and its filter; zeros for none.  The bridge follows it.

        The port refuses as a real one does; see ``port.Port.set_mac``.
        """
        self._device.port.set_mac(_mac(mac))
        if refused := self._device.follow_filter():
            raise ValueError(f"the host's bridge refused it: {refused}")

    def set_vlan(self, vlan: int, qos: int = 0) -> None:
        """The VLAN that the port puts the VF into, with its priority; 0 and 0 for none."""
        self._device.port.set_vlan(vlan, qos)

    def set_trust(self, trusted: bool) -> None:
        """Let the VF choose its own address and see more than its own frames."""
        self._device.port.set_trust(trusted)

    def set_spoof_check(self, checked: bool) -> None:
        """Hold what the VF sends against its addresses and its VLANs, or let everything out."""
        self._device.port.set_spoof_check(checked)

    def set_state(self, enabled: bool) -> None:
        """Let the VF send and receive at all; its driver starts it anew."""
        self._device.port.set_state(enabled)

    def set_link(self, up: bool, mbit: int = 10_000) -> None:
        """Plug the port's cable in, or pull it; 100, 1000 or 10,000 Mbit/s."""
        self._device.port.set_link(up, mbit)

    def set_up(self, up: bool) -> None:
        """Take the port's interface down, which resets the port, or up."""
        self._device.port.set_up(up)

    def set_port_mtu(self, mtu: int) -> None:
        """Change the port's MTU, which resets it: the VF's driver has to start anew."""
        self._device.port.set_mtu(mtu)

    def set_api(self, newest: int) -> None:
        """The newest mailbox API that the port's driver speaks; counts from the next reset on."""
        self._device.port.administered.api = Api(newest)

    def reset_port(self) -> None:
        """Reset the port; the VF's driver has to start anew."""
        self._device.port.reset()

    def set_tracked(self, on: bool) -> None:
        """Let all DMA writes go by message, which marks their pages, or straight into memory."""
        self._device.memory.tracked = on

    def set_bus_master(self, on: bool) -> None:
        """Set or clear BME as a host does through VFIO; the guest's driver is told nothing."""
        self._device.config.set_master(on)

    def reset_function(self) -> None:
        """Reset the VF as a host does through VFIO, which keeps its configuration space."""
        command = self._device.config.command
        self._device.reset()
        self._device.config.write(Register.COMMAND, command.to_bytes(2, "little"))

    def receive_rings(self) -> list[dict[str, int]]:
        """Return where the driver has its receive descriptors, for each queue that runs."""
        return [
            {"address": queue.base, "count": queue.count, "head": queue.head, "tail": queue.tail}
            for queue in self._device.receiver.queues
            if queue.runs
        ]

    def mark(self, since: int = 0) -> dict[str, Any]:
        """Mark the *pages* written from that record of the DMA log on, or say why it was *refused*.

        The client refuses; what is wrong with the twin itself is an error.
        """
        if since < 0:
            raise ValueError(f"there is no record {since}")
        try:
            return {"pages": mark(self._device.memory, since), "refused": None}
        except DmaFault as refused:
            return {"pages": 0, "refused": str(refused)}

    def misbehave(self, **faults: float) -> None:
        """Give the twin these *faults* and no others; without *faults*, none.

        The faults are those of `Misbehaviour` (*late_ms* for its *late_ns*), *late_mailbox_ms*,
        *silent_mailbox*, *loses* (so many interrupts), *dies*.  Nothing changes if one is unknown.
        """
        asked = dict.fromkeys(_FAULTS, 0.0) | faults
        if unknown := asked.keys() - _FAULTS:
            raise ValueError(f"no such fault: {', '.join(sorted(unknown))}")
        if not all(0 <= value <= _MOST for value in asked.values()):
            raise ValueError(f"a fault is a number from 0 to {_MOST}")
        if asked["dies"]:
            os.kill(os.getpid(), signal.SIGKILL)
        device, mailbox = self._device, self._device.port.mailbox
        mailbox.late_ns = int(asked["late_mailbox_ms"] * 1e6)
        mailbox.silent = bool(asked["silent_mailbox"])
        device.interrupts.lost = int(asked["loses"])
        device.misbehaviour.ignores_bme = bool(asked["ignores_bme"])
        device.misbehaviour.late_ns = int(asked["late_ms"] * 1e6)
        device.misbehaviour.corrupts = int(asked["corrupts"])


class ControlConnection:
    """A caller asks by this connection; *fileno* is readable when there is a request.

    The words are the methods of *control*, a twin's or a chip's.
    """

    def __init__(self, connection: socket.socket, control: object) -> None:
        connection.settimeout(_READ_SECONDS)
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
            _check(method, request)
            return {"ok": method(**request)}
        except (ValueError, TypeError, RecursionError) as wrong:
            return {"error": str(wrong)}
        except OSError as refused:
            return {"error": str(refused.strerror), "errno": refused.errno}


def _check(method: Callable[..., Any], arguments: dict[str, Any]) -> None:
    """Raise TypeError unless *arguments* are those that *method* says it takes."""
    inspect.signature(method).bind(**arguments)
    hints = get_type_hints(method)
    for name, value in arguments.items():
        wanted = hints.get(name, float)  # a fault's: a number, or whether
        kinds = (int, float) if wanted is float else get_origin(wanted) or wanted
        if not isinstance(value, kinds):
            raise TypeError(f"{name} is {value!r}")


def _mac(text: str) -> bytes:
    address = bytes.fromhex(text.replace(":", ""))
    if len(address) != 6:
        raise ValueError(f"{text!r} is no MAC address")
    return address
