"""A guest has the VF that its host lends, up and at work, before anything is measured.

QEMU starts a guest also if QEMU cannot open the VF: the primary of a failover pair is added
when the guest's driver negotiates the standby, and what goes wrong then is a warning in QEMU's log
(hw/net/virtio-net.c, virtio_net_set_features).  The standby serves such a guest, so nothing else
shows that the VF is missing.
"""

from __future__ import annotations

import json
from typing import Any

from harness.errors import GuestError, WaitError
from harness.guest.instance import Instance
from harness.guest.machine import GuestMachine
from harness.host.vf import Vf
from harness.waiting import wait_for

LENT_VF_SECONDS = 60
"""How long a guest may take to have its VF; ixgbevf looks for its link once in 2 s, and an emulated
guest has its VF some 10 s after its init is up."""

_LINES = 5
"""How many of the last lines of a log are quoted."""

_KERNEL_WORDS = ("ixgbevf", "igbvf", "failover", "pciehp", "acpiphp", "net_failover", "virtio_net")
"""A line of the guest's kernel log is about a VF if one of these words is in the line."""


def wait_for_lent_vf(guest: GuestMachine, *, seconds: float = LENT_VF_SECONDS) -> None:
    """Return once the guest has its VF: address, failover pair if it has one, carrier, and BME.

    A guest that is lent none has all that it is to have.  Raises GuestError if that takes longer
    than *seconds*, with what is missing, and what QEMU and the guest's kernel said.
    """
    instance = guest.instance
    if instance.vf is None:
        return
    vf = instance.vf
    try:
        wait_for(
            f"{instance.host.name}: the guest to have its VF",
            lambda: missing(guest, vf),
            within=seconds,
            until=lambda what: not what,
            every_s=0.2,
        )
    except WaitError:
        raise GuestError(
            f"{instance.host.name}: the guest does not have its VF {vf.name}",
            because=f"{missing(guest, vf) or 'it came too late'}; QEMU said: {_of_qemu(instance)}; "
            f"the guest's kernel said: {_of_kernel(guest)}",
            fix=f"see qemu.log in {instance.place.folder} and the host's kernel log: QEMU goes on "
            "without a VF that VFIO does not open (its IOMMU group, interrupt remapping, locked "
            "memory)",
        ) from None


def missing(guest: GuestMachine, vf: Vf) -> str:
    """Say in words what the guest lacks of its VF *vf*; empty if the guest lacks nothing."""
    spec = guest.instance.spec
    shown = guest.host.run("/usr/bin/ip", "-json", "-details", "link", "show").stdout
    functions = [link for link in json.loads(shown) if link.get("parentbus") == "pci"]
    link = next((each for each in functions if each.get("address") == spec.mac), None)
    if link is None:
        return f"no PCI function of the guest has the address {spec.mac}; {_listed(functions)}"
    if spec.standby and not link.get("master"):
        return f"{link['ifname']} is in no failover pair"
    if "LOWER_UP" not in link["flags"]:
        return f"{link['ifname']} has no carrier"
    if not vf.is_master():
        return f"Bus Master Enable of {vf.name} is clear"
    return ""


def _listed(functions: list[dict[str, Any]]) -> str:
    names = ", ".join(f"{each['ifname']} has {each.get('address')}" for each in functions)
    return names or "it has no interface of a PCI function"


def _of_qemu(instance: Instance) -> str:
    return _last(instance.complaints().splitlines())


def _of_kernel(guest: GuestMachine) -> str:
    lines = guest.host.run("dmesg", check=False).stdout.splitlines()
    return _last([line for line in lines if any(word in line for word in _KERNEL_WORDS)])


def _last(lines: list[str]) -> str:
    return " | ".join(line.strip() for line in lines[-_LINES:]) or "nothing"
