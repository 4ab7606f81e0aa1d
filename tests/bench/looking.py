"""How fast memory is digested, and how well the clocks of several machines are one timeline."""

from __future__ import annotations

import os
import statistics
import tempfile
from collections.abc import Callable
from pathlib import Path

from bench.rows import Row
from harness.agent.memory_digest import digest, speeds
from harness.analysis.measured import Event
from harness.guest.memory import digest_speeds
from harness.host.changes import changed_back
from harness.migration.clocks import read_clocks
from harness.migration.raw import Raw
from harness.migration.schemes.failover import Failover
from harness.remote import Host, connect
from harness.run.lab import Lab
from harness.run.moving import MovingGuest
from harness.topology import Connection
from harness.traffic.flow import Flow
from harness.waiting import wait_for

GIB = 1 << 30
TIMES = 3


def looking(lab: Lab, guest: MovingGuest, kept: Path, say: Callable[[str], None]) -> list[Row]:
    """Rows of both; what was said in the migration that is made for them is in *kept*."""
    host = next(iter(lab.hosts.values()))
    say("digesting a gibibyte here")
    here, here_s = _digested_here()
    say(f"digesting a gibibyte on {host.name}")
    there, there_s = _digested_on(host)
    say("migrating, for the uncertainty of its timeline")
    flow = Flow("timeline", "round-trip", 64, lab.topology.limits.rate_pps, 990)
    raw = Raw()
    try:
        events = guest.migrate([flow], raw, by=Failover()).measured.events
    finally:
        raw.write(kept)
    return [
        _digest_row("this machine", here, here_s, "1 GB/s or more"),
        _digest_row(f"an emulated host ({host.facts.kernel})", there, there_s, "-"),
        Row(
            "uncertainty of a timeline over emulated hosts",
            f"{max(map(_by_clocks_ms, events)):.2f} ms at the most",
            "5 ms or less",
            f"{len(events)} events of one migration, guest and both hosts in the peer's clock; "
            "without the time for which nobody looked",
        ),
        Row(
            "uncertainty between two processes of this machine",
            f"{_between_processes_ms():.3f} ms",
            "0.1 ms or less",
            "our clock against that of an agent on this machine, which is the same one",
        ),
    ]


def _digest_row(where: str, name: str, seconds: float, should: str) -> Row:
    return Row(
        f"digest of 1 GiB of guest memory, page by page, on {where}",
        f"{seconds:.2f} s, {GIB / seconds / 1e9:.2f} GB/s with {name}",
        should,
        f"median of {TIMES}, one processor; {name} is the faster of two there",
    )


def _digested_here() -> tuple[str, float]:
    found = speeds()
    name = max(found, key=lambda each: found[each])
    descriptor = os.memfd_create("ram")
    try:
        for _ in range(GIB // (64 << 20)):
            os.write(descriptor, os.urandom(64 << 20))
        with tempfile.TemporaryDirectory() as folder:
            path = f"{folder}/digests"
            took = [digest(os.getpid(), path, name, name="ram")["seconds"] for _ in range(TIMES)]
    finally:
        os.close(descriptor)
    return name, statistics.median(took)


_HOLD = """
import ctypes, mmap, random, signal, sys
memory = mmap.mmap(-1, int(sys.argv[1]), flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
piece = random.randbytes(1 << 20)
for at in range(0, len(memory), len(piece)):
    memory[at : at + len(piece)] = piece
address = ctypes.addressof(ctypes.c_char.from_buffer(memory))
open(sys.argv[2], "w").write(str(address))
signal.pause()
"""


def _digested_on(host: Host) -> tuple[str, float]:
    found = digest_speeds(host)
    name = max(found, key=lambda each: found[each])
    told = host.scratch("held")
    if host.exists(told):
        host.unlink(told)  # of a run that broke off; that process has ended
    with changed_back(host):
        argv = ["python3", "-c", _HOLD, str(GIB), told]
        process = host.spawn(argv, log=host.scratch("held.log"), what="memory to digest")
        address = wait_for(
            f"{host.name}: a gibibyte to be filled",
            lambda: host.read_text(told) if host.exists(told) else "",
            within=120,
        )
        path = host.scratch("held.digests")
        where = {"address": int(address), "size": GIB}
        took = [
            host.ask(
                "memory.digest", seconds=120, pid=process.pid, path=path, digest=name, **where
            )["seconds"]
            for _ in range(TIMES)
        ]
    return name, statistics.median(took)


def _by_clocks_ms(event: Event) -> float:
    return (event.uncertainty_ns - event.gap_ns) / 1e6


def _between_processes_ms() -> float:
    way = Connection(
        name="here", transport="local", address="localhost", port=22, user="root",
        identity=None, known_hosts=None, namespace=None,
    )  # fmt: skip
    with connect("here", way) as here:
        return read_clocks(here).monotonic.uncertainty_ns / 1e6
