"""Ports and VFs have configuration spaces, and the chip hides parts of these spaces.

QEMU hides the SR-IOV and ARI capabilities of a device that QEMU does not model itself
(``vfio_add_ext_cap`` in hw/vfio/pci.c).  QEMU finds these capabilities while it realizes the
device, in one read of all 4096 bytes.  A port answers that read with the id of a vendor-specific
capability in place of both ids, and answers shorter reads with the real ids, so the machine's
kernel finds SR-IOV.  `Disguise.UNTIL_RESET` is for a QEMU that realizes a device by other reads.

A VF answers the read of all 4096 bytes with its vendor and device id, and shorter reads with all
ones in place of both ids.  So no scan of the bus finds a VF, and the port's driver alone adds VFs.
"""

from __future__ import annotations

from collections.abc import Callable
from enum import Enum

from harness.twin.config_bytes import BYTES, COMMAND_WRITABLE, ConfigBytes
from harness.twin.config_space import ConfigSpace
from harness.uapi import ixgbe_pf, ixgbe_vf
from harness.uapi.ixgbe_vf import EXPRESS, MSIX
from harness.uapi.pci_regs import (
    NO_ANSWER_32,
    Ari,
    BaseAddress,
    CapabilityId,
    Command,
    Express,
    ExtendedId,
    Msix,
    Register,
    Sriov,
    Status,
)

MSIX_BAR = 4
ERRORS, SERIAL, ARI, SRIOV = 0x100, 0x140, 0x150, 0x160
"""An 82599 has its extended capabilities at these offsets."""

FIRST_VF_OFFSET, VF_STRIDE = 0x80, 2

_ETHERNET, _REVISION = 0x020000, 0x01
_PAGE_SIZES, _PAGE_4K = 0x553, 0x1
_SUBSYSTEM = 0x0003  # an Ethernet Server Adapter X520-2


class Disguise(Enum):
    """The values say when a port hides its SR-IOV and ARI capabilities."""

    IN_WHOLE_READS = "in-whole-reads"
    """The port hides both in a read of all 4096 bytes, by which QEMU realizes a device."""

    UNTIL_RESET = "until-reset"
    """The port hides both until its first reset, which comes once QEMU realized all devices."""

    NEVER = "never"
    """The port never hides them, which is a fault: QEMU hides them from the machine's kernel."""


