"""<linux/pci_regs.h>, v6.1: PCI configuration space, as far as a VF or its port has it."""

from __future__ import annotations

from enum import IntEnum, IntFlag

from harness.uapi.mirror import numbers


@numbers("linux/pci_regs.h", "PCI_{}")
class Size(IntEnum):
    """In bytes: of configuration space, of its header, and of a capability."""

    CFG_SPACE_EXP_SIZE = 4096
    STD_HEADER_SIZEOF = 64
    CAP_MSIX_SIZEOF = 12


@numbers("linux/pci_regs.h", "PCI_{}")
class Register(IntEnum):
    """Offsets in configuration space, in bytes; the first four are 16 bits, little-endian."""

    VENDOR_ID = 0x00
    DEVICE_ID = 0x02
    COMMAND = 0x04
    STATUS = 0x06
    CLASS_REVISION = 0x08
    BASE_ADDRESS_0 = 0x10
    BASE_ADDRESS_3 = 0x1C
    BASE_ADDRESS_4 = 0x20
    SUBSYSTEM_VENDOR_ID = 0x2C
    SUBSYSTEM_ID = 0x2E
    CAPABILITY_LIST = 0x34


@numbers("linux/pci_regs.h", "PCI_COMMAND_{}")
class Command(IntEnum):
    """Bits of the COMMAND register; the others are reserved and read as zero.

    Numbers, as in `ixgbe_vf`: a twin looks at one for each access.
    """

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


@numbers("linux/pci_regs.h", "PCI_STATUS_{}")
class Status(IntFlag):
    """Bits of the STATUS register."""

    CAP_LIST = 0x10


@numbers("linux/pci_regs.h", "PCI_BASE_ADDRESS_MEM_{}")
class BaseAddress(IntFlag):
    """Low bits of a memory BAR."""

    TYPE_64 = 0x04
    PREFETCH = 0x08


@numbers("linux/pci_regs.h", "PCI_CAP_ID_{}")
class CapabilityId(IntEnum):
    """The first byte of a capability; the second leads to the next one."""

    EXP = 0x10
    MSIX = 0x11


@numbers("linux/pci_regs.h", "PCI_MSIX_{}")
class Msix(IntEnum):
    """Offsets in the MSI-X capability, and bits of its FLAGS."""

    FLAGS = 2
    TABLE = 4
    PBA = 8
    FLAGS_MASKALL = 0x4000
    FLAGS_ENABLE = 0x8000


@numbers("linux/pci_regs.h", "PCI_EXP_{}")
class Express(IntEnum):
    """Offsets in the PCI Express capability, and the bits of a function level reset."""

    FLAGS = 0x02
    DEVCAP = 0x04
    DEVCTL = 0x08
    LNKCAP = 0x0C
    LNKSTA = 0x12
    DEVCAP_FLR = 0x10000000
    DEVCTL_BCR_FLR = 0x8000


@numbers("linux/pci_regs.h", "PCI_EXT_CAP_ID_{}")
class ExtendedId(IntEnum):
    """The low 16 bits of an extended capability's header."""

    ERR = 0x01
    DSN = 0x03
    VNDR = 0x0B
    ARI = 0x0E
    SRIOV = 0x10


@numbers("linux/pci_regs.h", "PCI_ARI_{}")
class Ari(IntEnum):
    """Offsets in the capability of alternative routing ids."""

    CAP = 0x04
    CTRL = 0x06


@numbers("linux/pci_regs.h", "PCI_SRIOV_{}")
class Sriov(IntEnum):
    """Offsets in the SR-IOV capability, and bits of its control register."""

    CAP = 0x04
    CTRL = 0x08
    STATUS = 0x0A
    INITIAL_VF = 0x0C
    TOTAL_VF = 0x0E
    NUM_VF = 0x10
    FUNC_LINK = 0x12
    VF_OFFSET = 0x14
    VF_STRIDE = 0x16
    VF_DID = 0x1A
    SUP_PGSIZE = 0x1C
    SYS_PGSIZE = 0x20
    BAR = 0x24
    CTRL_VFE = 0x01
    CTRL_MSE = 0x08
    CTRL_ARI = 0x10


EXTENDED = 0x100
"""Extended capabilities begin at this offset."""

NO_ANSWER = 0xFFFF
"""What a 16-bit read gives when no function answers; no COMMAND register holds it."""

NO_ANSWER_32 = 0xFFFFFFFF
"""What one of 32 bits gives, as of a function that sleeps in D3."""
