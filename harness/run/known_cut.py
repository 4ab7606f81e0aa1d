"""A flow's way is cut for a time that is measured here, which makes a known outage."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Protocol

from harness.analysis.measured import Measured, MeasuredFlow, QemuFigures
from harness.analysis.scheme import SchemeRecord
from harness.migration.experiment import measured_flow
from harness.report.entry import migration_result
from harness.run.moving import MovingGuest
from harness.traffic.flow import Flow
from harness.traffic.running import start
from harness.waiting import let_pass

STAYS = SchemeRecord(name="none", trigger=None, vf="none", phases=())
"""The record of a guest that does not move has no phases."""

UNDISTURBED_S = 1.0
"""How long the flow runs before and after the cut."""


class Severable(Protocol):
    """A flow's way that can be cut: the peer's way out, or an emulated wire."""

    def cut(self) -> None:
        """Let no frame pass from the moment on when this returns."""

    def mend(self) -> None:
        """Let frames pass from the moment on when this returns."""


@dataclass(frozen=True, slots=True)
class Cut:
    """The way was cut for *known_ms*, give or take *doubt_ms*.

    *longest_ms* is the longest outage and *outages* their number, as results.json would say.
    """

    known_ms: float
    doubt_ms: float
    longest_ms: float
    interval_ms: float
    outages: int


def cut_under(way: Severable, guest: MovingGuest, flow: Flow, *, milliseconds: int) -> Cut:
    """Cut *way* for about *milliseconds* while *flow*, a round trip, runs through it to *guest*."""
    ends = guest.ends()
    with start(flow, ends.peer_end, ends.guest_end) as running:
        let_pass(UNDISTURBED_S)
        cutting_ns = time.monotonic_ns()
        way.cut()
        cut_ns = time.monotonic_ns()
        let_pass(milliseconds / 1000)
        mending_ns = time.monotonic_ns()
        way.mend()
        mended_ns = time.monotonic_ns()
        let_pass(UNDISTURBED_S)
        raw = measured_flow(running.stop())
    (reported,) = migration_result(_without_migration(raw, cut_ns)).migration.flows
    assert reported.longest_outage_ms is not None, "the flow came back: its way was mended"
    return Cut(
        known_ms=((mending_ns + mended_ns) - (cutting_ns + cut_ns)) / 2e6,
        doubt_ms=((cut_ns - cutting_ns) + (mended_ns - mending_ns)) / 2e6,
        longest_ms=reported.longest_outage_ms,
        interval_ms=raw.interval_ns / 1e6,
        outages=len(reported.outages),
    )


def _without_migration(flow: MeasuredFlow, cut_ns: int) -> Measured:
    """Return the flow of a guest that did not move, as the report takes a flow."""
    return Measured(
        scheme=STAYS, source="here", destination="here", status="none",
        reason=None, qemu=QemuFigures(), asked_ns=cut_ns, events=(), bme=(), flows=(flow,),
    )  # fmt: skip