class PortConfig(ConfigBytes):
    """A port's configuration space has 4096 bytes, with SR-IOV for *total_vfs* VFs.

    *number* is the port's number on its chip, *mac* is in the serial number, and *disguise* says
    when SR-IOV and ARI are hidden.  The space calls *enabled* with the number of VFs that the
    driver enabled, 0 for none, when that number changes; *reset* when the driver asks for a
    function level reset; and *mastered* after each write of COMMAND.
    """

    def __init__(
        self,
        *,
        number: int,
        mac: bytes,
        total_vfs: int,
        disguise: Disguise,
        enabled: Callable[[int], None],
        reset: Callable[[], None],
        mastered: Callable[[], None],
    ) -> None:
        super().__init__()
        self._enabled = enabled
        self._reset = reset
        self._mastered = mastered
        self._vfs = 0
        self._disguise = disguise
        self._was_reset = False
        self.masters_bus = False
        """This says whether Bus Master Enable is set; every DMA access reads this field."""
        self._header()
        self._capabilities()
        self._extended(number, mac, total_vfs)

    def read(self, offset: int, count: int) -> bytes:
        """Return *count* bytes from *offset* on, with the ids of SR-IOV and ARI hidden or not."""
        shown = bytearray(self._bytes[offset : offset + count])
        for capability in (ARI, SRIOV):
            if self._hides(count) and offset <= capability < offset + count - 1:
                at = capability - offset
                shown[at : at + 2] = int(ExtendedId.VNDR).to_bytes(2, "little")
        return bytes(shown)

    def _hides(self, count: int) -> bool:
        if self._disguise is Disguise.UNTIL_RESET:
            return not self._was_reset
        return self._disguise is Disguise.IN_WHOLE_READS and count == BYTES

    def write(self, offset: int, data: bytes) -> None:
        """Write the bits of *data* that can be written, and do what the new values ask for.

        The new values can change Bus Master Enable, the number of VFs, and reset the function.
        """
        self.take(offset, data)
        end = offset + len(data)
        if offset < Register.COMMAND + 2 and end > Register.COMMAND:
            self.masters_bus = bool(self.command & Command.MASTER)
            self._mastered()
        if offset < SRIOV + Sriov.CTRL + 2 and end > SRIOV + Sriov.CTRL:
            self._note_vfs()
        control = EXPRESS + Express.DEVCTL + 1
        if offset <= control < end and data[control - offset] << 8 & Express.DEVCTL_BCR_FLR:
            self._reset()

    def clear(self) -> None:
        """Put back the registers that a function level reset puts back, and end the VFs."""
        self._was_reset = True
        self.put("<H", Register.COMMAND, 0)
        self.put("<H", MSIX + Msix.FLAGS, ixgbe_pf.VECTORS - 1)
        self.put("<H", SRIOV + Sriov.CTRL, 0)
        self.put("<H", SRIOV + Sriov.NUM_VF, 0)
        self.masters_bus = False
        self._note_vfs()

    def disguise_again(self) -> None:
        """Hide as before the first reset, since a QEMU is about to realize the device."""
        self._was_reset = False

    def name_next(self, function: int) -> None:
        """Let the ARI capability name *function* as the next function of the chip.

        Below a root port that forwards alternative routing ids, Linux finds functions by the ARI
        capabilities alone (``next_ari_fn`` in drivers/pci/probe.c), whatever the headers say.
        """
        self.put("<H", ARI + Ari.CAP, function << 8)  # PCI_ARI_CAP_NFN

    def vf_bars(self, number: int) -> list[int]:
        """Return the addresses of BAR 0 and BAR 3 of VF *number*, from the SR-IOV capability."""
        size = ixgbe_vf.BAR_BYTES
        at = [SRIOV + Sriov.BAR + 4 * bar for bar in (0, 3)]
        first = [int.from_bytes(self._bytes[place : place + 8], "little") & ~0xF for place in at]
        return [base + number * size for base in first]

    def _note_vfs(self) -> None:
        control = self.word(SRIOV + Sriov.CTRL)
        on = control & Sriov.CTRL_VFE and control & Sriov.CTRL_MSE
        vfs = self.word(SRIOV + Sriov.NUM_VF) if on else 0
        if vfs != self._vfs:
            self._vfs = vfs
            self._enabled(vfs)

    def _header(self) -> None:
        self.put("<HH", Register.VENDOR_ID, ixgbe_vf.VENDOR, ixgbe_pf.DEVICE)
        self.put("<H", Register.COMMAND, 0, writable=COMMAND_WRITABLE)
        self.put("<H", Register.STATUS, Status.CAP_LIST)
        self.put("<I", Register.CLASS_REVISION, _ETHERNET << 8 | _REVISION)
        self.put("<HH", Register.SUBSYSTEM_VENDOR_ID, ixgbe_vf.VENDOR, _SUBSYSTEM)
        flags = BaseAddress.TYPE_64 | BaseAddress.PREFETCH
        self.put_bar(Register.BASE_ADDRESS_0, flags, ixgbe_pf.BAR_BYTES)
        self.put_bar(Register.BASE_ADDRESS_4, flags, ixgbe_vf.BAR_BYTES)
        self.put("<B", Register.CAPABILITY_LIST, MSIX)

    def _capabilities(self) -> None:
        self.put_msix(ixgbe_pf.VECTORS, MSIX_BAR)
        self.put("<BB", EXPRESS, CapabilityId.EXP, 0)
        self.put_express()
        self.put("<H", EXPRESS + Express.DEVCTL, 0, writable=0x7FFF)

    def _extended(self, number: int, mac: bytes, total_vfs: int) -> None:
        for at, kind, version, after in (
            (ERRORS, ExtendedId.ERR, 1, SERIAL), (SERIAL, ExtendedId.DSN, 1, ARI),
            (ARI, ExtendedId.ARI, 1, SRIOV), (SRIOV, ExtendedId.SRIOV, 1, 0),
        ):  # fmt: skip
            self.put("<I", at, kind | version << 16 | after << 20)
        serial = mac[:3] + b"\xff\xff" + mac[3:]
        self.put("<Q", SERIAL + 4, int.from_bytes(serial, "big"))
        self.put("<H", ARI + Ari.CAP, 0)
        put = self.put
        put("<H", SRIOV + Sriov.CTRL, 0,
            writable=Sriov.CTRL_VFE | Sriov.CTRL_MSE | Sriov.CTRL_ARI)  # fmt: skip
        put("<HH", SRIOV + Sriov.INITIAL_VF, total_vfs, total_vfs)
        put("<H", SRIOV + Sriov.NUM_VF, 0, writable=0xFFFF)
        put("<B", SRIOV + Sriov.FUNC_LINK, number)
        put("<HH", SRIOV + Sriov.VF_OFFSET, FIRST_VF_OFFSET, VF_STRIDE)
        put("<H", SRIOV + Sriov.VF_DID, ixgbe_vf.DEVICE)
        put("<I", SRIOV + Sriov.SUP_PGSIZE, _PAGE_SIZES)
        put("<I", SRIOV + Sriov.SYS_PGSIZE, _PAGE_4K, writable=_PAGE_SIZES)
        for bar in (0, 3):
            flags = BaseAddress.TYPE_64 | BaseAddress.PREFETCH
            self.put_bar(SRIOV + Sriov.BAR + 4 * bar, flags, ixgbe_vf.BAR_BYTES)


class VfConfig(ConfigSpace):
    """A VF's configuration space is that of an 82599's VF, except that Memory Enable is set.

    Memory Enable of an 82599's VF reads as 0, since the port's SR-IOV capability governs the VF's
    memory.  QEMU maps a VF's BARs while the bit is set, and Linux writes the bit back as Linux read
    the bit.  So the bit is always set here, and no write clears the bit.
    """

    RESET_COMMAND = Command.MEMORY
    RESETS_WITHOUT_CAPABILITY = True
    """A VF resets itself though its capability says no; see ``pci_dev_specific_reset`` of Linux."""

    def read(self, offset: int, count: int) -> bytes:
        """Return *count* bytes from *offset* on.

        The vendor and device id are all ones unless *count* is 4096, as QEMU reads while QEMU
        realizes the device.
        """
        shown = super().read(offset, count)
        if count == BYTES or offset >= 4:
            return shown
        hidden = NO_ANSWER_32.to_bytes(4, "little")[offset : offset + count]
        return hidden + shown[len(hidden) :]
