"""What a host looks like, to be compared before and after: the proof that it was put back."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

from harness.errors import RestoreError
from harness.host.bridge import BRIDGE
from harness.host.port import Port, find_port
from harness.remote import Host
from harness.topology import HostEntry

ATTRIBUTES = ("sriov_numvfs", "sriov_drivers_autoprobe")
LINK_KEYS = ("mtu", "flags", "master", "promiscuity", "address")


@dataclass(frozen=True, slots=True)
class Snapshot:
    """A host's ports and interfaces as they are: a line each, by what it is about."""

    host: str
    lines: dict[str, str]

    def check_same(self, after: Snapshot) -> None:
        """Raise RestoreError with each line that differs in *after*."""
        differing = [
            f"{about}: {self.lines.get(about, 'absent')} is now {after.lines.get(about, 'absent')}"
            for about in sorted(self.lines.keys() | after.lines.keys())
            if self.lines.get(about) != after.lines.get(about)
        ]
        if differing:
            raise RestoreError(
                f"{self.host}: not as it was before",
                because="; ".join(differing),
                fix=f"put it right by hand, or `vf-harness restore --lab LAB {self.host}` and look "
                "again",
            )


def snapshot(host: Host, entry: HostEntry) -> Snapshot:
    """What *host* looks like now; changes nothing."""
    ours = [name for name in host.listdir("/sys/class/net") if name.startswith(BRIDGE)]
    lines = {"interfaces of ours": " ".join(ours) or "none"}
    for name, port_entry in entry.ports.items():
        lines |= _port_lines(find_port(host, name, port_entry))
    if entry.twin:
        shown = host.run("ip", "-json", "-details", "link", "show", "dev", entry.twin.interface)
        lines |= _link_lines("twin", json.loads(shown.stdout)[0])
    return Snapshot(host.name, lines)


def _link_lines(name: str, link: dict[str, Any]) -> dict[str, str]:
    # Carrier comes and goes with the cable and with the port being up; what is set is compared.
    link["flags"] = sorted(set(link["flags"]) - {"LOWER_UP", "NO-CARRIER"})
    return {f"{name} {key}": json.dumps(link.get(key)) for key in LINK_KEYS}


def _port_lines(port: Port) -> dict[str, str]:
    lines = {
        f"{port.name} {name}": port.host.read_text(f"{port.device}/{name}").strip()
        for name in ATTRIBUTES
    }
    lines |= _link_lines(port.name, port.link())
    driver = port.host.readlink(f"{port.device}/driver").rpartition("/")[2]
    return {**lines, f"{port.name} driver": driver}
