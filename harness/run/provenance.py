"""What exactly ran where: kernel, QEMU, driver, device and firmware of each host."""

from __future__ import annotations

import harness
from harness.host.port import find_port
from harness.report.results import HostProvenance, Provenance
from harness.run.lab import Lab


def provenance(lab: Lab) -> Provenance:
    """Ask every host; done once, before anything is measured."""
    return Provenance(
        harness=harness.__version__,
        hosts={name: _host_provenance(lab, name) for name in lab.hosts},
    )


def _host_provenance(lab: Lab, name: str) -> HostProvenance:
    host, entry = lab.hosts[name], lab.topology.hosts[name]
    version = host.run(entry.qemu, "--version").stdout.partition("\n")[0]
    if not entry.ports:
        return HostProvenance(
            kernel=host.facts.kernel, qemu=version, pf_driver=None, pf_device=None, firmware=None
        )
    port_name, port_entry = next(iter(entry.ports.items()))
    port = find_port(host, port_name, port_entry)
    told = host.run("ethtool", "--driver", port.interface).stdout
    driver = dict(line.split(": ", 1) for line in told.splitlines() if ": " in line)
    identity = [
        host.read_text(f"{port.device}/{each}").strip().removeprefix("0x")
        for each in ("vendor", "device")
    ]
    return HostProvenance(
        kernel=host.facts.kernel,
        qemu=version,
        pf_driver=f"{driver.get('driver', '')} {driver.get('version', '')}".strip(),
        pf_device=":".join(identity),
        firmware=driver.get("firmware-version", "").strip() or None,
    )
