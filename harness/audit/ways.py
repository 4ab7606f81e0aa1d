"""The ways to stop a VF, and how each is taken back."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import Enum

from harness.devices import DeviceProfile
from harness.errors import UsageError
from harness.guest.instance import Instance
from harness.guest.machine import GuestMachine
from harness.guest.vf import GuestVf
from harness.host.vf import Vf
from harness.host.virtual_function import VirtualFunction
from harness.migration.quiescing import fall_asleep

SUSPENDED_S = 10
"""Longer than a VF is looked at: on a slow emulated host that took more than 6 s."""


class Way(Enum):
    """How a VF is stopped."""

    NOTHING = "nothing"
    """Not at all: what an audit finds of a VF that works."""
    LINK_DOWN = "link-down"
    UNBIND = "unbind"
    UNPLUG = "unplug"
    """Hot-unplug: by ACPI or by native PCIe, as the guest's machine was built."""
    DEVICE_SUSPEND = "device-suspend"
    """The driver's suspend alone, through ``pm_test``; it resumes by itself, SUSPENDED_S later."""
    ACPI_SUSPEND = "acpi-suspend"
    """The guest suspends to RAM (S3), and is woken."""
    REMOVED = "removed"
    """The guest's kernel removes the function: the guest's part of any hot-unplug."""
    VFIO_RESET = "reset-vfio"
    """A function reset by whoever holds its VFIO descriptor."""
    SYSFS_RESET = "reset-sysfs"
    """A function reset through the host's sysfs; a twin has no place there."""
    GUEST_RESET = "reset-in-guest"
    """A function reset through the guest's own sysfs, with its driver told."""
    BME_CLEARED = "bme-cleared"
    """The host clears BME through VFIO's config region, with the guest running."""

    @property
    def frees_rings(self) -> bool:
        """Whether the driver gives rings and buffers back to its kernel, for any other use."""
        return self in (Way.LINK_DOWN, Way.UNBIND, Way.REMOVED, Way.UNPLUG)

    def resets(self, vf: DeviceProfile) -> bool | None:
        """Say whether this way resets the function of a VF of that family; None if nobody knows.

        A reset that the guest asks for reaches only a VF whose Device Capabilities advertise one:
        for the others VFIO leaves the request out.  Ref: Linux,
        drivers/vfio/pci/vfio_pci_config.c, vfio_exp_config_write().
        """
        if self is Way.GUEST_RESET:
            return None if vf.vf_advertises_flr is None else vf.vf_advertises_flr.value
        return self in (Way.VFIO_RESET, Way.SYSFS_RESET)

    def stops(self, vf: DeviceProfile) -> bool | None:
        """Say whether this way stops a VF of that family until something is done; None if it may.

        Where a guest's reset does not reach the VF, all that its kernel does is to clear BME and
        Memory Enable for a tenth of a second, and to tell its driver nothing (drivers/pci/pci.c,
        pci_dev_save_and_disable).  What the driver writes to the VF meanwhile is lost.  If the
        write that lets interrupts through again is among it, the VF stays silent.
        """
        if self is Way.GUEST_RESET:
            return self.resets(vf) or None
        return self is not Way.NOTHING


@dataclass(frozen=True, slots=True)
class Subject:
    """Whose VF is stopped: *vf* as its host has it, *inside* as the guest had it before."""

    instance: Instance
    guest: GuestMachine
    vf: Vf
    inside: GuestVf

    @classmethod
    def of(cls, instance: Instance, guest: GuestMachine) -> Subject:
        """A guest that has its VF.  Raises UsageError for one without."""
        if instance.vf is None:
            raise UsageError(
                f"{instance.host.name}: the guest has no VF to stop",
                because="it was started without",
                fix='mark the test `needs("vf")`, and use a guest that has one',
            )
        return cls(instance, guest, instance.vf, GuestVf.find(guest, instance.spec.mac))

    def stop(self, way: Way) -> None:
        """Stop the VF that way; returns when the step is taken, not when it shows."""
        vf, inside, pid = self.vf, self.inside, self.instance.pid
        steps: Mapping[Way, Callable[[], None]] = {
            Way.NOTHING: lambda: None,
            Way.LINK_DOWN: lambda: inside.set_link("down"),
            Way.UNBIND: inside.unbind,
            Way.DEVICE_SUSPEND: lambda: inside.suspend_devices(SUSPENDED_S),
            Way.ACPI_SUSPEND: lambda: fall_asleep(self.guest, self.instance),
            Way.REMOVED: inside.remove,
            Way.UNPLUG: self.instance.unplug,
            Way.VFIO_RESET: lambda: vf.reset(qemu_pid=pid),
            Way.SYSFS_RESET: lambda: self._on_port().reset_by_sysfs(),
            Way.GUEST_RESET: inside.reset,
            Way.BME_CLEARED: lambda: vf.set_master(False, qemu_pid=pid),
        }
        steps[way]()

    def take_back(self, way: Way) -> str:
        """Undo the step, and say what that was; empty where nothing undoes it."""
        if way is Way.LINK_DOWN:
            self.inside.set_link("up")
            return "link up"
        if way is Way.UNBIND:
            self.inside.bind()
            self._take_up()
            return "driver bound"
        if way is Way.ACPI_SUSPEND:
            self.instance.qmp.execute("system_wakeup")
            return "woken"
        if way is Way.REMOVED:
            self.inside.rescan()
            self._take_up()
            return "found again"
        if way is Way.UNPLUG:
            self.instance.plug()
            self._take_up()
            return "plugged in"
        if way is Way.BME_CLEARED:
            self.vf.set_master(True, qemu_pid=self.instance.pid)
            return "BME set"
        return ""

    def begin_anew(self) -> None:
        """Have the driver set up the VF from nothing: link down, and up again."""
        for state in ("down", "up"):
            self.inside.set_link(state)

    def _take_up(self) -> None:
        spec = self.instance.spec
        GuestVf.find(self.guest, spec.mac).take_up(str(spec.address), spec.mtu)

    def _on_port(self) -> VirtualFunction:
        if not isinstance(self.vf, VirtualFunction):
            raise UsageError(
                f"{self.vf.host.name}: VF {self.vf.name} is a twin, and has no place in sysfs",
                because="it is a program, and no function of the host's",
                fix='mark the test `needs("sriov")`',
            )
        return self.vf
