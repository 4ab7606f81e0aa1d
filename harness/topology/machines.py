"""Checks of a lab whose machines are emulated: what its wire and its QEMU can have."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from harness.topology.entries import Emulation, HostEntry
from harness.topology.faults import Fault, Key

_LONGEST_NAME = (
    13  # the host's tap on the wire has its name, "-1" at the second port, and 15 at most
)
_BRIDGE = "wire"  # the wire has a bridge of that name
_MOST_PORTS = 2


def faults_of_machines(
    emulation: Emulation | None, hosts: Mapping[str, HostEntry | None]
) -> Iterator[Fault]:
    """List what no emulated machine can be; hosts that lend twins are no machines."""
    if emulation is None or any(host is not None and host.twin for host in hosts.values()):
        return
    if len(hosts) != 2:
        yield Fault(
            ("hosts",),
            f"has {len(hosts)} hosts",
            "two: [emulation] makes two, and a cable for them",
        )
    families = set()
    for name, host in hosts.items():
        key: Key = ("hosts", name)
        if len(name) > _LONGEST_NAME or name == _BRIDGE:
            yield Fault(
                key,
                "cannot name an interface of the wire",
                f"another name, of {_LONGEST_NAME} characters or fewer, and not {_BRIDGE}",
            )
        if host is None:
            continue
        families |= {port.device for port in host.ports.values()}
        if not 1 <= len(host.ports) <= _MOST_PORTS:
            yield Fault(
                (*key, "ports"),
                f"has {len(host.ports)} ports",
                'one or two, such as [hosts.NAME.ports.p0] with device = "82599"',
            )
    if len(families) > 1:
        yield Fault(
            ("hosts",), f"has ports of the {' and the '.join(sorted(families))}", "one family"
        )
    elif emulation.ports > 1 and families == {"82576"}:
        yield Fault(
            ("emulation", "ports"), f"is {emulation.ports}", "1: QEMU's own port has no second"
        )
