"""The instrument against a known outage."""

from __future__ import annotations

from collections.abc import Callable

from bench.rows import Row
from harness.lab.emulated import wire_of
from harness.lab.wire import WireEnd
from harness.run.known_cut import cut_under
from harness.run.moving import MovingGuest
from harness.topology import PEER, Topology
from harness.traffic.flow import Flow

CUTS_MS = (100, 500, 2000)
FRAMES_BYTES = (64, 9014)


def known_outages(topology: Topology, guest: MovingGuest, say: Callable[[str], None]) -> list[Row]:
    """One row for each length of a cut and size of frames."""
    rate = topology.limits.rate_pps
    cases = [(size, cut) for size in FRAMES_BYTES for cut in CUTS_MS]
    wire, rows = WireEnd(wire_of(topology), PEER), []
    for number, (frame_bytes, milliseconds) in enumerate(cases, start=900):
        say(f"cutting the wire for {milliseconds} ms under {frame_bytes}-byte frames")
        flow = Flow(f"cut-{number}", "round-trip", frame_bytes, rate, number)
        cut = cut_under(wire, guest, flow, milliseconds=milliseconds)
        off = abs(cut.longest_ms - cut.known_ms) / cut.interval_ms
        rows.append(
            Row(
                f"wire cut for {cut.known_ms:.1f} ± {cut.doubt_ms:.1f} ms, "
                f"{frame_bytes}-byte frames",
                f"{cut.longest_ms:.1f} ms, {off:.2f} send intervals off",
                "2 send intervals",
                f"{rate} frames/s, round trip; {cut.outages} outage(s) in all",
            )
        )
    return rows
