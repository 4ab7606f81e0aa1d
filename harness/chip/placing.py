"""Where the BARs of VFs are, told to QEMU.

Nobody writes a VF's BARs: Linux takes them from the port's SR-IOV capability, and QEMU maps only
what is written to configuration space.  So the port writes there by DMA, through the window that
a q35 machine has for configuration cycles (ECAM), in the 100 ms that Linux waits after VF Enable
(``sriov_enable`` in drivers/pci/iov.c).  It needs the port's Bus Master Enable, and a vIOMMU that
passes the port's DMA (``iommu=pt``).
"""

from __future__ import annotations

import struct

from harness.chip.configuration import FIRST_VF_OFFSET, VF_STRIDE
from harness.twin.channel import Channel
from harness.uapi import vfio_user
from harness.uapi.pci_regs import Register
from harness.uapi.vfio_user import Command

ECAM = 0xB0000000
"""Where SeaBIOS puts it on q35; ``Q35_HOST_BRIDGE_PCIEXBAR_ADDR``."""

_BUS_SHIFT, _FUNCTION_SHIFT = 20, 12
_BARS = (Register.BASE_ADDRESS_0, Register.BASE_ADDRESS_3)


def vf_function(port: int, number: int) -> int:
    """Return device and function, as one number, of VF *number* of port *port* (0 or 1)."""
    return port + FIRST_VF_OFFSET + number * VF_STRIDE


def place(channel: Channel, *, bus: int, function: int, bars: list[int]) -> None:
    """Have QEMU write *bars*, 64 bits each, of the function at *bus*.

    The reply is never waited for: QEMU asks the VF's own server before it answers.
    """
    base = ECAM + (bus << _BUS_SHIFT) + (function << _FUNCTION_SHIFT)
    for register, address in zip(_BARS, bars, strict=True):
        for half in (0, 1):
            data = struct.pack("<I", address >> 32 * half & 0xFFFFFFFF)
            head = vfio_user.DMA_ACCESS.pack(base + register + 4 * half, len(data))
            channel.tell(Command.DMA_WRITE, head, data)
