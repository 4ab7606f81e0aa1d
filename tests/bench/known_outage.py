"""The instrument against a known outage: the wire is cut for a time that we measure ourselves."""

from __future__ import annotations

import time
from collections.abc import Callable

from bench.rows import Row
from harness.analysis.outages import outages
from harness.analysis.packets import packets
from harness.lab import emulated
from harness.migration.conductor import measured_flow
from harness.run.moving import MovingGuest
from harness.topology import Topology
from harness.traffic.flow import Flow
from harness.traffic.running import start
from harness.waiting import wait_for

CUTS_MS = (100, 500, 2000)
FRAMES_BYTES = (64, 9014)


def known_outages(topology: Topology, guest: MovingGuest, say: Callable[[str], None]) -> list[Row]:
    """One row for each length of a cut and size of frames."""
    rows = []
    number = 900
    for frame_bytes in FRAMES_BYTES:
        for cut_ms in CUTS_MS:
            say(f"cutting the wire for {cut_ms} ms under {frame_bytes}-byte frames")
            number += 1
            flow = Flow(
                f"cut-{number}", "round-trip", frame_bytes, topology.limits.rate_pps, number
            )
            rows.append(_row(topology, guest, flow, cut_ms))
    return rows


def _row(topology: Topology, guest: MovingGuest, flow: Flow, cut_ms: int) -> Row:
    wire, ends = emulated.wire_of(topology), guest.ends()
    with start(flow, ends.peer_end, ends.guest_end) as running:
        _let_run(1.0)
        before_ns = time.monotonic_ns()
        wire.cut("peer")
        cut_ns = time.monotonic_ns()
        _let_run(cut_ms / 1000)
        mending_ns = time.monotonic_ns()
        wire.mend("peer")
        mended_ns = time.monotonic_ns()
        _let_run(1.0)
        records = running.stop()
    known_ms = ((mending_ns + mended_ns) - (before_ns + cut_ns)) / 2e6
    doubt_ms = ((cut_ns - before_ns) + (mended_ns - mending_ns)) / 2e6
    raw = measured_flow(records)
    found = outages(packets(raw, asked_ns=0), direction=flow.direction, interval_ns=raw.interval_ns)
    longest_ms = float((found["end_ns"] - found["start_ns"]).max()) / 1e6
    interval_ms = raw.interval_ns / 1e6
    return Row(
        f"wire cut for {known_ms:.1f} ± {doubt_ms:.1f} ms, {flow.frame_bytes}-byte frames",
        f"{longest_ms:.1f} ms, {abs(longest_ms - known_ms) / interval_ms:.2f} send intervals off",
        "2 send intervals",
        f"{flow.rate_pps} frames/s, round trip; {len(found)} outage(s) in all",
    )


def _let_run(seconds: float) -> None:
    end = time.monotonic() + seconds
    wait_for(
        "time to pass", time.monotonic, within=seconds + 1, until=lambda t: t >= end, every_s=0.001
    )
