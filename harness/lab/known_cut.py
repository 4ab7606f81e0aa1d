"""A known outage: the emulated wire is cut for a time that is measured here, under a flow."""

from __future__ import annotations

import time
from dataclasses import dataclass

from harness.analysis.measured import Measured, MeasuredFlow, QemuFigures
from harness.lab.emulated import wire_of
from harness.migration.conductor import measured_flow
from harness.report.entry import migration_result
from harness.run.moving import MovingGuest
from harness.topology import Topology
from harness.traffic.flow import Flow
from harness.traffic.running import start
from harness.waiting import let_pass

UNDISTURBED_S = 1.0
"""How long the flow runs before and after the cut."""


@dataclass(frozen=True, slots=True)
class Cut:
    """How long the wire was cut, give or take *doubt_ms*, and what results.json would say of it.

    *longest_ms* is the longest outage, *outages* how many there were.
    """

    known_ms: float
    doubt_ms: float
    longest_ms: float
    interval_ms: float
    outages: int


def cut_under(topology: Topology, guest: MovingGuest, flow: Flow, *, milliseconds: int) -> Cut:
    """Cut the peer off for about *milliseconds* while *flow*, a round trip, runs to *guest*."""
    wire, ends = wire_of(topology), guest.ends()
    with start(flow, ends.peer_end, ends.guest_end) as running:
        let_pass(UNDISTURBED_S)
        cutting_ns = time.monotonic_ns()
        wire.cut("peer")
        cut_ns = time.monotonic_ns()
        let_pass(milliseconds / 1000)
        mending_ns = time.monotonic_ns()
        wire.mend("peer")
        mended_ns = time.monotonic_ns()
        let_pass(UNDISTURBED_S)
        raw = measured_flow(running.stop())
    (reported,) = migration_result(_without_migration(raw, cut_ns)).migration.flows
    assert reported.longest_outage_ms is not None, "the flow came back: the wire was mended"
    return Cut(
        known_ms=((mending_ns + mended_ns) - (cutting_ns + cut_ns)) / 2e6,
        doubt_ms=((cut_ns - cutting_ns) + (mended_ns - mending_ns)) / 2e6,
        longest_ms=reported.longest_outage_ms,
        interval_ms=raw.interval_ns / 1e6,
        outages=len(reported.outages),
    )


def _without_migration(flow: MeasuredFlow, cut_ns: int) -> Measured:
    """The flow as the report takes it, of a guest that stayed where it was."""
    return Measured(
        scheme="plain", trigger=None, source="here", destination="here", status="none",
        reason=None, qemu=QemuFigures(), asked_ns=cut_ns, events=(), bme=(), flows=(flow,),
    )  # fmt: skip
