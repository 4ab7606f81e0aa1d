"""The first login to an emulated host sets its clock and has its kernel find its ports.

A chip's configuration is in the chip's process, and in no saved state of the machine.  So a machine
removes its port as it boots, its state is saved without the port, and a scan of the bus finds the
port afterwards.  The wall clock of a machine that was resumed stands where its state was taken.
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

    The hosts' agents are not started for that: Python alone takes seconds to start on a machine
    that has just been resumed.  The clocks of *resumed* hosts are set by this machine's, to within
    the time that a command takes.  Raises RemoteError, and WaitError for a port without interface.
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
    finally:  # after Ctrl-C nobody waits for a login; it ends with the machine
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
        fix="see the kernel log of that host, and the log of its chip beside it in /run",
    )
