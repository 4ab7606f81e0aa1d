"""The table that answers the seed: what each order of stopping, marking and copying came to."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from harness.analysis.measured import (
    IN_PLACE,
    MARKED,
    MARKING_REFUSED,
    MEMORY_COMPARED,
    NOT_TAKEN_UP,
)
from harness.analysis.phases import NAMES
from harness.migration.plan import between
from harness.report.results import Migration, Results
from harness.report.words import duration, felt_in

STOPS = {
    "nothing": "nothing",
    "link-down": "link down in the guest",
    "unbind": "driver unbound",
    "device-suspend": "driver's suspend alone",
    "acpi-suspend": "suspend to RAM (ACPI)",
    "bme-cleared": "BME cleared by the host",
}
MARKS = {
    "none": "never",
    "before": "before the stop",
    "after": "after the stop",
    "as-written": "with each write, by QEMU",
}


@dataclass(frozen=True, slots=True)
class InplaceRow:
    """One migration of a guest with its VF, written out; *key* is its section's."""

    key: str
    stopped: str
    when: str
    marked: str
    lost_pages: str
    all_kept: bool
    explained: str
    lost_frames: int
    outages: str
    bme: str
    afterwards: str


def inplace_rows(results: Results, keys: Mapping[int, str]) -> list[InplaceRow]:
    """A row for each, those that lost the most pages first; *keys* by the migration's ``id()``."""
    found = [
        (migration, plan, pages)
        for case in results.tests
        for migration in case.migrations
        if (plan := _data(migration, IN_PLACE)) and (pages := _data(migration, MEMORY_COMPARED))
    ]
    found.sort(key=lambda each: -int(each[2]["differ"]))
    return [_row(*each, key=keys.get(id(each[0]), "")) for each in found]


def _row(migration: Migration, plan: Any, pages: Any, *, key: str) -> InplaceRow:
    return InplaceRow(
        key=key,
        stopped=STOPS.get(plan["quiesce"], plan["quiesce"]),
        when=str(plan["when"]),
        marked=_marked(migration, plan),
        lost_pages=f"{pages['differ']} of {pages['pages']}",
        all_kept=pages["differ"] == 0,
        explained=_explained(pages),
        lost_frames=sum(flow.lost for flow in migration.flows),
        outages=_outages(migration),
        bme=_bme(migration),
        afterwards=_afterwards(migration),
    )


def _data(migration: Migration, name: str) -> dict[str, Any] | None:
    """The data of the last event of that name."""
    return next((e.data for e in reversed(migration.events) if e.name == name), None)


def _marked(migration: Migration, plan: Mapping[str, Any]) -> str:
    if (refused := _data(migration, MARKING_REFUSED)) is not None:
        return f"refused: {refused['text']}"
    words = MARKS.get(plan["marking"], str(plan["marking"]))
    words += between(plan["passes"], plan["gap_s"])
    marked = _data(migration, MARKED)
    return f"{words} ({marked['pages']} pages)" if marked else words


def _explained(pages: Mapping[str, Any]) -> str:
    """What the device's log and QEMU's trace of its copies say of the pages that are lost."""
    if not pages["differ"]:
        return ""
    unexplained = len(pages["unexplained"])
    if unexplained:
        return f"{unexplained} were not written by the device after their last copy"
    must, may = pages["must_differ"], pages["may_differ"]
    predicted = str(must) if must == may else f"{must} to {may}"
    return f"all written by the device after their last copy; predicted: {predicted}"


def _outages(migration: Migration) -> str:
    told = ((phase, felt_in(migration, phase)) for phase in NAMES)
    return ", ".join(f"{phase} {length}" for phase, length in told if length)


def _bme(migration: Migration) -> str:
    """How BME of the source's VF went."""
    samples = sorted(
        (s for s in migration.bme if s.host == migration.source), key=lambda sample: sample.t_ms
    )
    if not samples:
        return "not seen"
    fell = next((s for s in samples if not s.bme), None)
    return "stays 1" if fell is None else f"0 at {fell.t_ms / 1e3:+.2f} s"


def _afterwards(migration: Migration) -> str:
    """Whether the VF carries frames at its destination, and since when."""
    if any(flow.longest_outage_ms is None for flow in migration.flows):
        never = _data(migration, NOT_TAKEN_UP) is not None
        return "dead: no driver set it up there" if never else "dead, though set up there"
    ends = [o.end_ms for flow in migration.flows for o in flow.outages if o.end_ms is not None]
    resumed = [e.t_ms for e in migration.events if e.name == "RESUME"]
    if not ends or not resumed:
        return "carries frames"
    return f"back {duration(max(max(ends) - max(resumed), 0))} after the guest ran on"
