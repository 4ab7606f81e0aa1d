"""Guests that a migration loses, and what KVM on the hosts can be told about that.

KVM inside TCG runs a guest of an emulated host.  Some guests do not run on at their destination
though QEMU says ``completed`` there.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from bench.migrating import moved
from bench.rows import Row
from harness.analysis.measured import MEMORY_COMPARED
from harness.errors import GuestError
from harness.guest.spec import GuestSpec
from harness.lab.chip_vf import chip_vf
from harness.lab.use import ready
from harness.run.lab import taken
from harness.run.moving import MovingGuest, moving_guest
from harness.topology import Topology, find, load
from harness.traffic.flow import Flow

MIGRATIONS, TRIED = 100, 40
FRAME_BYTES, PPS = 9014, 100
_UNLOAD = "modprobe -r kvm-amd kvm"
AS_IT_IS, ONE_THREAD = "as the lab is", "one processor, so TCG has one thread"
TRIALS = {
    "kvm tdp_mmu=0": f"{_UNLOAD} && modprobe kvm tdp_mmu=0 && modprobe kvm-amd",
    "kvm-amd npt=0": f"{_UNLOAD} && modprobe kvm-amd npt=0",
    "no huge pages": "echo never > /sys/kernel/mm/transparent_hugepage/enabled",
    ONE_THREAD: "true",
}
"""Each trial has a name, and a command that every host runs before it gets a guest."""


@dataclass(slots=True)
class _Tally:
    lost: int = 0
    compared: int = 0
    """Migrations after which both memories were compared."""
    differed: int = 0
    """Pages that were not the same on both sides, of all those migrations together."""


def losing(name: str, kept: Path, say: Callable[[str], None]) -> list[Row]:
    """Migrations there and back on the lab of that name, as it is."""
    return [_row(load(find(name)), AS_IT_IS, MIGRATIONS, kept, say)]


def trials(kept: Path, say: Callable[[str], None]) -> list[Row]:
    """Migrations on the default lab with each trial."""
    topology = load(find("emulated"))
    assert topology.emulation is not None
    one = topology.emulation.model_copy(update={"host_cpus": 1})
    single = topology.model_copy(update={"emulation": one})
    return [
        _row(single if trial == ONE_THREAD else topology, trial, TRIED, kept, say)
        for trial in TRIALS
    ]


def _row(
    topology: Topology, trial: str, migrations: int, kept: Path, say: Callable[[str], None]
) -> Row:
    name, tally, began = topology.name, _Tally(), time.monotonic()
    what = f"guests lost in {migrations} migrations, lab {name}, {trial}"
    with (
        ready(topology, say) as (reached, image),
        taken(reached, image, say, partial(chip_vf, topology)) as lab,
        ExitStack() as stack,
    ):
        if trial in TRIALS:
            for host in lab.hosts.values():
                host.run("sh", "-c", TRIALS[trial])
        try:
            spec = GuestSpec.of(topology.guest)
            guest = stack.enter_context(moving_guest(lab, spec, kept, vfs=1))
        except GuestError as silent:
            return Row(
                what, "no guest comes up", "none", f"{silent.what}, as often as the lab tries"
            )
        for number in range(migrations):
            say(f"{name}, {trial}: {number + 1} of {migrations}, {tally.lost} lost")
            _move(guest, number, tally, kept)
    minutes = (time.monotonic() - began) / 60
    return Row(
        what,
        f"{tally.lost}; {tally.differed} pages differed in the {tally.compared} whose memory was "
        "compared",
        "none",
        f"failover under {FRAME_BYTES}-byte round trips, memory compared; {minutes:.0f} minutes",
    )


def _move(guest: MovingGuest, number: int, tally: _Tally, kept: Path) -> None:
    flow = Flow(f"losing-{number}", "round-trip", FRAME_BYTES, PPS, 1000 + number)
    conducted, is_lost = moved(guest, flow, kept, compare_memory=True)
    tally.lost += is_lost
    events = conducted.measured.events if conducted else ()
    for compared in (each for each in events if each.name == MEMORY_COMPARED):
        tally.compared += 1
        tally.differed += compared.data["differ"]
