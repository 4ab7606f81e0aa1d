"""<linux/vfio.h>, v6.1: containers, groups, devices, regions, interrupts and features.

PRE_COPY is of v6.2.

Every VFIO ioctl is a plain ``_IO``.  Its number holds no size, so the kernel goes by ``argsz``,
which the caller sets, and nothing else would notice a wrong structure.
"""

from __future__ import annotations

import ctypes
from enum import IntEnum, IntFlag

from harness.uapi.mirror import io, mirrors, numbers

API_VERSION = 0

_TYPE, _BASE = ";", 100


@numbers("linux/vfio.h", "VFIO_{}")
class Ioctl(IntEnum):
    """Requests: the first three go to a container, GROUP to a group, DEVICE to a device."""

    GET_API_VERSION = io(_TYPE, _BASE + 0)
    CHECK_EXTENSION = io(_TYPE, _BASE + 1)
    SET_IOMMU = io(_TYPE, _BASE + 2)
    GROUP_GET_STATUS = io(_TYPE, _BASE + 3)
    GROUP_SET_CONTAINER = io(_TYPE, _BASE + 4)
    GROUP_UNSET_CONTAINER = io(_TYPE, _BASE + 5)
    GROUP_GET_DEVICE_FD = io(_TYPE, _BASE + 6)
    DEVICE_GET_INFO = io(_TYPE, _BASE + 7)
    DEVICE_GET_REGION_INFO = io(_TYPE, _BASE + 8)
    DEVICE_GET_IRQ_INFO = io(_TYPE, _BASE + 9)
    DEVICE_SET_IRQS = io(_TYPE, _BASE + 10)
    DEVICE_RESET = io(_TYPE, _BASE + 11)
    DEVICE_FEATURE = io(_TYPE, _BASE + 17)


@numbers("linux/vfio.h", "VFIO_{}_IOMMU")
class Iommu(IntEnum):
    """What SET_IOMMU and CHECK_EXTENSION take."""

    TYPE1 = 1
    TYPE1v2 = 3
    NOIOMMU = 8


@numbers("linux/vfio.h", "VFIO_GROUP_FLAGS_{}")
class GroupFlag(IntFlag):
    """``flags`` of a group's status."""

    VIABLE = 1 << 0
    """Every device of the group is bound to a VFIO driver or to none."""

    CONTAINER_SET = 1 << 1


@numbers("linux/vfio.h", "VFIO_DEVICE_FLAGS_{}")
class DeviceFlag(IntFlag):
    """``flags`` of a device's info."""

    RESET = 1 << 0
    PCI = 1 << 1
    CAPS = 1 << 7


@numbers("linux/vfio.h", "VFIO_REGION_INFO_FLAG_{}")
class RegionFlag(IntFlag):
    """``flags`` of a region's info."""

    READ = 1 << 0
    WRITE = 1 << 1
    MMAP = 1 << 2
    CAPS = 1 << 3


@numbers("linux/vfio.h", "VFIO_REGION_INFO_CAP_{}")
class RegionCapability(IntEnum):
    """``id`` of a capability in a region's chain."""

    SPARSE_MMAP = 1
    TYPE = 2
    MSIX_MAPPABLE = 3


@numbers("linux/vfio.h", "VFIO_PCI_{}_REGION_INDEX")
class PciRegion(IntEnum):
    """``index`` of a PCI device's regions."""

    BAR0 = 0
    BAR1 = 1
    BAR2 = 2
    BAR3 = 3
    BAR4 = 4
    BAR5 = 5
    ROM = 6
    CONFIG = 7
    VGA = 8


@numbers("linux/vfio.h", "VFIO_PCI_{}_IRQ_INDEX")
class PciIrq(IntEnum):
    """``index`` of a PCI device's interrupts."""

    INTX = 0
    MSI = 1
    MSIX = 2
    ERR = 3
    REQ = 4


@numbers("linux/vfio.h", "VFIO_IRQ_INFO_{}")
class IrqFlag(IntFlag):
    """``flags`` of an interrupt's info."""

    EVENTFD = 1 << 0
    MASKABLE = 1 << 1
    AUTOMASKED = 1 << 2
    NORESIZE = 1 << 3


@numbers("linux/vfio.h", "VFIO_IRQ_SET_{}")
class IrqSetFlag(IntFlag):
    """``flags`` of DEVICE_SET_IRQS: one DATA and one ACTION."""

    DATA_NONE = 1 << 0
    DATA_BOOL = 1 << 1
    DATA_EVENTFD = 1 << 2
    ACTION_MASK = 1 << 3
    ACTION_UNMASK = 1 << 4
    ACTION_TRIGGER = 1 << 5


@numbers("linux/vfio.h", "VFIO_DEVICE_FEATURE_{}")
class Feature(IntEnum):
    """The low 16 bits of a feature's ``flags``."""

    PCI_VF_TOKEN = 0
    MIGRATION = 1
    MIG_DEVICE_STATE = 2
    DMA_LOGGING_START = 6
    DMA_LOGGING_STOP = 7
    DMA_LOGGING_REPORT = 8


