"""What must be true of a host before anything on it is changed."""

from __future__ import annotations

import json
from typing import Any

import pytest
from made_up_host import (
    ENTRY,
    INTERFACE,
    PF,
    PORT,
    TCP_HEADER,
    VFIO_DRIVER,
    Machine,
    made_up_host,
)

from harness.errors import HarnessError, LabError
from harness.host.preflight import check, preflight, preflight_peer
from harness.topology import PeerEntry, TwinEntry


def faults(machine: Machine) -> list[str]:
    return preflight(made_up_host(machine), ENTRY)


def connected_by(machine: Machine, interface: str) -> None:
    """Let our connection to *machine* come in by *interface*."""
    show = machine.programs["ip"]
    route = json.dumps([{"dst": "192.0.2.1", "dev": interface}])
    machine.programs["printenv"] = lambda _: (0, "192.0.2.1 40000 192.0.2.11 22\n")
    machine.programs["ip"] = lambda argv: (0, route) if "route" in argv else show(argv)


def test_a_good_host_has_no_faults(machine: Machine) -> None:
    """One that is found wanting without a reason ends every run."""
    assert faults(machine) == []
    assert machine.changes == []


def test_all_faults_of_a_bad_host_are_told_at_once(machine: Machine) -> None:
    """Somebody has to walk to that machine, and must not have to walk there fourteen times."""
    machine.euid = 1000
    machine.programs["sh"] = lambda argv: (0 if argv[-1] == "ip" else 127, "")
    machine.folders -= {"/sys/class/iommu/dmar0", VFIO_DRIVER}
    machine.folders.add("/sys/class/iommu")
    del machine.files["/dev/kvm"], machine.files["/dev/net/tun"]
    machine.files["/proc/net/tcp"] += "   1: 0100007F:08AE 00000000:0000 0A 00000000:00000000\n"
    machine.files["/proc/net/tcp6"] = (
        f"{TCP_HEADER}\n   0: {'0' * 32}:115C {'0' * 32}:0000 0A 00000000:00000000\n"
    )
    machine.files[f"{PORT}/sriov_numvfs"] = "4\n"
    machine.files[f"{PORT}/sriov_totalvfs"] = "1\n"
    machine.shown[INTERFACE]["master"] = "br0"
    connected_by(machine, INTERFACE)

    told = faults(machine)
    assert [fault.partition(": ")[0] for fault in told] == [
        "the agent is not root there",
        "there is no qemu-system-x86_64",
        "there is no ethtool",
        "there is no bridge",
        "there is no /dev/kvm",
        "the IOMMU is off",
        "vfio-pci is not there",
        "there is no /dev/net/tun, of which a guest's tap is made",
        "TCP port 2222 is taken, by which guests are reached",
        "TCP port 4444 is taken, by which migrations come in",
        f"{PF} already has 4 VFs",
        f"{PF} allows 1 VFs, 2 are wanted",
        f"{INTERFACE} carries our own connection",
        f"{INTERFACE} belongs to br0",
    ]


@pytest.mark.parametrize(
    ("version", "told"), [("7.2.22 (Debian 1:7.2)", 1), ("8.1.5", 1), ("8.2.0", 0), ("11.1.3", 0)]
)
def test_a_qemu_that_is_too_old_is_a_fault(machine: Machine, version: str, told: int) -> None:
    """Of two versions 11 is newer than 8, whatever their letters say."""
    machine.programs["qemu-system-x86_64"] = lambda _: (0, f"QEMU emulator version {version}\n")
    assert [fault for fault in faults(machine) if "install 8.2 or newer" in fault] == (
        faults(machine) if told else []
    )
    assert len(faults(machine)) == told


def test_a_qemu_that_does_not_run_is_a_fault(machine: Machine) -> None:
    """Its library is missing: the guest's start would tell, once everything is lent."""
    machine.programs["qemu-system-x86_64"] = lambda _: (127, "libfdt.so.1: cannot open")
    assert faults(machine) == [
        "`qemu-system-x86_64 --version` ends with 127 and says libfdt.so.1: cannot open: mend that"
    ]


