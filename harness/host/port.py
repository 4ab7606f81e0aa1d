"""A port (PF) of a host as it is now: its interface, what it carries, what it is like."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from harness.devices import DeviceProfile
from harness.errors import LabError
from harness.host import ethtool
from harness.host.changes import changed_back, set_attribute
from harness.remote import Host
from harness.topology import PciAddress, PortEntry
from harness.waiting import wait_for

LINK_SECONDS = 20
"""A real 82599 port needs some 5 s after its driver brought it up, an emulated one less than 1."""


@dataclass(frozen=True, slots=True)
class VfTraffic:
    """A port counted so many frames of one VF, and bytes with the checksum of each frame.

    Frames between two functions of the port count here too, and the port's own counters leave them
    out.  Ref: Linux, ixgbe_ndo_get_vf_stats.
    """

    received: int
    received_bytes: int
    sent: int
    sent_bytes: int


@dataclass(frozen=True, slots=True)
class Port:
    """A port that is there and has a network interface, called *interface* on its host.

    *vfs_allowed* is how many VFs its topology lets a test make on it.
    """

    host: Host
    name: str
    pci: PciAddress
    interface: str
    profile: DeviceProfile
    vfs_allowed: int

    @property
    def device(self) -> str:
        """Its folder in sysfs."""
        return f"/sys/bus/pci/devices/{self.pci}"

    @property
    def virtual_functions(self) -> int:
        """How many VFs it has now."""
        return int(self.host.read_text(f"{self.device}/sriov_numvfs"))

    def filters(self) -> dict[int, str]:
        """The MAC address that the port's driver has on record for each VF, by the VF's number.

        After a reset of the VF or of the port ``ixgbe`` goes on showing an address that its filter
        does not hold any more (ixgbe_ndo_get_vf_config: vf_mac_addresses).
        """
        return {vf["vf"]: vf["address"] for vf in self.link().get("vfinfo_list", ())}

    def link(self) -> dict[str, Any]:
        """What ``ip -json -details link show`` says of its interface."""
        shown = self.host.run("ip", "-json", "-details", "link", "show", "dev", self.interface)
        (link,) = json.loads(shown.stdout)
        return dict(link)

    def statistics(self) -> dict[str, int]:
        """Read the counters of the port, which its driver asks the device for now."""
        return ethtool.statistics(self.host, self.interface)

    def vf_traffic(self, index: int) -> VfTraffic:
        """Read what the port counted of VF *index*.

        ``ip`` shows what the driver read last, and it reads every two seconds and for
        `statistics`, so that is asked for first.
        """
        self.statistics()
        argv = ("ip", "-json", "-statistics", "link", "show", "dev", self.interface)
        (link,) = json.loads(self.host.run(*argv).stdout)
        (counted,) = (vf["stats"] for vf in link["vfinfo_list"] if vf["vf"] == index)
        received, sent = counted["rx"], counted["tx"]
        return VfTraffic(
            received["packets"], received["bytes"], sent["tx_packets"], sent["tx_bytes"]
        )

    @property
    def module_vendor(self) -> str:
        """The maker of the module in the port's cage.  Raises CommandError if no module answers."""
        return ethtool.module(self.host, self.interface)["Vendor name"]

    def reset_by_sysfs(self) -> None:
        """Have the kernel reset the function; the port's driver is not told and runs on."""
        self.host.write_text(f"{self.device}/reset", "1")

    def set(self, setting: ethtool.Setting, value: str) -> None:
        """Set *setting*, with its value now as the way back; the port has its link again then.

        Raises RemoteError where the driver refuses, and LabError without a link.
        """
        before = setting.value(self.host, self.interface)
        self.host.change(
            f"{setting.name} of {self.interface}: {value}",
            do={"kind": "run", "argv": setting.command(self.interface, value)},
            undo={"kind": "run", "argv": setting.command(self.interface, before)},
        )
        wait_for_link(self)

    def self_test(self, *, offline: bool) -> ethtool.SelfTest:
        """Have the port's driver test it, and return once it has its link again.

        The *offline* test resets the port, and so it ends what VFs do.  The driver refuses it while
        a driver of a VF has said that it is there (ixgbe_diag_test: clear_to_send); every test has
        failed then.  Raises LabError without a link.
        """
        tested = ethtool.self_test(self.host, self.interface, offline=offline, leased=True)
        wait_for_link(self)
        return tested


def find_port(host: Host, name: str, entry: PortEntry) -> Port:
    """The port *entry* of *host*.  Raises LabError if it is not there, or not what it should be."""
    device = f"/sys/bus/pci/devices/{entry.pci}"
    if not host.exists(device):
        raise LabError(
            f"{host.name}: there is no PCI device {entry.pci}",
            because=f"the topology says that port {name} is there",
            fix="compare with `lspci -D` on that host",
        )
    found = int(host.read_text(f"{device}/device"), 16)
    profile = entry.profile
    if found not in profile.pf_devices.value:
        raise LabError(
            f"{host.name}: {entry.pci} is device {found:#06x}, not a port of the {profile.name}",
            because=f"the ids of that family are {_ids(profile)}",
            fix=f"mend pci or device of port {name} in the topology",
        )
    interfaces = host.listdir(f"{device}/net") if host.exists(f"{device}/net") else []
    if not interfaces:
        raise LabError(
            f"{host.name}: {entry.pci} has no network interface",
            because="no driver is bound to it, or it is lent to a guest whole",
            fix=f"bind it to {profile.pf_driver.value}",
        )
    return Port(host, name, entry.pci, interfaces[0], profile, entry.vfs)


@contextmanager
def port_up(port: Port, *, mtu: int) -> Iterator[None]:
    """The port up with *mtu* and a link; afterwards as it was.  Raises LabError without a link."""
    interface, link = port.interface, port.link()
    with changed_back(port.host) as host:
        if link["mtu"] != mtu:
            set_attribute(host, f"/sys/class/net/{interface}/mtu", str(mtu))
        if "UP" not in link["flags"]:
            host.change(
                f"{interface} up",
                do={"kind": "run", "argv": ["ip", "link", "set", "dev", interface, "up"]},
                undo={"kind": "run", "argv": ["ip", "link", "set", "dev", interface, "down"]},
            )
        wait_for_link(port)
        yield


def wait_for_link(port: Port) -> None:
    """Return once *port*, which is up, has a carrier, and its kernel takes it to have one.

    A port has none for some seconds after its driver has reset it: when its MTU changes
    (ixgbe_change_mtu) and when VFs are made or taken (ixgbe_sriov_reinit).  The carrier falls at
    once, and is LOWER_UP in what ``ip`` shows (net/core/dev.c, dev_get_flags).  The state
    (operstate) follows within a second (net/core/link_watch.c), so alone it may still tell of the
    link that was there before; until it follows, the port sends nothing.  Raises LabError.
    """

    def look() -> str:
        link = port.link()
        carrier = "carrier" if "LOWER_UP" in link["flags"] else "no carrier"
        return f"{carrier}, state {link['operstate']}"

    wait_for(
        f"{port.host.name}: a link on {port.interface}",
        look,
        within=LINK_SECONDS,
        until=lambda seen: seen == "carrier, state UP",
        fix="see that the cable is in and the other end is up",
        error=LabError,
    )


def _ids(profile: DeviceProfile) -> str:
    return ", ".join(f"{number:#06x}" for number in sorted(profile.pf_devices.value))