@numbers("linux/vfio.h", "VFIO_DEVICE_FEATURE_{}")
class FeatureFlag(IntFlag):
    """What is to be done with a feature; PROBE together with GET or SET only asks."""

    GET = 1 << 16
    SET = 1 << 17
    PROBE = 1 << 18


_PRE_COPY = "VFIO_MIGRATION_PRE_COPY"  # the one macro of what v6.2 added


@numbers("linux/vfio.h", "VFIO_MIGRATION_{}", newer={"PRE_COPY": _PRE_COPY})
class MigrationFlag(IntFlag):
    """``flags`` of the MIGRATION feature: the states a device has beside STOP and RUNNING."""

    STOP_COPY = 1 << 0
    P2P = 1 << 1
    PRE_COPY = 1 << 2


@numbers(
    "linux/vfio.h",
    "VFIO_DEVICE_STATE_{}",
    newer={"PRE_COPY": _PRE_COPY, "PRE_COPY_P2P": _PRE_COPY},
)
class DeviceState(IntEnum):
    """``device_state`` of the MIG_DEVICE_STATE feature: enum vfio_device_mig_state."""

    ERROR = 0
    STOP = 1
    RUNNING = 2
    STOP_COPY = 3
    RESUMING = 4
    RUNNING_P2P = 5
    PRE_COPY = 6
    PRE_COPY_P2P = 7


def state_name(state: int) -> str:
    """The header's word for a DeviceState; the number of one that a newer kernel has."""
    return DeviceState(state).name if state in set(DeviceState) else str(state)


@mirrors("linux/vfio.h", "struct vfio_info_cap_header", size=8)
class CapabilityHeader(ctypes.Structure):
    """The start of each capability in a chain; the kernel appends chains to info structures."""

    _fields_ = [
        ("id", ctypes.c_uint16),
        ("version", ctypes.c_uint16),
        ("next", ctypes.c_uint32),  # bytes from the start of the info structure; 0 ends the chain
    ]


@mirrors("linux/vfio.h", "struct vfio_group_status", size=8)
class GroupStatus(ctypes.Structure):
    """Whether a group can be used; ``flags`` are GroupFlag."""

    _fields_ = [
        ("argsz", ctypes.c_uint32),
        ("flags", ctypes.c_uint32),
    ]


@mirrors("linux/vfio.h", "struct vfio_device_info", size=20)
class DeviceInfo(ctypes.Structure):
    """How many regions and interrupts a device has; ``flags`` are DeviceFlag."""

    _fields_ = [
        ("argsz", ctypes.c_uint32),
        ("flags", ctypes.c_uint32),
        ("num_regions", ctypes.c_uint32),  # highest index + 1
        ("num_irqs", ctypes.c_uint32),  # highest index + 1
        ("cap_offset", ctypes.c_uint32),  # bytes from the start of this structure
    ]


@mirrors("linux/vfio.h", "struct vfio_region_info", size=32)
class RegionInfo(ctypes.Structure):
    """Where one region (a BAR, config space) lies within the device descriptor."""

    _fields_ = [
        ("argsz", ctypes.c_uint32),
        ("flags", ctypes.c_uint32),
        ("index", ctypes.c_uint32),
        ("cap_offset", ctypes.c_uint32),  # bytes from the start of this structure
        ("size", ctypes.c_uint64),  # bytes
        ("offset", ctypes.c_uint64),  # from the start of the device descriptor
    ]


@mirrors("linux/vfio.h", "struct vfio_irq_info", size=16)
class IrqInfo(ctypes.Structure):
    """How many interrupts an index has and how they are signalled; ``flags`` are IrqFlag."""

    _fields_ = [
        ("argsz", ctypes.c_uint32),
        ("flags", ctypes.c_uint32),
        ("index", ctypes.c_uint32),
        ("count", ctypes.c_uint32),
    ]


@mirrors("linux/vfio.h", "struct vfio_irq_set", size=20)
class IrqSet(ctypes.Structure):
    """What to do with interrupts ``start`` and on; the data that ``flags`` announce follow."""

    _fields_ = [
        ("argsz", ctypes.c_uint32),
        ("flags", ctypes.c_uint32),
        ("index", ctypes.c_uint32),
        ("start", ctypes.c_uint32),
        ("count", ctypes.c_uint32),
    ]


@mirrors("linux/vfio.h", "struct vfio_device_feature", size=8)
class DeviceFeature(ctypes.Structure):
    """A request about a feature; the feature's own structure follows."""

    _fields_ = [
        ("argsz", ctypes.c_uint32),
        ("flags", ctypes.c_uint32),  # a Feature and FeatureFlag
    ]


@mirrors("linux/vfio.h", "struct vfio_device_feature_migration", size=8)
class FeatureMigration(ctypes.Structure):
    """The data of the MIGRATION feature; ``flags`` are MigrationFlag."""

    _fields_ = [("flags", ctypes.c_uint64)]


@mirrors("linux/vfio.h", "struct vfio_device_feature_mig_state", size=8)
class FeatureMigState(ctypes.Structure):
    """The data of the MIG_DEVICE_STATE feature; GET gives no descriptor, and -1 for it."""

    _fields_ = [
        ("device_state", ctypes.c_uint32),  # a DeviceState
        ("data_fd", ctypes.c_int32),  # by SET, of the states in which data flow
    ]
