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
    """What came of migrations so far.

    *lost* guests, *compared* memories, and pages that *differed* in those; *lost_compared* and
    *lost_differed* are the part of them that belongs to guests that were lost.
    """

    lost: int = 0
    compared: int = 0
    differed: int = 0
    lost_compared: int = 0
    lost_differed: int = 0

    @property
    def words(self) -> str:
        of_lost = f"{self.lost_differed} in the {self.lost_compared} that lost their guest"
        of_all = f"pages differed: {self.differed} in the {self.compared} that were compared"
        return f"{self.lost}; {of_all}, {of_lost}"


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
            _move(guest, number, tally, kept, say)
    minutes = (time.monotonic() - began) / 60
    return Row(
        what,
        tally.words,
        "none",
        f"failover under {FRAME_BYTES}-byte round trips, memory compared; {minutes:.0f} minutes",
    )


def _move(
    guest: MovingGuest, number: int, tally: _Tally, kept: Path, say: Callable[[str], None]
) -> None:
    flow = Flow(f"losing-{number}", "round-trip", FRAME_BYTES, PPS, 1000 + number)
    _, is_lost, memory = moved(guest, flow, kept, compare_memory=True)
    tally.lost += is_lost
    if memory:
        tally.compared += 1
        tally.differed += memory["differ"]
    if memory and is_lost:
        tally.lost_compared += 1
        tally.lost_differed += memory["differ"]
    if is_lost:
        say(f"lost: {guest.machine.lost}; {memory.get('page_frames', 'memory not compared')}")
