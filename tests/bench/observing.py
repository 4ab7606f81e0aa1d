"""The observer: how often it samples, and whether it delays what it observes."""

from __future__ import annotations

import random
import statistics
from collections.abc import Callable, Sequence
from pathlib import Path

from bench.rows import Row
from harness.migration.conductor import Conducted
from harness.migration.raw import Raw
from harness.run.moving import MovingGuest
from harness.topology import Topology
from harness.traffic.flow import Flow

PAIRS = 10
SHUFFLES = 10_000


def observing(
    topology: Topology, guest: MovingGuest, kept: Path, say: Callable[[str], None]
) -> list[Row]:
    """Migrations in turn with and without an observer: the time that the unplug takes.

    What was said in the last one is in *kept*.  The first from either host translates the code that
    it runs there, and is not counted.
    """
    unplug_ms: dict[bool, list[float]] = {True: [], False: []}
    rates, gaps_ms = [], []
    for number in range(-2, 2 * PAIRS):
        observe = number % 8 in (0, 1, 6, 7)  # so that each is seen in both directions, and first
        say(f"migrating {'with' if observe else 'without'} an observer")
        flow = Flow(f"observer-{number}", "round-trip", 64, topology.limits.rate_pps, 950 + number)
        raw = Raw()
        try:
            conducted = guest.migrate([flow], raw, observe=observe)
        finally:
            raw.write(kept)
        if number < 0:
            continue
        unplug_ms[observe].append(_unplug_ms(conducted))
        if observe:
            observer = raw.seen[0].observer
            rates.append(observer["rate_per_s"])
            gaps_ms.append(observer["longest_gap_ms"])
    with_ms, without_ms = (statistics.median(unplug_ms[observe]) for observe in (True, False))
    by_chance_ms = _apart_by_chance(unplug_ms[True], unplug_ms[False])
    return [
        Row(
            "BME samples on an emulated host while its guest is unplugged and moved",
            f"{statistics.median(rates):.0f} a second, longest gap {max(gaps_ms):.0f} ms",
            "200 a second or more",
            f"median of {PAIRS} migrations; the gap is the kernel resetting the function",
        ),
        Row(
            "unplug with an observer against without",
            f"{with_ms:.0f} ms against {without_ms:.0f} ms: {with_ms - without_ms:+.0f} ms"
            + ("" if abs(with_ms - without_ms) <= by_chance_ms else ", **not reached**"),
            f"within noise: {by_chance_ms:.0f} ms or less apart",
            f"medians of {PAIRS} each, in turn, from UNPLUG_PRIMARY to the VF gone inside the "
            f"guest; noise is what 95 of 100 random divisions of all {2 * PAIRS} stay within",
        ),
    ]


def _apart_by_chance(one: Sequence[float], other: Sequence[float]) -> float:
    """How far apart medians are, at the most, in 95 of 100 random divisions of all figures."""
    chance = random.Random(1)
    figures = [*one, *other]
    apart = []
    for _ in range(SHUFFLES):
        chance.shuffle(figures)
        halves = figures[: len(one)], figures[len(one) :]
        apart.append(abs(statistics.median(halves[0]) - statistics.median(halves[1])))
    return sorted(apart)[int(0.95 * SHUFFLES)]


def _unplug_ms(conducted: Conducted) -> float:
    events = conducted.measured.events
    asked = next(event for event in events if event.name == "UNPLUG_PRIMARY")
    gone = next(
        event
        for event in events
        if event.source == "guest" and event.name.endswith(" gone") and event.t_ns > asked.t_ns
    )
    return (gone.t_ns - asked.t_ns) / 1e6
