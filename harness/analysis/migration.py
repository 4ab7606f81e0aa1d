"""One migration, from its raw records to its figures and verdict."""

from __future__ import annotations

from dataclasses import dataclass, replace

import pandas as pd

from harness.analysis.measured import Measured, MeasuredFlow
from harness.analysis.outages import largest_resolution_ns, outages
from harness.analysis.packets import lateness_ns, packets, strays, unsent
from harness.analysis.phases import attribute, phases
from harness.analysis.verdict import FlowFigures, Limits, Verdict, judge
from harness.errors import MeasurementError


@dataclass(frozen=True, slots=True)
class Analysis:
    """What the records of one migration say; *phases* as in the package's docstring."""

    flows: tuple[FlowFigures, ...]
    phases: pd.DataFrame
    verdict: Verdict


def analyse(measured: Measured, limits: Limits) -> Analysis:
    """Outages by phase and the verdict.

    Raises MeasurementError where there is no data to speak of: no flow, nothing sent, nothing
    that ever arrived, or records that are damaged.
    """
    if not measured.flows:
        raise MeasurementError(
            f"migration {measured.source} to {measured.destination}: no flow was running",
            because="without traffic nothing is known of what its users felt",
            fix="start at least one flow before the migration and end it after",
        )
    flows = [_figures(flow, asked_ns=measured.asked_ns) for flow in measured.flows]
    starts_ns, ends_ns = _extent(flows, measured)
    found = phases(measured, starts_ns=starts_ns, ends_ns=ends_ns)
    attributed = tuple(_with_phases(flow, found) for flow in flows)
    return Analysis(attributed, found, judge(measured, attributed, found, limits))


def _figures(flow: MeasuredFlow, *, asked_ns: int) -> FlowFigures:
    frame = packets(flow, asked_ns=asked_ns)
    # The record ends with the last frame sent; the sender counted what was due after that too.
    unsent_at_end = max(flow.unsent - unsent(frame), 0)
    found = outages(
        frame,
        direction=flow.direction,
        interval_ns=flow.interval_ns,
        unsent_at_end=unsent_at_end,
    )
    lost = int((frame["copies"] == 0).sum())
    return FlowFigures(
        name=flow.name,
        direction=flow.direction,
        frame_bytes=flow.frame_bytes,
        rate_pps=flow.rate_pps,
        sent=len(frame),
        received=len(frame) - lost,
        lost=lost,
        duplicated=int((frame["copies"] - 1).clip(lower=0).sum()),
        reordered=int(frame["reordered"].sum()),
        corrupted=int((frame["corrupted"] | frame["short"]).sum()) + strays(flow),
        resolution_ns=largest_resolution_ns(frame, found, interval_ns=flow.interval_ns),
        unsent=unsent(frame) + unsent_at_end,
        sender_late_max_ns=int(lateness_ns(frame).max()),
        receiver_dropped=flow.receiver_dropped,
        clock_moved_ns=flow.clock_moved_ns,
        sender_notes=flow.sender_notes,
        packets=frame,
        outages=found,
    )


def _with_phases(flow: FlowFigures, found: pd.DataFrame) -> FlowFigures:
    return replace(flow, outages=attribute(flow.outages, found))


def _extent(flows: list[FlowFigures], measured: Measured) -> tuple[int, int]:
    """First and last moment of the data in the peer's own clock."""
    seen = [
        flow.packets["returned_ns" if flow.direction == "from-guest" else "sent_ns"]
        for flow in flows
    ]
    first, last = min(int(s.min()) for s in seen), max(int(s.max()) for s in seen)
    return measured.asked_ns + first, measured.asked_ns + last
