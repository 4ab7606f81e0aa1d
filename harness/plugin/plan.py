"""What a run would change on which host, in words; from the topology alone."""

from __future__ import annotations

from collections.abc import Iterator

from harness.topology import Topology


def plan(topology: Topology, tests: int) -> Iterator[str]:
    """Lines for `--dry-run`."""
    if not tests:
        yield f"No test needs lab {topology.name!r} ({topology.file}); nothing would be changed."
        return
    those = f"{tests} test{'s' * (tests > 1)}"
    yield f"{those} of lab {topology.name!r} ({topology.file}) would, at most:"
    if topology.emulation:
        yield "  this machine: start the emulated lab unless it is up, and end it again"
    for name, host in topology.hosts.items():
        where = host.address or host.namespace
        yield f"  {name} ({where}): take its lease; then, each change journalled and undone:"
        used = topology.host_in_use(name).ports
        if len(used) > 1:
            yield f"    {', then '.join(used)}, one after another:"
        for port_name, port in host.ports.items():
            where = f"    {port_name} {port.pci}"
            if port_name not in used:
                yield f"{where}: unchanged: no other host has a port on the same link to the peer"
                continue
            yield f"{where}: up with MTU {topology.guest.mtu}, into bridge vfh0"
            yield f"{where}: sriov_numvfs 0 -> {port.vfs}, bound to vfio-pci;"
            yield f"{where}: down while they are taken back, and up again"
        if host.twin:
            where = f"    {host.twin.interface}"
            yield f"{where}: up, into bridge vfh0, and a twin with a tap of its own beside it"
        yield f"    start {host.qemu} with a guest of {topology.guest.memory_mib} MiB"
        yield f"    listen on TCP port {host.migration_port} while a guest migrates to it"
    if topology.peer:
        yield f"  peer: take its lease, send and receive frames on {topology.peer.interface}"
    yield "Nothing was changed."
