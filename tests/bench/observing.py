"""The observer: how often it samples, and whether it delays what it observes."""

from __future__ import annotations

import random
import statistics
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from bench.rows import Row
from harness.migration.raw import Raw
from harness.migration.schemes.failover import Failover
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
    it runs there, and is not counted; neither is one whose guest the emulator loses.
    """
    unplug_ms: dict[bool, list[float]] = {True: [], False: []}
    rates, gaps_ms = [], []
    number, lost = -2, 0
    while number < 2 * PAIRS:
        observe = number % 8 in (0, 1, 6, 7)  # so that each is seen in both directions, and first
        say(f"migrating {'with' if observe else 'without'} an observer")
        flow = Flow(f"observer-{number}", "round-trip", 64, topology.limits.rate_pps, 950 + number)
        took_ms, observer = _unplug(guest, flow, kept, observe=observe)
        if took_ms is None:
            lost += 1
            say(f"its guest is lost ({lost} so far): once more")
            continue
        if number >= 0:
            unplug_ms[observe].append(took_ms)
        if number >= 0 and observe:
            rates.append(observer["rate_per_s"])
            gaps_ms.append(observer["longest_gap_ms"])
        number += 1
    with_ms, without_ms = (statistics.median(unplug_ms[observe]) for observe in (True, False))
    by_chance_ms = _apart_by_chance(unplug_ms[True], unplug_ms[False])
    return [
        Row(
            "BME samples on an emulated host while its guest is unplugged and moved",
            f"{statistics.median(rates):.0f} a second, longest gap {max(gaps_ms):.0f} ms",
            "200 a second or more",
            f"median of {PAIRS} migrations; the gap is the kernel resetting the function"
            f"; {lost} more lost their guest",
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


def _unplug(
    guest: MovingGuest, flow: Flow, kept: Path, *, observe: bool
) -> tuple[float | None, Mapping[str, Any]]:
    """How long it took in one migration, in ms, and what the observer says of itself.

    None for a guest that is lost at its destination: what it recorded is lost with it.
    """
    raw = Raw()
    try:
        events = guest.migrate([flow], raw, by=Failover(), observe=observe).measured.events
    finally:
        raw.write(kept)
    asked = next(event for event in events if event.name == "UNPLUG_PRIMARY")
    gone_ns = (
        event.t_ns
        for event in events
        if event.source == "guest" and event.name.endswith(" gone") and event.t_ns > asked.t_ns
    )
    first_ns = next(gone_ns, None)
    took_ms = None if first_ns is None else (first_ns - asked.t_ns) / 1e6
    return took_ms, raw.seen[0].observer if observe else {}
