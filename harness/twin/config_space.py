"""A twin has a VF's configuration space as VFIO shows it: real ids, and a Memory Space Enable.

A real VF's ids read as all ones and it has no Memory Space Enable; the host's VFIO puts both in.
A twin serves what VFIO would serve.  Ref: Linux, drivers/vfio/pci/vfio_pci_config.c.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Callable

from harness.twin.capability import Capability
from harness.twin.config_bytes import COMMAND_WRITABLE, ConfigBytes
from harness.uapi import ixgbe_vf
from harness.uapi.ixgbe_vf import EXPRESS, MSIX
from harness.uapi.pci_regs import (
    BaseAddress,
    CapabilityId,
    Command,
    Express,
    Msix,
    Register,
    Status,
)

MSIX_BAR = 3

_ETHERNET = 0x020000
_REVISION = 0x01


class ConfigSpace(ConfigBytes):
    """4096 bytes, some of which can be written.

    With *erratum_35* the PCI Express capability has version 0 and zeros for what the device can,
    as on real 82599 VFs.  *commanded* is called with COMMAND after each write of COMMAND, *reset*
    when the guest asks for a function level reset, which VFIO does only where the capability has
    one, and *changed* with the name and the registers of one of *capabilities* that changed.
    """

    RESET_COMMAND = 0
    """A reset leaves these bits in COMMAND, and no write clears them."""

    RESETS_WITHOUT_CAPABILITY = False
    """Whether a function level reset is done although the capability does not offer one."""

    def __init__(
        self,
        *,
        erratum_35: bool = True,
        capabilities: Sequence[Capability] = (),
        commanded: Callable[[int], None] = lambda _: None,
        changed: Callable[[str, bytes], None] = lambda _name, _now: None,
        reset: Callable[[], None] = lambda: None,
    ) -> None:
        super().__init__()
        self._capabilities = capabilities
        self._commanded = commanded
        self._changed = changed
        self._reset = reset
        self._has_reset = self.RESETS_WITHOUT_CAPABILITY or not erratum_35
        self.masters_bus = False
        """Whether Bus Master Enable is set; each access asks."""
        self._header()
        self.put_msix(ixgbe_vf.VECTORS, MSIX_BAR)
        self._express(erratum_35)
        self._invented()
        self.registers = {each.name: self._registers_of(each) for each in capabilities}
        """Those of each capability, as they are now."""

    def read(self, offset: int, count: int) -> bytes:
        return bytes(self._bytes[offset : offset + count])

    def write(self, offset: int, data: bytes) -> None:
        """Write what can be written there; the rest is ignored, as the device does."""
        self.take(offset, data)
        end = offset + len(data)
        if offset < Register.COMMAND + 2 and end > Register.COMMAND:
            self._note_command()
        self._note_registers()
        control = EXPRESS + Express.DEVCTL + 1  # the bit is in its second byte, and reads as 0
        asked = offset <= control < end and data[control - offset] << 8 & Express.DEVCTL_BCR_FLR
        if asked and self._has_reset:
            self._reset()

    def set_master(self, on: bool) -> None:
        """Set or clear Bus Master Enable as a host does through VFIO: the guest is told nothing."""
        others = self.command & ~Command.MASTER
        self.put("<H", Register.COMMAND, others | (Command.MASTER if on else 0))
        self._note_command()
        self._note_registers()

    def clear(self) -> None:
        """Put back what a function level reset puts back; COMMAND is told if that changes it."""
        was = self.command
        self.put("<H", Register.COMMAND, self.RESET_COMMAND)
        self.put("<H", MSIX + Msix.FLAGS, ixgbe_vf.VECTORS - 1)
        for each in self._capabilities:
            for at, count in each.writable:
                self._bytes[at : at + count] = bytes(count)
        if was != self.RESET_COMMAND:
            self._note_command()
        self._note_registers()

    def _note_command(self) -> None:
        self.masters_bus = bool(self.command & Command.MASTER)
        self._commanded(self.command)

    def _note_registers(self) -> None:
        for each in self._capabilities:
            now = self._registers_of(each)
            if now != self.registers[each.name]:
                self.registers[each.name] = now
                self._changed(each.name, now)

    def _registers_of(self, capability: Capability) -> bytes:
        return self.read(capability.offset, capability.length)

    def _header(self) -> None:
        self.put("<HH", Register.VENDOR_ID, ixgbe_vf.VENDOR, ixgbe_vf.DEVICE)
        writable = COMMAND_WRITABLE & ~self.RESET_COMMAND
        self.put("<H", Register.COMMAND, self.RESET_COMMAND, writable=writable)
        self.put("<H", Register.STATUS, Status.CAP_LIST)
        self.put("<I", Register.CLASS_REVISION, _ETHERNET << 8 | _REVISION)
        self.put("<HH", Register.SUBSYSTEM_VENDOR_ID, ixgbe_vf.VENDOR, 0)
        self.put_bar(Register.BASE_ADDRESS_0, BaseAddress.TYPE_64, ixgbe_vf.BAR_BYTES)
        self.put_bar(Register.BASE_ADDRESS_3, BaseAddress.TYPE_64, ixgbe_vf.BAR_BYTES)
        self.put("<B", Register.CAPABILITY_LIST, MSIX)

    def _express(self, erratum_35: bool) -> None:
        self.put("<BB", EXPRESS, CapabilityId.EXP, 0)
        self.put("<H", EXPRESS + Express.DEVCTL, 0, writable=0x00FF)
        if not erratum_35:
            self.put_express()

    def _invented(self) -> None:
        """Put each invented capability at the end of the list, with registers to be written."""
        link = EXPRESS + 1
        for each in self._capabilities:
            if each.id:
                self.put("<B", link, each.at)
                self.put("<BB", each.at, each.id, 0)
                link = each.at + 1
            for at, count in each.writable:
                self._writable[at : at + count] = b"\xff" * count
