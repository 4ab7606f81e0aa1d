"""Configuration space is 4096 bytes, of which some can be written."""

from __future__ import annotations

import struct

from harness.uapi.ixgbe_vf import EXPRESS, MSIX
from harness.uapi.pci_regs import CapabilityId, Command, Express, Msix, Register, Size

BYTES = int(Size.CFG_SPACE_EXP_SIZE)
COMMAND_WRITABLE = (
    Command.MEMORY | Command.MASTER | Command.PARITY | Command.SERR | Command.INTX_DISABLE
)
PBA_OFFSET = 0x2000

_EXPRESS_ENDPOINT_V2 = 0x0002
_LINK_X8_5GT = 0x82


class ConfigBytes:
    """The bytes read as zero and cannot be written, until `put` says otherwise."""

    def __init__(self) -> None:
        self._bytes = bytearray(BYTES)
        self._writable = bytearray(BYTES)

    @property
    def command(self) -> int:
        """The COMMAND register."""
        return self.word(Register.COMMAND)

    def word(self, offset: int) -> int:
        """Return the 16 bits at *offset*."""
        return int.from_bytes(self._bytes[offset : offset + 2], "little")

    def put(self, layout: str, offset: int, *values: int, writable: int = 0) -> None:
        """Set what *offset* holds, by a layout of ``struct``; *writable* are the bits of a mask."""
        struct.pack_into(layout, self._bytes, offset, *values)
        if writable:
            struct.pack_into(layout, self._writable, offset, writable)

    def take(self, offset: int, data: bytes) -> None:
        """Write those bits of *data* that can be written."""
        for at, value in enumerate(data, offset):
            mask = self._writable[at]
            self._bytes[at] = self._bytes[at] & ~mask & 0xFF | value & mask

    def put_bar(self, offset: int, flags: int, size: int) -> None:
        """Describe a memory BAR of 64 bits and *size* bytes."""
        self.put("<Q", offset, flags, writable=-size & (1 << 64) - 1)

    def put_msix(self, vectors: int, bar: int) -> None:
        """Describe MSI-X of so many vectors, whose table and pending bits are in *bar*."""
        self.put("<BB", MSIX, CapabilityId.MSIX, EXPRESS)
        enable = Msix.FLAGS_ENABLE | Msix.FLAGS_MASKALL
        self.put("<H", MSIX + Msix.FLAGS, vectors - 1, writable=enable)
        self.put("<I", MSIX + Msix.TABLE, bar)
        self.put("<I", MSIX + Msix.PBA, PBA_OFFSET | bar)

    def put_express(self) -> None:
        """Describe a PCI Express endpoint with 8 lanes of 5 GT/s and a function level reset."""
        self.put("<H", EXPRESS + Express.FLAGS, _EXPRESS_ENDPOINT_V2)
        self.put("<I", EXPRESS + Express.DEVCAP, Express.DEVCAP_FLR)
        self.put("<I", EXPRESS + Express.LNKCAP, _LINK_X8_5GT)
        self.put("<H", EXPRESS + Express.LNKSTA, _LINK_X8_5GT)
