"""What must be true of a host before anything on it is changed: all faults in one list."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable

from harness.errors import HarnessError, LabError
from harness.host.port import Port, find_port
from harness.remote import Host
from harness.topology import GUEST_SSH_PORT, HostEntry, PeerEntry, TwinEntry

VFIO_USER = "vfio-user-pci"
QEMU_AT_LEAST = (8, 2)
LISTEN = "0A"
"""TCP_LISTEN of include/net/tcp_states.h, as /proc/net/tcp shows it."""

ANY, LOOPBACK = "00000000", "0100007F"
"""Addresses as it shows them, on a little-endian machine."""

PROGRAMS = {"ethtool": "it", "ip": "iproute2", "bridge": "iproute2"}

IOMMUS = "/sys/class/iommu"
"""Empty while the IOMMU is off, and not there with a kernel that knows of none."""


def preflight(host: Host, entry: HostEntry) -> list[str]:
    """What is wrong with *host*, a sentence each; empty if it can be used.  Changes nothing."""
    faults = []
    if host.facts.euid != 0:
        faults.append("the agent is not root there: log in as root")
    faults += _program_faults(host, entry)
    if entry.accelerator == "kvm" and not host.exists("/dev/kvm"):
        faults.append("there is no /dev/kvm: load kvm_intel or kvm_amd, or enable it in the BIOS")
    faults += _vfio_faults(host) if entry.ports else []
    faults += _twin_faults(host, entry, entry.twin) if entry.twin else []
    if not host.exists("/dev/net/tun"):
        faults.append("there is no /dev/net/tun, of which a guest's tap is made: `modprobe tun`")
    faults += _tcp_faults(host, entry)
    if not _has_program(host, "ip"):
        return faults  # nothing can be told of its ports
    for name, port in entry.ports.items():
        try:
            faults += _port_faults(find_port(host, name, port), wanted=port.vfs)
        except LabError as error:
            what = error.what.removeprefix(f"{host.name}: ")  # it is put before each fault later
            faults.append(f"{what}: {error.fix}")
    return faults


def preflight_peer(peer: Host, entry: PeerEntry, *, mtu: int) -> list[str]:
    """What is wrong with the *peer* of a lab whose guests have *mtu*; as `preflight` says it."""
    faults = []
    if peer.facts.euid != 0:
        faults.append("the agent is not root there: log in as root")
    if not peer.exists(f"/sys/class/net/{entry.interface}"):
        return [*faults, f"there is no interface {entry.interface}: see `ip link` there"]
    shown = peer.run("ip", "-json", "address", "show", "dev", entry.interface)
    (link,) = json.loads(shown.stdout)
    if "UP" not in link["flags"]:
        faults.append(f"{entry.interface} is down: `ip link set {entry.interface} up`")
    elif "LOWER_UP" not in link["flags"]:
        faults.append(f"{entry.interface} has no link: see that its cable is in")
    if link["mtu"] < mtu:
        faults.append(f"{entry.interface} has MTU {link['mtu']}, the guests {mtu}: raise it")
    if str(entry.address.ip) not in [each.get("local") for each in link["addr_info"]]:
        faults.append(f"{entry.interface} has no address {entry.address}: add it")
    return faults


def check(faults_by_host: Iterable[tuple[str, list[str]]]) -> None:
    """Raise LabError with every fault of every host, if there is one."""
    lines = [f"{host}: {fault}" for host, faults in faults_by_host for fault in faults]
    if lines:
        raise LabError(
            "\n".join(lines),
            because="a test here would fail for a reason that is not its own; nothing was changed",
            fix="mend these, then see that `vf-harness doctor` finds nothing",
        )


def _vfio_faults(host: Host) -> list[str]:
    """What a port's VFs cannot be lent without."""
    faults = []
    if not (host.exists(IOMMUS) and host.listdir(IOMMUS)):
        faults.append("the IOMMU is off: boot with intel_iommu=on, or enable it in the BIOS")
    if not host.exists("/sys/bus/pci/drivers/vfio-pci"):
        faults.append("vfio-pci is not there: `modprobe vfio-pci`")
    return faults


def _twin_faults(host: Host, entry: HostEntry, twin: TwinEntry) -> list[str]:
    """What twins cannot be lent without."""
    faults = []
    if not host.exists(f"/sys/class/net/{twin.interface}"):
        faults.append(f"there is no interface {twin.interface} for its twins: see `ip link` there")
    if _has_program(host, entry.qemu):
        asked = host.run(entry.qemu, "-device", f"{VFIO_USER},help", check=False)
        if asked.status:
            faults.append(
                f"{entry.qemu} has no {VFIO_USER}, by which a guest is given a twin: QEMU has it "
                "from 10.1 on; name one in the topology, or, where it has [emulation], none: the "
                "lab image's own is used then"
            )
    return faults


