"""Guests that a migration loses: they do not run on at their destination, and QEMU says completed.

KVM inside TCG runs the guests of emulated hosts; ``kicked`` shows what loses them.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from bench.migrating import moved
from bench.rows import Row
from harness.run.lab import Lab
from harness.run.moving import MovingGuest
from harness.traffic.flow import Flow

MIGRATIONS = 100
FRAME_BYTES, PPS = 9014, 100


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
        of_all = f"pages differed: {self.differed} in the {self.compared} that were compared"
        of_lost = f"{self.lost_differed} in the {self.lost_compared} of these that lost their guest"
        return f"{self.lost}; {of_all}, {of_lost}"


def losing(lab: Lab, guest: MovingGuest, kept: Path, say: Callable[[str], None]) -> list[Row]:
    """Migrations of *guest* there and back."""
    name, tally, began = lab.topology.name, _Tally(), time.monotonic()
    for number in range(MIGRATIONS):
        say(f"{name}: {number + 1} of {MIGRATIONS}, {tally.lost} lost")
        _move(guest, number, tally, kept, say)
    minutes = (time.monotonic() - began) / 60
    how = f"failover under {FRAME_BYTES}-byte round trips, memory compared; {minutes:.0f} minutes"
    return [Row(f"guests lost in {MIGRATIONS} migrations, lab {name}", tally.words, "none", how)]


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
