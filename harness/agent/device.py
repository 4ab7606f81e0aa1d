"""A PCI device through VFIO: opened here, or borrowed from the process that owns it (QEMU).

A VFIO group opens once; the second open is EBUSY.  What QEMU owns is reached by copying its
descriptor with pidfd_getfd(2).  A copy keeps the device in use: until it is closed the kernel does
not reset the device, QEMU's own VFIO_GROUP_UNSET_CONTAINER fails, and nobody else can open the
group.  So whoever borrows looks at ``still_lent`` often, and closes at once when it turns false.
"""

from __future__ import annotations

import ctypes
import errno
import fcntl
import os
from contextlib import ExitStack
from functools import partial
from typing import Callable, TypeVar, Union, final

from harness.agent.errors import AgentError
from harness.agent.vfio_owner import NODES, Nodes, Owner
from harness.uapi import vfio

_Argument = Union[int, bytearray, ctypes.Structure]
_Structure = TypeVar("_Structure", bound=ctypes.Structure)


@final
class VfioDevice:
    """One PCI device through its VFIO descriptor; a context manager that closes what it holds."""

    def __init__(self, address: str, descriptor: int, held: ExitStack) -> None:
        self.address = address
        self.descriptor = descriptor
        self._held = held
        self._owner_has_it: Callable[[], bool] | None = None
        self._config: tuple[int, int] | None = None

    @classmethod
    def open(cls, address: str) -> VfioDevice:
        """Open a device that is bound to vfio-pci and that no process owns.

        Raises AgentError with the reason if it cannot be opened.
        """
        nodes = Nodes.of(address)
        if nodes.group is None:
            raise AgentError(
                f"{address} is not there, or in no IOMMU group",
                because="VFIO gives a device away only where an IOMMU confines its DMA",
                fix="see `lspci -D`; enable VT-d or AMD-Vi, and boot Intel with intel_iommu=on",
            )
        with ExitStack() as held:
            container = _open_node(held, address, f"{NODES}/vfio")
            group = _open_node(held, address, nodes.group)
            status = vfio.GroupStatus(argsz=ctypes.sizeof(vfio.GroupStatus))
            _ioctl(address, group, vfio.Ioctl.GROUP_GET_STATUS, status)
            if not status.flags & vfio.GroupFlag.VIABLE:
                raise AgentError(
                    f"{address}: its group {nodes.group} is not viable",
                    because="another device of the group is bound to a driver of the host",
                    fix="bind every device of the group to vfio-pci, or to no driver",
                )
            pointer = bytearray(ctypes.c_int(container))
            _ioctl(address, group, vfio.Ioctl.GROUP_SET_CONTAINER, pointer)
            _ioctl(address, container, vfio.Ioctl.SET_IOMMU, vfio.Iommu.TYPE1v2)
            descriptor = _device_of_group(address, group)
            held.callback(os.close, descriptor)
            return cls(address, descriptor, held.pop_all())

    @classmethod
    def borrow(cls, pid: int, address: str) -> VfioDevice:
        """Copy the descriptor by which process *pid* owns the device.

        Raises AgentError if the process is gone or does not own it.
        """
        with ExitStack() as held:
            owner = held.enter_context(Owner(pid))
            device = cls.borrow_from(owner, address)
            if device is None:
                raise AgentError(
                    f"{address}: process {pid} has no VFIO descriptor of it",
                    because="QEMU has not opened the VF yet, or has let it go",
                    fix="wait until the VF is plugged in, or read it through sysfs",
                )
            device._held.push(held.pop_all())
            return device

    @classmethod
    def borrow_from(cls, owner: Owner, address: str) -> VfioDevice | None:
        """Copy the owner's descriptor of a device; None while the owner does not have it open.

        *owner* must outlive the device.  Where the group has to be asked by name, a device that
        its owner is only about to open is opened here first, which resets it: ask for what the
        owner is known to use.
        """
        place = owner.place_of(address)
        descriptor = None if place is None else owner.copy(place)
        if place is None or descriptor is None:
            return None
        if place.by_name:
            group = descriptor
            try:
                descriptor = _device_of_group(address, group)
            finally:
                os.close(group)
        held = ExitStack()
        held.callback(os.close, descriptor)
        device = cls(address, descriptor, held)
        device._owner_has_it = lambda: owner.still_has(place)
        return device

    def __enter__(self) -> VfioDevice:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def close(self) -> None:
        """Let the device go; a second time does nothing."""
        self._held.close()

    @property
    def still_lent(self) -> bool:
        """False once the owner has closed its own descriptor; true for a device opened here."""
        return self._owner_has_it is None or self._owner_has_it()

    def config_read(self, offset: int, length: int) -> bytes:
        """Read configuration space; raises AgentError if it ends before."""
        where = self._in_config(offset, length)
        try:
            return os.pread(self.descriptor, length, where)
        except OSError as error:
            raise _failed(self.address, f"reading config space at {offset:#x}", error) from error

    def config_reader(self, offset: int, length: int) -> Callable[[], bytes]:
        """Make what reads that part of configuration space again and again, as cheaply as can be.

        It raises OSError, and is good until the device is closed.  Raises AgentError if
        configuration space ends before.
        """
        return partial(os.pread, self.descriptor, length, self._in_config(offset, length))

    def config_write(self, offset: int, data: bytes) -> None:
        """Write configuration space; raises AgentError if it ends before."""
        where = self._in_config(offset, len(data))
        try:
            os.pwrite(self.descriptor, data, where)
        except OSError as error:
            raise _failed(self.address, f"writing config space at {offset:#x}", error) from error

    def info(self) -> vfio.DeviceInfo:
        """How many regions and interrupts it has, and what it is (vfio.DeviceFlag)."""
        info = vfio.DeviceInfo(argsz=ctypes.sizeof(vfio.DeviceInfo))
        _ioctl(self.address, self.descriptor, vfio.Ioctl.DEVICE_GET_INFO, info)
        return info

    def region_info(self, index: int) -> vfio.RegionInfo:
        """Where a region (vfio.PciRegion) lies; its size is 0 if the device has none such.

        If ``flags`` say CAPS, ``argsz`` is what a buffer for the capability chain must hold.
        """
        info = vfio.RegionInfo(argsz=ctypes.sizeof(vfio.RegionInfo), index=index)
        _ioctl(self.address, self.descriptor, vfio.Ioctl.DEVICE_GET_REGION_INFO, info)
        return info

    def irq_info(self, index: int) -> vfio.IrqInfo:
        """How many interrupts an index (vfio.PciIrq) has."""
        info = vfio.IrqInfo(argsz=ctypes.sizeof(vfio.IrqInfo), index=index)
        _ioctl(self.address, self.descriptor, vfio.Ioctl.DEVICE_GET_IRQ_INFO, info)
        return info

    def migration(self) -> vfio.MigrationFlag:
        """What the kernel offers to migrate it by; nothing where its driver cannot.

        Ref: Linux, drivers/vfio/vfio_main.c, vfio_ioctl_device_feature(): ENOTTY of a driver
        without migration, and of a kernel that knows of none.
        """
        try:
            offered = self._feature(vfio.Feature.MIGRATION, vfio.FeatureMigration)
        except OSError as error:
            if error.errno == errno.ENOTTY:
                return vfio.MigrationFlag(0)
            raise _failed(self.address, "VFIO_DEVICE_FEATURE_MIGRATION", error) from error
        return vfio.MigrationFlag(offered.flags)

    def migration_state(self) -> int:
        """Its vfio.DeviceState now; raises AgentError, also where no migration is offered."""
        try:
            return self.read_migration_state()
        except OSError as error:
            raise _failed(self.address, "VFIO_DEVICE_FEATURE_MIG_DEVICE_STATE", error) from error

    def read_migration_state(self) -> int:
        """The same, for who reads it again and again; raises OSError.

        A driver may let it wait while it takes the device from one state to another.
        """
        state = self._feature(vfio.Feature.MIG_DEVICE_STATE, vfio.FeatureMigState).device_state
        return int(state)

    def _feature(self, feature: vfio.Feature, kind: type[_Structure]) -> _Structure:
        """What the kernel says of a feature, in the structure that it has; raises OSError."""
        head = vfio.DeviceFeature(flags=feature | vfio.FeatureFlag.GET)
        head.argsz = ctypes.sizeof(head) + ctypes.sizeof(kind)
        whole = bytearray(head) + bytearray(ctypes.sizeof(kind))
        fcntl.ioctl(self.descriptor, vfio.Ioctl.DEVICE_FEATURE, whole)
        return kind.from_buffer_copy(whole, ctypes.sizeof(head))

    def reset(self) -> None:
        """Reset the function; the kernel puts configuration space back as it was."""
        _ioctl(self.address, self.descriptor, vfio.Ioctl.DEVICE_RESET, 0)

    def region_read(self, index: int, offset: int, length: int) -> bytes:
        """Read a region (vfio.PciRegion); raises AgentError if it cannot be, or ends before."""
        info = self.region_info(index)
        if offset + length > info.size:
            raise AgentError(
                f"{self.address}: {length} bytes at {offset:#x} are not all in region {index}",
                because=f"it has {info.size} bytes",
                fix="ask for less",
            )
        try:
            return os.pread(self.descriptor, length, info.offset + offset)
        except OSError as error:
            doing = f"reading region {index} at {offset:#x}"
            raise _failed(self.address, doing, error) from error

    def region_write(self, index: int, offset: int, data: bytes) -> None:
        """Write *data* at *offset* of region *index* (vfio.PciRegion).

        Raises AgentError where the kernel refuses the write.
        """
        try:
            os.pwrite(self.descriptor, data, self.region_info(index).offset + offset)
        except OSError as error:
            doing = f"writing region {index} at {offset:#x}"
            raise _failed(self.address, doing, error) from error

    def _in_config(self, offset: int, length: int) -> int:
        if self._config is None:
            info = self.region_info(vfio.PciRegion.CONFIG)
            self._config = (info.offset, info.size)
        start, size = self._config
        if offset + length > size:
            raise AgentError(
                f"{self.address}: {length} bytes at {offset:#x} are not all in its config space",
                because=f"its config space has {size} bytes",
                fix="ask for less",
            )
        return start + offset