def test_of_a_host_without_iproute2_no_port_is_told(machine: Machine) -> None:
    """It is what tells of them; that it is missing must not hide what else is wrong."""
    machine.programs["sh"] = lambda argv: (127 if argv[-1] in ("ip", "bridge") else 0, "")
    del machine.programs["ip"], machine.files["/dev/kvm"]
    assert [fault.partition(": ")[0] for fault in faults(machine)] == [
        "there is no ip", "there is no bridge", "there is no /dev/kvm",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("table", "local", "told"),
    [
        pytest.param("tcp", "0100007F:08AE", 1, id="loopback"),
        pytest.param("tcp", "00000000:08AE", 1, id="everywhere"),
        pytest.param("tcp6", f"{'0' * 32}:08AE", 1, id="everywhere, IPv6 included"),
        pytest.param("tcp", "0500000A:08AE", 0, id="another address"),
        pytest.param("tcp6", f"{'0' * 24}01000000:08AE", 0, id="IPv6 loopback"),
        pytest.param("tcp", "0500000A:115C", 1, id="an address that migrations come in by"),
    ],
)
def test_a_listener_that_is_not_in_the_way_is_none(
    machine: Machine, table: str, local: str, told: int
) -> None:
    """QEMU binds to the loopback for SSH, and to every IPv4 address for a migration."""
    machine.files[f"/proc/net/{table}"] = f"{TCP_HEADER}\n   0: {local} 0:0000 0A 0:0\n"
    assert len(faults(machine)) == told


def test_a_connection_that_is_open_is_no_listener(machine: Machine) -> None:
    """Our own SSH connection may have any number at either end of it."""
    machine.files["/proc/net/tcp"] += "   1: 0100007F:08AE 0100007F:9C40 01 00000000:00000000\n"
    assert faults(machine) == []


def test_a_kernel_without_any_iommu_is_a_fault_among_others(machine: Machine) -> None:
    """Its folder in sysfs is not empty there but missing, which must not end the list."""
    machine.folders -= {"/sys/class/iommu/dmar0", VFIO_DRIVER}

    assert [fault.partition(": ")[0] for fault in faults(machine)] == [
        "the IOMMU is off",
        "vfio-pci is not there",
    ]


def test_a_port_without_sriov_is_a_fault_among_others(machine: Machine) -> None:
    """Switched off in the BIOS, the attributes of SR-IOV are missing, which must not end the list.

    Ref: Linux, drivers/pci/iov.c: they are visible where the capability was set up only.
    """
    for name in ("sriov_numvfs", "sriov_totalvfs", "sriov_drivers_autoprobe"):
        del machine.files[f"{PORT}/{name}"]
    machine.shown[INTERFACE]["master"] = "br0"

    assert [fault.partition(": ")[0] for fault in faults(machine)] == [
        f"{PF} can make no VFs",
        f"{INTERFACE} belongs to br0",
    ]


def test_a_wrong_port_is_a_fault_with_its_remedy(machine: Machine) -> None:
    """The remedy is the reader's next step; the host's name is put before each fault later."""
    machine.files[f"{PORT}/device"] = "0x1521\n"
    machine.euid = 1000

    assert faults(machine) == [
        "the agent is not root there: log in as root",
        f"{PF} is device 0x1521, not a port of the 82599: "
        "mend pci or device of port p0 in the topology",
    ]


def test_tcg_needs_no_kvm(machine: Machine) -> None:
    """The emulated lab's hosts have none, and say so in the topology."""
    del machine.files["/dev/kvm"]

    emulated = ENTRY.model_copy(update={"accelerator": "tcg"})
    assert preflight(made_up_host(machine), emulated) == []


def test_a_qemu_that_knows_no_twins_is_told_with_the_version_that_does(machine: Machine) -> None:
    """Debian 13's own is one: without a word of it the guest would end before its first."""
    knows = machine.programs["qemu-system-x86_64"]
    no_device = (1, "'vfio-user-pci' is not a valid device model name")
    machine.programs["qemu-system-x86_64"] = lambda argv: (
        no_device if "vfio-user-pci,help" in argv else knows(argv)
    )
    twin = TwinEntry(interface=INTERFACE)
    lends_twins = ENTRY.model_copy(update={"ports": {}, "twin": twin})
    (fault,) = preflight(made_up_host(machine), lends_twins)
    assert fault.startswith("qemu-system-x86_64 has no vfio-user-pci, by which a guest is given a")
    assert "QEMU has it from 10.1 on" in fault


def test_a_qemu_is_looked_for_by_its_whole_name(machine: Machine) -> None:
    """A path with a blank in it is one name, and no part of it is a command of its own."""
    name = "/opt/my qemu; reboot"
    machine.programs["sh"] = lambda argv: (0 if argv[4] != "qemu-system-x86_64" else 127, "")
    machine.programs[name] = lambda _: (0, "QEMU emulator version 11.1.3\n")

    assert preflight(made_up_host(machine), ENTRY.model_copy(update={"qemu": name})) == []


