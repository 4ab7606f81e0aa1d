"""What a host lends a guest that is to move: a way to the wire, and a VF of either provider."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass

from harness.guest.spec import GuestSpec
from harness.host.bridge import STANDBY, bridged, interface_up, tap
from harness.host.port import Port, find_port, port_up
from harness.host.sriov import virtual_functions
from harness.host.twin_program import twins
from harness.host.vf import Vf
from harness.remote import Host
from harness.run.lab import Lab
from harness.topology import HostEntry


@dataclass(frozen=True, slots=True)
class Berth:
    """What a host lends the guest: a tap for its standby and a VF, as far as it is to have them."""

    host: str
    tap: str | None
    vf: Vf | None


@contextmanager
def berth_on(lab: Lab, name: str, spec: GuestSpec, *, has_vf: bool) -> Iterator[Berth]:
    """What host *name* lends a guest such as *spec*, until it is put back."""
    host, entry = lab.hosts[name], lab.topology.hosts[name]
    with ExitStack() as stack:
        interface = stack.enter_context(_way_out(host, entry, mtu=spec.mtu))
        stack.enter_context(bridged(host, interface, mtu=_carries(host, interface)))
        standby = spec.standby or not has_vf
        wire = stack.enter_context(tap(host, STANDBY, mtu=spec.mtu)) if standby else None
        vf = stack.enter_context(_vf(lab, name, mtu=spec.mtu)) if has_vf else None
        yield Berth(name, wire, vf)


@contextmanager
def _way_out(host: Host, entry: HostEntry, *, mtu: int) -> Iterator[str]:
    """The interface that leads to the wire, up: the port's, or that of the host's twins."""
    if entry.twin:
        with interface_up(host, entry.twin.interface):
            yield entry.twin.interface
        return
    port = _port(host, entry)
    with port_up(port, mtu=mtu):
        yield port.interface


@contextmanager
def _vf(lab: Lab, name: str, *, mtu: int) -> Iterator[Vf]:
    """One VF, from whichever provider the host has."""
    host, entry = lab.hosts[name], lab.topology.hosts[name]
    if entry.twin:
        with twins(
            host, entry.twin, 1, port_mtu=mtu, wire_mtu=_carries(host, entry.twin.interface),
            capabilities=lab.topology.capabilities,
        ) as (twin,):  # fmt: skip
            yield twin
        return
    with virtual_functions(_port(host, entry), 1) as (vf,):
        yield vf


def _port(host: Host, entry: HostEntry) -> Port:
    name, port = next(iter(entry.ports.items()))
    return find_port(host, name, port)


def _carries(host: Host, interface: str) -> int:
    return int(host.read_text(f"/sys/class/net/{interface}/mtu"))
