"""A lab in use: every host connected, leased and checked; given back as it was."""

from __future__ import annotations

import getpass
import os
import socket
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass

from harness.analysis.verdict import Limits
from harness.errors import UsageError
from harness.guest.spec import GuestImage
from harness.host.preflight import check, preflight, preflight_peer
from harness.host.snapshot import snapshot
from harness.host.software_vf import SoftwareVf
from harness.host.twin import Twin
from harness.host.vf import Vf
from harness.remote import Host, connect
from harness.together import together
from harness.topology import PEER, Topology

Progress = Callable[[str], None]

LEASE_SECONDS = 900
"""Longer than anything that is done between two renewals, a migration itself apart."""


@dataclass(frozen=True, slots=True)
class Lab:
    """*hosts* by name in the order of the topology, the *peer*, and the *guest* image."""

    topology: Topology
    hosts: dict[str, Host]
    peer: Host
    guest: GuestImage
    progress: Progress
    chip_vf: Callable[[Vf], SoftwareVf | None] = lambda _: None
    """A function that finds the VF of a software chip; None for a VF of another port."""

    @property
    def machines(self) -> tuple[Host, ...]:
        """The hosts in the order of the topology, then the peer."""
        return (*self.hosts.values(), self.peer)

    def software_of(self, vf: Vf | None) -> SoftwareVf | None:
        """Return the device of *vf* where that is a program; None for hardware, or without a VF."""
        if vf is None:
            return None
        return vf if isinstance(vf, Twin) else self.chip_vf(vf)

    def device(self, vf: Vf | None) -> SoftwareVf:
        """Return the device of *vf*, which is a program.  Raises UsageError if it is not."""
        found = self.software_of(vf)
        if found is None:
            whose = f"VF {vf.name} of {vf.host.name} is not in software" if vf else "there is no VF"
            raise UsageError(
                f"lab {self.topology.name!r}: {whose}",
                because="no program can be asked what it wrote, or told to misbehave",
                fix='mark the test `needs("software-vf")`',
            )
        return found

    @property
    def limits(self) -> Limits:
        """What a migration may take in this lab, as its topology says."""
        return limits_of(self.topology)

    def renew(self, longer_s: float = 0) -> None:
        """Keep the leases for LEASE_SECONDS from now, and for what a large guest needs beyond.

        Done before each boot and migration.
        """
        for machine in self.machines:
            machine.lease.renew(LEASE_SECONDS + longer_s)

    def pair(self) -> tuple[str, str]:
        """Names of the two hosts that a guest moves between."""
        names = list(self.hosts)
        if len(names) < 2:
            raise UsageError(
                f"lab {self.topology.name!r} has one host",
                because="a migration needs two",
                fix='mark the test `needs("two-hosts")`',
            )
        return names[0], names[1]


def limits_of(topology: Topology) -> Limits:
    """Return what a migration may take in the lab of *topology*."""
    limits = topology.limits
    return Limits(
        longest_outage_ms=limits.longest_outage_ms,
        total_outage_ms=limits.total_outage_ms,
        lost=limits.lost,
        sender_late_max_ms=limits.sender_late_max_ms,
        clock_uncertainty_ms=limits.clock_uncertainty_ms,
    )


@contextmanager
def taken(
    topology: Topology,
    guest: GuestImage,
    progress: Progress,
    chip_vf: Callable[[Vf], SoftwareVf | None] = lambda _: None,
) -> Iterator[Lab]:
    """The lab for this process alone; all hosts and the peer, or none.

    A machine whose lease lingers at the end is left as it is.  Raises LabBusy, LabError for a host
    that cannot be used, and at the end RestoreError for one that is not as it was.
    """
    if topology.peer is None:
        raise UsageError(
            f"lab {topology.name!r} has no peer",
            because=f"{topology.file} has no [peer]; nobody would send or receive the frames",
            fix="describe the machine at the other end of the wire",
        )
    with ExitStack() as stack:
        progress(f"connecting to {', '.join([*topology.hosts, PEER])}")
        *reached, peer = stack.enter_context(
            together(_connected(name, topology) for name in (*topology.hosts, PEER))
        )
        hosts = dict(zip(topology.hosts, reached, strict=True))
        for machine in (*hosts.values(), peer):
            stack.enter_context(_leased(machine))
        used = {name: topology.host_in_use(name) for name in hosts}
        faults = [(name, preflight(host, used[name])) for name, host in hosts.items()]
        faults.append((PEER, preflight_peer(peer, topology.peer, mtu=topology.guest.mtu)))
        check(faults)
        before = [snapshot(host, used[name]) for name, host in hosts.items()]
        yield Lab(topology, hosts, peer, guest, progress, chip_vf)
        for host, was in zip(hosts.values(), before, strict=True):
            if not host.lease.lingers:
                was.check_same(snapshot(host, used[host.name]))


@contextmanager
def _connected(name: str, topology: Topology) -> Iterator[Host]:
    """Log in to a machine on the way in, so that `together` does it in that machine's thread."""
    with connect(name, topology.connection(name)) as host:
        yield host


@contextmanager
def _leased(host: Host) -> Iterator[None]:
    host.lease.take(holder(), LEASE_SECONDS)
    yield
    if not host.lease.lingers:
        host.lease.give_back()  # not after an error: then the agent itself undoes what is pending


def holder() -> str:
    """Who we are, for whoever finds a host lent."""
    return f"{getpass.getuser()}@{socket.gethostname()} (pid {os.getpid()})"
