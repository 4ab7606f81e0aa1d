"""A migration's figures as the words and numbers that people read."""

from __future__ import annotations

from harness.analysis.marks import RELEASED
from harness.analysis.measured import (
    DEVICE_WROTE,
    DIGESTED,
    ECHOES,
    MEMORY_COMPARED,
    MIGRATE_REFUSED,
)
from harness.report.results import Flow, Migration, Outage

DIRECTIONS = {
    "round-trip": "round trip",
    "to-guest": "to guest",
    "from-guest": "from guest",
}


def duration(ms: float) -> str:
    """Write a length as people read it: 0.4 ms, 224 ms, 6.25 s."""
    if ms < 9.95:
        return f"{ms:.1f} ms"
    return f"{ms:.0f} ms" if ms < 999.5 else f"{ms / 1e3:.2f} s"


def longest_outage(migration: Migration) -> tuple[Flow, Outage] | None:
    """Find what its users felt: the longest outage of all flows, an open one above any other."""
    found = [(flow, outage) for flow in migration.flows for outage in flow.outages]
    return max(found, key=lambda pair: _weight(pair[1]), default=None)


def felt(migration: Migration) -> str:
    """Write the length of the longest outage that users felt."""
    found = longest_outage(migration)
    return "none" if found is None else length(found[1])


def felt_in(migration: Migration, phase: str) -> str:
    """Write the longest outage that began in *phase*; empty if there was none."""
    found = [o for flow in migration.flows for o in flow.outages if o.phase == phase]
    return length(max(found, key=_weight)) if found else ""


def length(outage: Outage) -> str:
    """Write how long an outage was."""
    return "never came back" if outage.length_ms is None else duration(outage.length_ms)


def in_all(flow: Flow) -> str:
    """Write the sum of a flow's outages."""
    return "never came back" if flow.total_outage_ms is None else duration(flow.total_outage_ms)


def lost_by_way(migration: Migration) -> tuple[int, int, int] | None:
    """How many round trips were lost on the way to the guest, in it, and on the way back.

    None where the guest's own count is missing, or cannot tell: frames came back twice, or somebody
    else sent requests too.
    """
    flows = [flow for flow in migration.flows if flow.direction == "round-trip"]
    counted = [event.data for event in migration.events if event.name == ECHOES]
    if not flows or not counted or any(flow.duplicated for flow in flows):
        return None
    requests, replies = counted[-1]["requests"], counted[-1]["replies"]
    there = sum(flow.sent for flow in flows) - requests
    back = replies - sum(flow.received for flow in flows)
    ways = (there, requests - replies, back)
    return ways if min(ways) >= 0 else None


def ratio(migration: Migration) -> str | None:
    """Write how many times longer users felt it than QEMU says; None where that means nothing."""
    found, downtime_ms = longest_outage(migration), migration.qemu.downtime_ms
    if found is None or found[1].length_ms is None or not downtime_ms:
        return None
    return f"\u00d7 {found[1].length_ms / downtime_ms:.2g}"


def refusal(migration: Migration) -> str:
    """Write why QEMU would not begin, in its own words; empty if it did."""
    said = [event.data["text"] for event in migration.events if event.name == MIGRATE_REFUSED]
    return f"QEMU refused: {said[-1]}" if said else ""


def memory(migration: Migration) -> str:
    """Say what came of comparing memory and what that cost; empty where nobody compared."""
    events = {event.name: event.data for event in migration.events}
    if MEMORY_COMPARED not in events:
        return ""
    compared, took_ms = events[MEMORY_COMPARED], events[DIGESTED]["took_ms"]
    lost = f"{compared['differ']} of {compared['pages']} pages were lost"
    owned = ", ".join(f"{frame} ({owner})" for frame, owner in compared.get("owned", {}).items())
    others = f"; pages that the hypervisor writes by itself differ: {owned}" if owned else ""
    return (
        f"Memory was compared after the stop, which took {duration(took_ms)} of it: {lost}{others}."
    )


def device_log(migration: Migration) -> str:
    """Say what the source's VF wrote by its device's own log; empty where none is kept."""
    told = next((event for event in migration.events if event.name == DEVICE_WROTE), None)
    if told is None:
        return ""
    written, megabytes = told.data["writes"], told.data["bytes"] / 1e6
    if missed := told.data["not_logged"]:
        return f"The log of the source's VF had no room for {missed} accesses."
    if not written:
        return "By its own log the source's VF wrote nothing once the migration was asked for."
    released = next((event.t_ms for event in migration.events if event.name == RELEASED), None)
    ended = f"last at {told.t_ms:.1f} ms"
    if released is not None:
        side = "before" if told.t_ms <= released else "after"
        ended += f", {duration(abs(released - told.t_ms))} {side} the VF was seen released"
    wrong = told.data["misbehaved"]
    return (
        f"By its own log the source's VF wrote to the guest's memory {written} times "
        f"({megabytes:.1f} MB) from when the migration was asked for, {ended}; "
        f"{f'it wrote {wrong} times' if wrong else 'it never wrote'} without the right to."
    )


def headline(migration: Migration) -> str:
    """Say in one or two sentences what this migration did to its users."""
    found = longest_outage(migration)
    downtime_ms = migration.qemu.downtime_ms
    says = "" if downtime_ms is None else f" QEMU says {duration(downtime_ms)}."
    if refused := refusal(migration):
        says = f" {refused}."
    if found is None:
        return f"No outage in any flow.{says}"
    flow, outage = found
    if outage.length_ms is None:
        return f"Flow {flow.name} was cut off in {outage.phase} and never came back.{says}"
    times = ratio(migration)
    more = f" {says.strip()[:-1]} ({times})." if times else says
    return f"Users were cut off for {length(outage)}, beginning in {outage.phase}.{more}"


def error_bar(flow: Flow) -> str:
    """Write by how much the length of an outage of *flow* may be off.

    Each end is known to within the resolution.  Between sent frames an outage can only have been
    shorter than its row; a silence has its beginning guessed from the interval, either way.
    """
    if flow.direction == "from-guest":
        return f"\u00b1 {duration(flow.resolution_ms)}"
    return f"+0 / \u2212{duration(2 * flow.resolution_ms)}"


def _weight(outage: Outage) -> float:
    return float("inf") if outage.length_ms is None else outage.length_ms
