"""Checks of a lab whose machines are emulated: what its wire and its QEMU can have."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from harness.topology.entries import Emulation, HostEntry
from harness.topology.faults import Fault, Key

_LONGEST = 15
"""An interface's name has so many characters at most (IFNAMSIZ)."""

_BRIDGE = "wire"
"""The wire's own bridge has that name."""

_MOST_PORTS = {"82599": 2, "82576": 1}
"""An emulated card has so many ports, by family; QEMU's 82576 has one."""


def faults_of_machines(
    emulation: Emulation | None, hosts: Mapping[str, HostEntry | None]
) -> Iterator[Fault]:
    """List what no emulated machine can be; hosts that lend twins are no machines."""
    if emulation is None or any(host is not None and host.twin for host in hosts.values()):
        return
    if len(hosts) != 2:
        yield Fault(("hosts",), f"are {len(hosts)}", "two: [emulation] makes two, and their cable")
    taken = {_BRIDGE}
    for name, host in hosts.items():
        if host is not None:
            yield from _ports(emulation, name, host)
            ports = max(emulation.ports, len(host.ports))
            yield from _names([name, *(f"{name}-{port}" for port in range(1, ports))], taken)


def _ports(emulation: Emulation, name: str, host: HostEntry) -> Iterator[Fault]:
    key: Key = ("hosts", name, "ports")
    families = {port.device for port in host.ports.values()}
    if len(families) != 1:
        yield Fault(
            key,
            f"are of {len(families)} families",
            'ports of one family, such as [hosts.NAME.ports.p0] with device = "82599"',
        )
        return
    (family,) = families
    most = _MOST_PORTS.get(family, 1)
    if len(host.ports) > most:
        yield Fault(key, f"are {len(host.ports)}", f"{most} or fewer on an emulated {family}")
    if emulation.ports > most:
        yield Fault(
            ("emulation", "ports"), f"is {emulation.ports}", f"{most}: an emulated {family} has one"
        )


def _names(taps: list[str], taken: set[str]) -> Iterator[Fault]:
    """Check that a host's taps on the wire can have their names; they are *taken* then.

    The first port's tap is called after the host, that of another port has its number behind.
    """
    for tap in taps:
        if len(tap) > _LONGEST or tap in taken:
            yield Fault(
                ("hosts", taps[0]),
                f"would have {tap} as the name of an interface",
                f"another name: an interface's has {_LONGEST} characters at most, and is no "
                "other's",
            )
            return
        taken.add(tap)
