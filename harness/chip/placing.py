"""A chip tells QEMU where the BARs of VFs are, in one of two ways.

Linux never writes the BARs of a VF, since the port's SR-IOV capability says where they are.  QEMU
maps a BAR only when an address is written to the BAR in configuration space.  So the chip writes
the BARs of VFs, through the window of a q35 machine for configuration cycles (ECAM), in the 100 ms
that Linux waits after VF Enable (``sriov_enable`` in drivers/pci/iov.c).

The chip does not wait for QEMU's answer.  QEMU hands each write to the server of the VF before QEMU
answers, and the chip is that server, so both would wait for each other.
"""

from __future__ import annotations

import os
import socket
import struct
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Protocol

from harness.chip.configuration import FIRST_VF_OFFSET, VF_STRIDE
from harness.chip.registers import MASK_32
from harness.twin.channel import Channel
from harness.uapi import vfio_user
from harness.uapi.pci_regs import Register
from harness.uapi.q35 import ECAM
from harness.uapi.vfio_user import Command

_BUS_SHIFT, _FUNCTION_SHIFT = 20, 12
_BARS = (Register.BASE_ADDRESS_0, Register.BASE_ADDRESS_3)


class Failed(Protocol):
    """A function of this kind hears that QEMU did not map a VF."""

    def __call__(self, what: str, fix: str) -> None:
        """Take a sentence on *what* happened, and one on what a person can do (*fix*)."""


class Placing(Protocol):
    """A way makes QEMU map the BARs of a VF."""

    def place(
        self, port: Channel, *, bus: int, function: int, bars: Sequence[int], failed: Failed
    ) -> None:
        """Write the addresses *bars* to BAR 0 and BAR 3 of a VF, 64 bits each.

        The VF is on the PCI bus number *bus*; *function* is its device and function as one number.
        *port* is the channel to the client of the VF's port.  `place` calls *failed*, before it
        returns or later, if a write fails.  Raises ClientGone if that client is gone.
        """


class ByDma:
    """The port writes to ECAM by DMA, and QEMU turns each write into one to configuration space.

    The port's Bus Master Enable must be set, and a vIOMMU must pass the port's DMA (``iommu=pt``).
    QEMU answers each write, and a refused write with an errno (hw/vfio-user/pci.c,
    vfio_user_dma_write): ENODEV where Bus Master Enable is clear or a vIOMMU has no mapping.
    """

    def place(
        self, port: Channel, *, bus: int, function: int, bars: Sequence[int], failed: Failed
    ) -> None:
        """Send a DMA write of 32 bits for each half of each BAR.  Raises ClientGone."""

        def refused(error: int) -> None:
            failed(
                "QEMU refused the port's write to a VF's configuration space: "
                + os.strerror(error & 0x7FFFFFFF),
                "boot the machine's kernel with iommu=pt if the machine has a vIOMMU, and see "
                "that its port has Bus Master Enable",
            )

        for address, value in writes(bus, function, bars):
            data = struct.pack("<I", value)
            head = vfio_user.DMA_ACCESS.pack(address, len(data))
            port.tell(Command.DMA_WRITE, head, data, refused=refused)


class ByQtest:
    """The chip writes to ECAM over QEMU's test socket *path*, as the machine's processor would.

    QEMU answers every such write with OK, even one that failed (system/qtest.c).
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._socket: socket.socket | None = None

    def place(
        self, port: Channel, *, bus: int, function: int, bars: Sequence[int], failed: Failed
    ) -> None:
        """Send a ``writel`` for each half of each BAR; the first call connects to QEMU."""
        del port
        lines = [f"writel {at:#x} {value:#x}" for at, value in writes(bus, function, bars)]
        try:
            connection = self._connected()
            _drain(connection)
            connection.sendall("".join(f"{line}\n" for line in lines).encode())
        except OSError as missing:
            self._forget()
            failed(
                f"QEMU's test socket {self._path} cannot be used: {missing.strerror}",
                f"start QEMU with -qtest unix:{self._path},server=on,wait=off",
            )

    def _connected(self) -> socket.socket:
        if self._socket is None:
            self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
            self._socket.connect(str(self._path))
            self._socket.setblocking(False)
        return self._socket

    def _forget(self) -> None:
        if self._socket is not None:
            self._socket.close()
            self._socket = None


class Nowhere:
    """The chip writes no BAR, which is a fault: QEMU then maps no BAR of a VF."""

    def place(
        self, port: Channel, *, bus: int, function: int, bars: Sequence[int], failed: Failed
    ) -> None:
        """Write nothing."""


def vf_function(port: int, number: int) -> int:
    """Return device and function, as one number, of VF *number* of port number *port*."""
    return port + FIRST_VF_OFFSET + number * VF_STRIDE


def writes(bus: int, function: int, bars: Sequence[int]) -> Iterator[tuple[int, int]]:
    """Yield address and value of each write of 32 bits that sets *bars*, lower half first."""
    base = ECAM + (bus << _BUS_SHIFT) + (function << _FUNCTION_SHIFT)
    for register, address in zip(_BARS, bars, strict=True):
        for half in (0, 1):
            yield base + register + 4 * half, address >> 32 * half & MASK_32


def _drain(connection: socket.socket) -> None:
    """Throw QEMU's earlier answers away, so that QEMU never waits for the chip to read."""
    try:
        while connection.recv(1 << 16):
            pass
    except BlockingIOError:
        return
