"""The process that owns PCI devices through VFIO (QEMU), and which of its descriptors is whose."""

from __future__ import annotations

import errno
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Callable, final

from harness.agent.errors import AgentError
from harness.uapi.pidfd import pidfd_getfd, pidfd_open

SYSFS = Path("/sys/bus/pci/devices")
NODES = Path("/dev/vfio")
DEVICE_LINK = "anon_inode:[vfio-device]"


@dataclass(frozen=True)
class Nodes:
    """Under which names a device, or the group it is in, can be open."""

    address: str
    group: str | None
    """/dev/vfio/N; None without an IOMMU, and without the device."""

    alone: bool
    """No other device is in the group."""

    cdevs: frozenset[str] = frozenset()
    """/dev/vfio/devices/vfioN; open only on kernels with CONFIG_VFIO_DEVICE_CDEV."""

    @classmethod
    def of(cls, address: str, sysfs: Path = SYSFS) -> Nodes:
        """Read them from sysfs; a device that is not there has none."""
        device = sysfs / address
        cdevs = frozenset(f"{NODES}/devices/{node.name}" for node in device.glob("vfio-dev/*"))
        group = device / "iommu_group"
        if not group.exists():
            return cls(address, None, alone=False, cdevs=cdevs)
        alone = len(list(group.glob("devices/*"))) == 1
        return cls(address, f"{NODES}/{group.resolve().name}", alone, cdevs)


@dataclass(frozen=True)
class Place:
    """Where in its owner's table of descriptors the way to a device is."""

    number: int
    link: str
    """What the descriptor's link in /proc reads."""

    by_name: bool = False
    """It is the group's descriptor, which has to be asked for the device."""


def find_place(
    nodes: Nodes, links: dict[int, str], syspath: Callable[[int], str | None]
) -> Place | None:
    """Find a device among a process's descriptors; None if the process does not have it open.

    *links* are the descriptors' links in /proc.  *syspath* reads a descriptor's
    ``vfio-device-syspath`` (Linux v6.18, "vfio/pci: print vfio-device syspath to fdinfo"), None
    where there is none: older kernels do not say which device a descriptor is of.  There, the only
    device of the only group is clear; otherwise the group's own descriptor must be asked.
    """
    for number, link in links.items():
        if link in nodes.cdevs:
            return Place(number, link)
    devices = {number: syspath(number) for number, link in links.items() if link == DEVICE_LINK}
    if devices and None not in devices.values():
        named = [n for n, path in devices.items() if path and Path(path).name == nodes.address]
        return Place(named[0], DEVICE_LINK) if named else None
    groups = {link: number for number, link in links.items() if _is_group(link)}
    if nodes.group is None or nodes.group not in groups or not devices:
        return None
    if nodes.alone and len(devices) == len(groups) == 1:
        return Place(next(iter(devices)), DEVICE_LINK)
    return Place(groups[nodes.group], nodes.group, by_name=True)


@final
class Owner:
    """A process, pinned by a pidfd: another that gets the same pid is never taken for it."""

    def __init__(self, pid: int) -> None:
        self.pid = pid
        try:
            self._pidfd = pidfd_open(pid)
        except ProcessLookupError:
            raise AgentError(
                f"there is no process {pid}",
                because="QEMU has ended, or the pid is from another run",
                fix="see QEMU's log for why it ended",
            ) from None

    def __enter__(self) -> Owner:
        return self

    def __exit__(self, *exc: object) -> None:
        os.close(self._pidfd)

    def place_of(self, address: str) -> Place | None:
        """Where the owner has a device; None while it does not have it open."""
        return find_place(Nodes.of(address), self.links(), self._syspath)

    def links(self) -> dict[int, str]:
        """Descriptor -> what its link in /proc reads; empty once the process has ended."""
        try:
            numbers = [entry.name for entry in Path(f"/proc/{self.pid}/fd").iterdir()]
        except (FileNotFoundError, ProcessLookupError):
            return {}
        links = {int(number): _link(self.pid, number) for number in numbers}
        return {number: link for number, link in links.items() if link is not None}

    def still_has(self, place: Place) -> bool:
        """Whether the owner's descriptor there is still open."""
        return _link(self.pid, place.number) == place.link

    def copy(self, place: Place) -> int | None:
        """Copy the descriptor there; None if it has been closed by now.  The caller owns it."""
        try:
            copy = pidfd_getfd(self._pidfd, place.number)
        except OSError as error:
            if error.errno in (errno.EBADF, errno.ESRCH):
                return None
            raise AgentError(
                f"process {self.pid}: its descriptors cannot be copied: {error.strerror}",
                because="pidfd_getfd(2) needs Linux 5.6 and the right to trace the process",
                fix="run the agent as root; see /proc/sys/kernel/yama/ptrace_scope",
            ) from error
        if _link("self", copy) != place.link:  # closed, and its number taken by another file
            os.close(copy)
            return None
        return copy

    def _syspath(self, number: int) -> str | None:
        try:
            text = Path(f"/proc/{self.pid}/fdinfo/{number}").read_text()
        except (FileNotFoundError, ProcessLookupError):
            return None
        for line in text.splitlines():
            name, _, value = line.partition(":")
            if name == "vfio-device-syspath":
                return value.strip()
        return None


def _link(process: object, number: object) -> str | None:
    try:  # not by pathlib, which costs an emulated processor several times as much
        return os.readlink(f"/proc/{process}/fd/{number}")  # noqa: PTH115
    except (FileNotFoundError, ProcessLookupError):
        return None


def _is_group(link: str) -> bool:
    return link.rpartition("/")[0] == str(NODES) and link.rpartition("/")[2].isdigit()
