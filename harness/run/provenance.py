"""What exactly ran where: kernel, QEMU, driver, device and firmware of each host, and the guest."""

from __future__ import annotations

import harness
from harness.devices import PROFILES
from harness.guest.machine import GuestMachine
from harness.host.port import find_port
from harness.remote import Host
from harness.report.results import GuestProvenance, HostProvenance, Provenance
from harness.run.lab import Lab


def provenance(lab: Lab) -> Provenance:
    """Ask every host; done once, before anything is measured."""
    return Provenance(
        harness=harness.__version__,
        hosts={name: _host_provenance(lab, name) for name in lab.hosts},
    )


def guest_provenance(guest: GuestMachine) -> GuestProvenance:
    """Ask the guest; its VF is the interface whose driver is that of a VF."""
    vf_drivers = {profile.vf_driver.value for profile in PROFILES.values()}
    shown = guest.host.run("sh", "-c", "ls -d /sys/class/net/*/device/driver").stdout
    told = (_told(guest.host, path.split("/")[4]) for path in shown.split())
    vf = next((each for each in told if each.get("driver") in vf_drivers), None)
    return GuestProvenance(kernel=guest.host.facts.kernel, vf_driver=_named(vf) if vf else None)


def _told(host: Host, interface: str) -> dict[str, str]:
    """What ethtool tells of an interface's driver."""
    told = host.run("ethtool", "--driver", interface).stdout
    return dict(line.split(": ", 1) for line in told.splitlines() if ": " in line)


def _named(driver: dict[str, str]) -> str:
    return f"{driver.get('driver', '')} {driver.get('version', '')}".strip()


def _host_provenance(lab: Lab, name: str) -> HostProvenance:
    host, entry = lab.hosts[name], lab.topology.host_in_use(name)
    version = host.run(entry.qemu, "--version").stdout.partition("\n")[0]
    if not entry.ports:
        return HostProvenance(
            kernel=host.facts.kernel, qemu=version, pf_driver=None, pf_device=None, firmware=None
        )
    port_name, port_entry = next(iter(entry.ports.items()))
    port = find_port(host, port_name, port_entry)
    driver = _told(host, port.interface)
    identity = [
        host.read_text(f"{port.device}/{each}").strip().removeprefix("0x")
        for each in ("vendor", "device")
    ]
    return HostProvenance(
        kernel=host.facts.kernel,
        qemu=version,
        pf_driver=_named(driver),
        pf_device=":".join(identity),
        firmware=driver.get("firmware-version", "").strip() or None,
    )
