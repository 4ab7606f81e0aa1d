"""The kernels of emulated hosts see their ports only once the lab is up.

A chip's configuration is in the chip's process, and in no saved state of the machine.  So a machine
removes its port as it boots, its state is saved without the port, and a scan of the bus finds the
port afterwards.
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from functools import partial

from harness.remote import Host, connect
from harness.topology import HostEntry, Topology
from harness.waiting import wait_for

FOUND_SECONDS = 60


def plug_ports(topology: Topology) -> None:
    """Have every host look for its ports, and return when each has its interface."""

    def plug_one(name: str) -> None:
        with connect(name, topology.connection(name)) as host:
            host.write_text("/sys/bus/pci/rescan", "1")
            _wait_for_interfaces(host, topology.hosts[name])

    looking = ThreadPoolExecutor()
    try:
        list(looking.map(plug_one, topology.hosts))
    finally:  # after Ctrl-C nobody waits for a login; it ends with the machine
        looking.shutdown(wait=False, cancel_futures=True)


def _wait_for_interfaces(host: Host, entry: HostEntry) -> None:
    for port in entry.ports.values():
        folder = f"/sys/bus/pci/devices/{port.pci}/net"
        wait_for(
            f"{host.name}: an interface of {port.pci}",
            partial(host.exists, folder),
            within=FOUND_SECONDS,
            fix="see the kernel log of that host, and the log of its chip beside it in /run",
        )