def _program_faults(host: Host, entry: HostEntry) -> list[str]:
    faults = [
        f"there is no {program}: install {package}"
        for program, package in PROGRAMS.items()
        if not _has_program(host, program) and (entry.ports or program != "ethtool")
    ]
    if not _has_program(host, entry.qemu):
        return [f"there is no {entry.qemu}: install it, or name another in the topology", *faults]
    return [*_qemu_faults(host, entry.qemu), *faults]


def _qemu_faults(host: Host, qemu: str) -> list[str]:
    asked = host.run(qemu, "--version", check=False)
    version = re.search(r"version (\d+)\.(\d+)", asked.stdout)
    if asked.status or not version:
        said = (asked.stderr or asked.stdout).strip() or "nothing"
        return [f"`{qemu} --version` ends with {asked.status} and says {said}: mend that"]
    if (int(version[1]), int(version[2])) < QEMU_AT_LEAST:
        least = ".".join(map(str, QEMU_AT_LEAST))
        return [f"{qemu} is {version[1]}.{version[2]}: install {least} or newer"]
    return []


def _has_program(host: Host, program: str) -> bool:
    return host.run("sh", "-c", 'command -v "$1"', "sh", program, check=False).status == 0


def _tcp_faults(host: Host, entry: HostEntry) -> list[str]:
    """Who listens already where a QEMU of ours would.  Ref: Linux, net/ipv4/tcp_ipv4.c."""
    taken: dict[int, set[str]] = {}
    for table in ("/proc/net/tcp", "/proc/net/tcp6"):
        lines = host.read_text(table).splitlines()[1:] if host.exists(table) else []
        for _, local, _, state, *_ in (line.split() for line in lines):
            address, _, port = local.partition(":")
            # An IPv6 listener is in the way of IPv4 where it listens to everything.
            if state == LISTEN and (len(address) == len(ANY) or not address.strip("0")):
                taken.setdefault(int(port, 16), set()).add(address[: len(ANY)])
    faults = []
    if taken.get(GUEST_SSH_PORT, set()) & {ANY, LOOPBACK}:
        faults.append(f"TCP port {GUEST_SSH_PORT} is taken, by which guests are reached")
    if entry.migration_port in taken:
        faults.append(f"TCP port {entry.migration_port} is taken, by which migrations come in")
    return [f"{fault}: see `ss -lntp` there" for fault in faults]


def _port_faults(port: Port, *, wanted: int) -> list[str]:
    faults = _vf_faults(port, wanted=wanted)
    if port.interface == _way_to_us(port.host):
        faults.append(f"{port.interface} carries our own connection: name another port")
    return [*faults, *_use_faults(port)]


def _use_faults(port: Port) -> list[str]:
    """What a port is used for already; a guest's bridge on it would cut that off."""
    links = json.loads(port.host.run("ip", "-json", "address", "show").stdout)
    (own,) = (each for each in links if each["ifname"] == port.interface)
    faults = []
    if "master" in own:
        faults.append(f"{port.interface} belongs to {own['master']}: take it out of that")
    upper = [each["ifname"] for each in links if each.get("link") == port.interface]
    if upper:
        faults.append(f"{port.interface} carries {', '.join(upper)}: remove that first")
    used = [each["local"] for each in own.get("addr_info", ()) if each["scope"] != "link"]
    if used:
        faults.append(f"{port.interface} has address {', '.join(used)}: take it off first")
    return faults


def _vf_faults(port: Port, *, wanted: int) -> list[str]:
    total = f"{port.device}/sriov_totalvfs"
    if not port.host.exists(total):
        return [f"{port.pci} can make no VFs: enable SR-IOV in the BIOS, or name another port"]
    faults = []
    if port.virtual_functions:
        faults.append(f"{port.pci} already has {port.virtual_functions} VFs: they are not ours")
    allowed = int(port.host.read_text(total))
    if wanted > allowed:
        faults.append(f"{port.pci} allows {allowed} VFs, {wanted} are wanted: ask for fewer")
    return faults


def _way_to_us(host: Host) -> str | None:
    """The interface by which *host* answers us; None where the connection is local."""
    client = host.run("printenv", "SSH_CONNECTION", check=False).stdout.split()
    if not client:
        return None
    route = host.run("ip", "-json", "route", "get", client[0], check=False)
    if route.status:
        raise HarnessError(
            f"{host.name}: cannot tell which interface our connection comes in by",
            because=route.stderr.strip() or "`ip route get` says nothing",
            fix="see that iproute2 is installed there",
        )
    return str(json.loads(route.stdout)[0]["dev"])