def _open_node(held: ExitStack, address: str, path: str) -> int:
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_CLOEXEC)
    except OSError as error:
        raise _failed(address, f"opening {path}", error) from error
    held.callback(os.close, descriptor)
    return descriptor


def _device_of_group(address: str, group: int) -> int:
    name = bytearray(address.encode() + b"\0")
    return _ioctl(address, group, vfio.Ioctl.GROUP_GET_DEVICE_FD, name)


def _ioctl(address: str, descriptor: int, request: vfio.Ioctl, argument: _Argument) -> int:
    try:
        return fcntl.ioctl(descriptor, request, argument)
    except OSError as error:
        raise _failed(address, f"VFIO_{request.name}", error) from error


_MEANING = {
    errno.EBUSY: (
        "a process owns the group, and a group opens once",
        "borrow the owner's descriptor, or end the owner (`fuser -v /dev/vfio/*`)",
    ),
    errno.ENOENT: (
        "vfio-pci is not loaded, or the device is not bound to it",
        "bind the device to vfio-pci first",
    ),
    errno.ENODEV: ("the device has gone", "create the VFs again"),
    errno.EINVAL: (
        "the device, or its group, does not have what was asked for",
        "see what it has with region_info and irq_info",
    ),
    errno.EACCES: ("only root may", "run the agent as root"),
    errno.EPERM: ("only root may", "run the agent as root"),
    errno.ENOTTY: (
        "the descriptor is not of a VFIO device, or the kernel lacks this request",
        "compare the kernel with what the preflight asks for",
    ),
}


def _failed(address: str, doing: str, error: OSError) -> AgentError:
    because, fix = _MEANING.get(
        error.errno or 0, ("the kernel's VFIO refused it", "see the host's kernel log")
    )
    return AgentError(f"{address}: {doing} failed: {error.strerror}", because=because, fix=fix)
