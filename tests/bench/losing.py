"""Guests that a migration loses, and what KVM on the hosts can be told about that.

KVM inside TCG runs a guest of an emulated host.  Some guests do not run on at their destination
though QEMU says ``completed`` there.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from bench.rows import Row
from harness.analysis.measured import MEMORY_COMPARED
from harness.errors import GuestError
from harness.guest.spec import GuestSpec
from harness.lab.use import ready
from harness.migration.raw import Raw
from harness.report.entry import migration_result
from harness.run.lab import taken
from harness.run.moving import MovingGuest, moving_guest
from harness.run.record import limits_of
from harness.topology import Topology, find, load
from harness.traffic.flow import Flow

MIGRATIONS, TRIED = 100, 40
FRAME_BYTES, PPS = 9014, 100
_UNLOAD = "modprobe -r kvm-amd kvm"
AS_IT_IS = "as the lab is"
TRIALS = {
    "kvm tdp_mmu=0": f"{_UNLOAD} && modprobe kvm tdp_mmu=0 && modprobe kvm-amd",
    "kvm-amd npt=0": f"{_UNLOAD} && modprobe kvm-amd npt=0",
    "no huge pages": "echo never > /sys/kernel/mm/transparent_hugepage/enabled",
}
"""Each trial has a name, and a command that every host runs before it gets a guest."""


@dataclass(slots=True)
class _Tally:
    lost: int = 0
    differed: int = 0
    """Pages that were not the same on both sides, of all migrations together."""


def losing(kept: Path, say: Callable[[str], None]) -> list[Row]:
    """Migrations there and back on both labs as they are, and with each trial."""
    rows = [_row(lab, AS_IT_IS, MIGRATIONS, kept, say) for lab in ("emulated", "emulated-82576")]
    return rows + [_row("emulated", trial, TRIED, kept, say) for trial in TRIALS]


def _row(name: str, trial: str, migrations: int, kept: Path, say: Callable[[str], None]) -> Row:
    topology, tally, began = load(find(name)), _Tally(), time.monotonic()
    with ready(topology, say) as (reached, image), taken(reached, image, say) as lab:
        if trial in TRIALS:
            for host in lab.hosts.values():
                host.run("sh", "-c", TRIALS[trial])
        with moving_guest(lab, GuestSpec.of(topology.guest), kept, vfs=1) as guest:
            for number in range(migrations):
                say(f"{name}, {trial}: {number + 1} of {migrations}, {tally.lost} lost")
                _move(guest, topology, number, tally, kept)
    minutes = (time.monotonic() - began) / 60
    return Row(
        f"guests lost in {migrations} migrations, lab {name}, {trial}",
        f"{tally.lost}; {tally.differed} pages differed",
        "none",
        f"failover under {FRAME_BYTES}-byte round trips, memory compared; {minutes:.0f} minutes",
    )


def _move(guest: MovingGuest, topology: Topology, number: int, tally: _Tally, kept: Path) -> None:
    flow = Flow(f"lost-{number}", "round-trip", FRAME_BYTES, PPS, 1000 + number)
    raw = Raw()
    try:
        conducted = guest.migrate([flow], raw, compare_memory=True)
    except GuestError:  # it serves its flows, and nobody can log in to it
        if not guest.machine.lost:
            raise
        tally.lost += 1
        raw.write(kept, suffix=f"-lost-{time.monotonic_ns()}")
        return
    entry = migration_result(conducted.measured, limits_of(topology)).migration
    tally.differed += sum(
        each.data["differ"] for each in conducted.measured.events if each.name == MEMORY_COMPARED
    )
    if entry.flows[0].longest_outage_ms is None:
        tally.lost += 1
        raw.write(kept, suffix=f"-lost-{time.monotonic_ns()}")
