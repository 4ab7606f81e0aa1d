"""Where the BARs of VFs are, told to QEMU, in one of two ways.

Nobody writes a VF's BARs: Linux takes them from the port's SR-IOV capability, and QEMU maps only
what is written to configuration space.  So the chip writes them there, through the window that a
q35 machine has for configuration cycles (ECAM), in the 100 ms that Linux waits after VF Enable
(``sriov_enable`` in drivers/pci/iov.c).

Nobody waits for an answer: QEMU asks the VF's own server before it gives one.
"""

from __future__ import annotations

import socket
import struct
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Protocol

from harness.chip.configuration import FIRST_VF_OFFSET, VF_STRIDE
from harness.twin.channel import Channel
from harness.uapi import vfio_user
from harness.uapi.pci_regs import Register
from harness.uapi.vfio_user import Command

ECAM = 0xB0000000
"""Where SeaBIOS puts it on q35; ``Q35_HOST_BRIDGE_PCIEXBAR_ADDR``."""

_BUS_SHIFT, _FUNCTION_SHIFT = 20, 12
_BARS = (Register.BASE_ADDRESS_0, Register.BASE_ADDRESS_3)


class Placing(Protocol):
    """A way to have QEMU map the BARs of a VF."""

    def place(self, port: Channel, *, bus: int, function: int, bars: Sequence[int]) -> None:
        """Write *bars*, 64 bits each, of the function at *bus*; *port* is its port's client."""


class ByDma:
    """The port writes by DMA; QEMU carries a write to ECAM out as one to configuration space.

    It needs the port's Bus Master Enable, and a vIOMMU that passes the port's DMA (``iommu=pt``).
    """

    def place(self, port: Channel, *, bus: int, function: int, bars: Sequence[int]) -> None:
        """Send a write of 32 bits for each half of each BAR."""
        for address, value in writes(bus, function, bars):
            data = struct.pack("<I", value)
            head = vfio_user.DMA_ACCESS.pack(address, len(data))
            port.tell(Command.DMA_WRITE, head, data)


class ByQtest:
    """The chip writes over QEMU's test socket at *path*, as if it were a processor."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._socket: socket.socket | None = None

    def place(self, port: Channel, *, bus: int, function: int, bars: Sequence[int]) -> None:
        """Send a ``writel`` for each half of each BAR.  Raises OSError if nobody listens."""
        del port
        if self._socket is None:
            self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
            self._socket.connect(str(self._path))
            self._socket.setblocking(False)
        lines = [f"writel {at:#x} {value:#x}" for at, value in writes(bus, function, bars)]
        self._drain()
        self._socket.sendall("".join(f"{line}\n" for line in lines).encode())

    def _drain(self) -> None:
        """Throw away what was answered before, so that QEMU never waits for us to read."""
        assert self._socket is not None
        try:
            while self._socket.recv(1 << 16):
                pass
        except BlockingIOError:
            return


class Nowhere:
    """Nothing is written: a fault, for whoever wants to see BARs that are not mapped."""

    def place(self, port: Channel, *, bus: int, function: int, bars: Sequence[int]) -> None:
        """Leave QEMU in the dark."""


def vf_function(port: int, number: int) -> int:
    """Return device and function, as one number, of VF *number* of port *port* (0 or 1)."""
    return port + FIRST_VF_OFFSET + number * VF_STRIDE


def writes(bus: int, function: int, bars: Sequence[int]) -> Iterator[tuple[int, int]]:
    """Yield address and value of each write of 32 bits that sets *bars*."""
    base = ECAM + (bus << _BUS_SHIFT) + (function << _FUNCTION_SHIFT)
    for register, address in zip(_BARS, bars, strict=True):
        for half in (0, 1):
            yield base + register + 4 * half, address >> 32 * half & 0xFFFFFFFF
