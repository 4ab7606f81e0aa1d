"""The first login to an emulated host sets its clock and makes its kernel find its ports.

The process of a software chip has the configuration of its ports, and no saved state of a host has
that.  So a host removes its ports as it boots, the lab saves the host without the ports, and a scan
of the PCI bus finds the ports afterwards.  The wall clock of a resumed host shows the time of the
saved state.
"""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing

from harness.remote import Transport, log_in
from harness.topology import HostEntry, Topology
from harness.waiting import Deadline, wait_for

SECONDS, LOOK_SECONDS = 60, 10


def log_in_first(topology: Topology, *, resumed: bool) -> None:
    """Log in to all hosts at once; return when each port of each host has its interface.

    If *resumed*, the wall clocks of the hosts are set to that of this machine, late by the time
    that a command takes.  No agent is started, since Python takes seconds to start on a host that
    has just been resumed.  Raises RemoteError, and WaitError for a port without an interface.
    """

    def prepare(name: str) -> None:
        deadline = Deadline(SECONDS)
        with closing(log_in(name, topology.connection(name), deadline)) as host:
            if resumed:
                _run(host, deadline, "date", "--utc", "--set", f"@{time.time():.3f}")
            _run(host, deadline, "sh", "-c", "echo 1 > /sys/bus/pci/rescan")
            _wait_for_interfaces(host, topology.hosts[name], deadline)

    logging_in = ThreadPoolExecutor()
    try:
        list(logging_in.map(prepare, topology.hosts))
    finally:  # after Ctrl-C nobody waits for a login, which ends with the host
        logging_in.shutdown(wait=False, cancel_futures=True)


def _run(host: Transport, deadline: Deadline, *argv: str) -> None:
    host.run(argv, seconds=deadline.remaining).check()


def _wait_for_interfaces(host: Transport, entry: HostEntry, deadline: Deadline) -> None:
    folders = [f"/sys/bus/pci/devices/{port.pci}/net" for port in entry.ports.values()]
    wait_for(
        f"{host.host}: interfaces under {', '.join(folders)}",
        lambda: host.run(["ls", "-d", *folders], seconds=LOOK_SECONDS).stderr,
        within=deadline,
        until=lambda seen: not seen,
        fix="see the kernel log of that host, and the log of its chip in the lab's folder in /run",
    )