def test_a_port_beside_our_connection_is_ours(machine: Machine) -> None:
    """Its neighbour carries SSH; taken for the port itself, no host with SSH could be used."""
    connected_by(machine, "eno1")
    assert faults(machine) == []


@pytest.mark.parametrize(
    ("addresses", "told"),
    [
        ([("192.0.2.40", "global")], ["has address 192.0.2.40: take it off first"]),
        ([("fe80::1", "link"), ("2001:db8::4", "global")], ["has address 2001:db8::4: take"]),
        ([("fe80::1", "link")], []),  # the kernel gives each link one
    ],
    ids=["an address", "one of two", "none that anybody gave it"],
)
def test_a_port_that_has_an_address_is_in_use(
    machine: Machine, addresses: list[tuple[str, str]], told: list[str]
) -> None:
    """Storage, or the cluster's heartbeat: in a guest's bridge it would answer nobody."""
    info = [{"local": local, "scope": scope} for local, scope in addresses]
    machine.shown[INTERFACE]["addr_info"] = info
    found = faults(machine)
    assert len(found) == len(told)
    assert all(f"{INTERFACE} {words}" in fault for words, fault in zip(told, found, strict=True))


def test_a_port_below_another_interface_is_in_use(machine: Machine) -> None:
    """Our own connection may come in by a VLAN on it, and bears the VLAN's name."""
    machine.shown["storage"] = {"ifname": "storage", "link": INTERFACE, "addr_info": []}
    machine.shown["other"] = {"ifname": "other", "link": "eno1", "addr_info": []}
    connected_by(machine, "storage")
    assert faults(machine) == [f"{INTERFACE} carries storage: remove that first"]


def test_a_route_that_cannot_be_told_is_no_permission(machine: Machine) -> None:
    """Taking the port of one's own connection cuts the branch that one sits on."""
    machine.programs["printenv"] = lambda _: (0, "192.0.2.1 40000 192.0.2.11 22\n")
    machine.programs["ip"] = lambda _: (2, "Error: unknown command")
    with pytest.raises(HarnessError, match="cannot tell which interface our connection comes in"):
        faults(machine)


PEER = PeerEntry.model_validate(
    {"management_address": "192.0.2.13", "interface": INTERFACE, "address": "198.18.0.1/24"}
)
ON_THE_WIRE = {"flags": ["UP", "LOWER_UP"], "mtu": 9000, "addr_info": [{"local": "198.18.0.1"}]}


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({}, []),
        ({"flags": []}, ["ens1f0 is down"]),
        ({"flags": ["UP", "NO-CARRIER"]}, ["ens1f0 has no link"]),
        ({"mtu": 8999}, ["ens1f0 has MTU 8999, the guests 9000"]),
        ({"addr_info": [{"local": "198.18.0.9"}]}, ["ens1f0 has no address 198.18.0.1/24"]),
        ({"flags": [], "mtu": 1500, "addr_info": []}, ["is down", "MTU 1500", "no address"]),
    ],
)
def test_a_peer_that_could_not_serve_is_told_why(
    machine: Machine, change: dict[str, Any], told: list[str]
) -> None:
    """Its frames would be lost, and the migration blamed for it."""
    machine.shown[INTERFACE] |= {**ON_THE_WIRE, **change}
    machine.folders.add(f"/sys/class/net/{INTERFACE}")
    faults = preflight_peer(made_up_host(machine), PEER, mtu=9000)
    assert len(faults) == len(told)
    assert all(words in fault for words, fault in zip(told, faults, strict=True))


def test_a_peer_without_its_interface_or_without_root_is_told(machine: Machine) -> None:
    elsewhere = PEER.model_copy(update={"interface": "ens9"})
    machine.euid = 1000
    first, second = preflight_peer(made_up_host(machine), elsewhere, mtu=9000)
    assert "not root" in first
    assert second.startswith("there is no interface ens9")


def test_faults_of_all_hosts_are_raised_together() -> None:
    """Both hosts may be bent; the second one's faults are not for another day."""
    with pytest.raises(LabError) as unhealthy:
        check([("alder", ["no QEMU", "no IOMMU"]), ("birch", ["no KVM"])])
    assert unhealthy.value.what == "alder: no QEMU\nalder: no IOMMU\nbirch: no KVM"
    assert "nothing was changed" in unhealthy.value.because


def test_hosts_without_faults_pass() -> None:
    """The other side of the check above."""
    check([("alder", []), ("birch", [])])
