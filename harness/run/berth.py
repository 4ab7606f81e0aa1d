"""A host lends a guest that is to move a way to the wire, and VFs of either provider."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass

from harness.errors import UsageError
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
    """A host lends the guest a tap for its standby and a VF, as far as the guest is to have them.

    *spare* is another VF of the same port, for a guest that is to be given two.
    """

    host: str
    tap: str | None
    vf: Vf | None
    spare: Vf | None


@contextmanager
def berth_on(
    lab: Lab, name: str, spec: GuestSpec, *, vfs: int, port: str | None
) -> Iterator[Berth]:
    """Lend a guest such as *spec* a berth on host *name*, with none, one or two VFs.

    The VFs are those of the host's port called *port*, which is None for a host that lends twins.
    """
    host, entry = lab.hosts[name], lab.topology.hosts[name]
    with ExitStack() as stack:
        interface = stack.enter_context(_way_out(host, entry, port, mtu=spec.mtu))
        stack.enter_context(bridged(host, interface, mtu=_carries(host, interface)))
        standby = spec.standby or not vfs
        wire = stack.enter_context(tap(host, STANDBY, mtu=spec.mtu)) if standby else None
        lent = stack.enter_context(_vfs(lab, name, vfs, port, mtu=spec.mtu)) if vfs else ()
        vf, spare, *_ = (*lent, None, None)
        yield Berth(name, wire, vf, spare)


@contextmanager
def _way_out(host: Host, entry: HostEntry, port_name: str | None, *, mtu: int) -> Iterator[str]:
    """Have the interface up that leads to the wire: the port's, or that of the host's twins."""
    if entry.twin:
        with interface_up(host, entry.twin.interface):
            yield entry.twin.interface
        return
    port = _port(host, entry, port_name)
    with port_up(port, mtu=mtu):
        yield port.interface


@contextmanager
def _vfs(lab: Lab, name: str, count: int, port: str | None, *, mtu: int) -> Iterator[Sequence[Vf]]:
    """Lend *count* VFs, from whichever provider the host has."""
    host, entry = lab.hosts[name], lab.topology.hosts[name]
    if entry.twin:
        with twins(
            host, entry.twin, count, port_mtu=mtu, wire_mtu=_carries(host, entry.twin.interface),
            capabilities=lab.topology.capabilities,
        ) as lent:  # fmt: skip
            yield lent
        return
    with virtual_functions(_port(host, entry, port), count) as made:
        yield made


def _port(host: Host, entry: HostEntry, name: str | None) -> Port:
    if name is None:
        raise UsageError(
            f"{host.name}: no port of it is in use, and it lends no twins",
            because="a guest moves between ports of both hosts that are on the peer's link",
            fix='mark the test `needs("vf")`, and see `links` in the topology',
        )
    return find_port(host, name, entry.ports[name])


def _carries(host: Host, interface: str) -> int:
    return int(host.read_text(f"/sys/class/net/{interface}/mtu"))
