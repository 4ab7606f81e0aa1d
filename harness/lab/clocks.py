"""The wall clock of a machine that was resumed: it stands where its state was taken."""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor

from harness.remote import connect
from harness.topology import Topology


def set_clock(topology: Topology) -> None:
    """Set every host's wall clock by this machine's, to within the time that a command takes.

    All at once: logging in to an emulated host takes two seconds.
    """

    def set_one(name: str) -> None:
        with connect(name, topology.connection(name)) as host:
            host.run("date", "--utc", "--set", f"@{time.time():.3f}")

    logging_in = ThreadPoolExecutor()
    try:
        list(logging_in.map(set_one, topology.hosts))
    finally:  # after Ctrl-C nobody waits for a login; it ends with the machine
        logging_in.shutdown(wait=False, cancel_futures=True)
