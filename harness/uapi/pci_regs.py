"""<linux/pci_regs.h>, v6.1: the standard header of PCI configuration space."""

from __future__ import annotations

from enum import IntEnum, IntFlag

from harness.uapi.mirror import numbers


@numbers("linux/pci_regs.h", "PCI_{}")
class Register(IntEnum):
    """Offsets in configuration space, in bytes; all of these are 16 bits, little-endian."""

    VENDOR_ID = 0x00
    DEVICE_ID = 0x02
    COMMAND = 0x04
    STATUS = 0x06


@numbers("linux/pci_regs.h", "PCI_COMMAND_{}")
class Command(IntFlag):
    """Bits of the COMMAND register; the others are reserved and read as zero."""

    IO = 0x1
    MEMORY = 0x2
    MASTER = 0x4
    """Bus Master Enable (BME): the function may start DMA."""

    SPECIAL = 0x8
    INVALIDATE = 0x10
    VGA_PALETTE = 0x20
    PARITY = 0x40
    WAIT = 0x80
    SERR = 0x100
    FAST_BACK = 0x200
    INTX_DISABLE = 0x400


NO_ANSWER = 0xFFFF
"""What a 16-bit read gives when no function answers; no COMMAND register holds it."""
