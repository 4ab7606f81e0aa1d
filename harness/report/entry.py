"""A measured migration as its entry in results.json, with its packets as Parquet beside it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from harness.analysis.expectation import Expectation
from harness.analysis.measured import Measured
from harness.analysis.migration import Analysis, analyse
from harness.analysis.packets import write_packets
from harness.analysis.verdict import FlowFigures, Limits, Verdict
from harness.report.results import (
    Bme,
    Expected,
    Flow,
    Instrument,
    Migration,
    Outage,
    Phase,
    Qemu,
    TimelineEvent,
)


@dataclass(frozen=True, slots=True)
class Recorded:
    """A migration's entry, its verdict, and the packets of each flow by the flow's name."""

    migration: Migration
    verdict: Verdict
    packets: dict[str, pd.DataFrame]

    def write(self, folder: Path, *, number: int = 1) -> list[Path]:
        """Write packets-<flow>.parquet for each flow into the test's *folder*.

        *number* counts the migrations of a test from 1; see ``packets_path``.
        """
        written = []
        for flow in self.migration.flows:
            path = packets_path(folder, flow.name, number=number)
            about = {
                "flow": flow.name,
                "direction": flow.direction,
                "frame_bytes": str(flow.frame_bytes),
                "zero": "migrate asked, peer's clock",
            }
            write_packets(path, self.packets[flow.name], about=about)
            written.append(path)
        return written


def migration_result(
    measured: Measured, limits: Limits | None = None, expect: Expectation | None = None
) -> Recorded:
    """Turn what one migration left behind into its entry, its verdict and its packets.

    *expect* is what its test expects of the migration; None if the test expects nothing.  Raises
    MeasurementError where there is no data to speak of (``analysis.migration.analyse``).
    """
    analysis = analyse(measured, limits or Limits())
    return Recorded(
        migration=_entry(measured, analysis, expect),
        verdict=analysis.verdict,
        packets={flow.name: flow.packets for flow in analysis.flows},
    )


def packets_path(folder: Path, flow: str, *, number: int = 1) -> Path:
    """Name the packets of *flow* in a test's folder; later migrations of a test add a number."""
    suffix = "" if number == 1 else f"-{number}"
    return folder / f"packets-{flow}{suffix}.parquet"


def _entry(measured: Measured, analysis: Analysis, expect: Expectation | None) -> Migration:
    qemu = measured.qemu
    return Migration(
        scheme=measured.scheme.name,
        trigger=measured.scheme.trigger,
        source=measured.source,
        destination=measured.destination,
        status=measured.status,
        verdict=analysis.verdict.word,
        reasons=analysis.verdict.reasons,
        expected=Expected(verdict=expect.word, because=expect.because) if expect else None,
        as_expected=expect is None or expect.met_by(analysis.verdict),
        qemu_reason=measured.reason,
        qemu=Qemu(
            downtime_ms=qemu.downtime_ms,
            total_ms=qemu.total_ms,
            setup_ms=qemu.setup_ms,
            transferred_bytes=qemu.transferred_bytes,
            passes=qemu.passes,
        ),
        flows=[_flow(flow) for flow in analysis.flows],
        phases=[
            Phase(
                name=row["name"],
                start_ms=_ms(row["start_ns"]),
                end_ms=_ms(row["end_ns"]),
                uncertainty_ms=_ms(row["uncertainty_ns"]),
            )
            for row in _rows(analysis.phases)
        ],
        bme=[
            Bme(
                t_ms=_ms(sample.t_ns - measured.asked_ns),
                host=sample.host,
                vf=sample.vf,
                command=sample.command,
                bme=sample.masters,
                via=sample.via,
            )
            for sample in sorted(measured.bme, key=lambda sample: sample.t_ns)
        ],
        events=[
            TimelineEvent(
                t_ms=_ms(event.t_ns - measured.asked_ns),
                uncertainty_ms=_ms(event.uncertainty_ns),
                source=event.source,
                name=event.name,
                data=dict(event.data),
            )
            for event in sorted(measured.events, key=lambda event: event.t_ns)
        ],
        excerpt=analysis.verdict.excerpt,
    )


def _flow(flow: FlowFigures) -> Flow:
    lengths = flow.lengths_ns
    is_open = flow.never_came_back
    return Flow(
        name=flow.name,
        direction=flow.direction,
        frame_bytes=flow.frame_bytes,
        rate_pps=flow.rate_pps,
        sent=flow.sent,
        received=flow.received,
        lost=flow.lost,
        duplicated=flow.duplicated,
        reordered=flow.reordered,
        corrupted=flow.corrupted,
        resolution_ms=_ms(flow.resolution_ns),
        longest_outage_ms=None if is_open else _ms(lengths.max() if len(lengths) else 0),
        total_outage_ms=None if is_open else _ms(lengths.sum()),
        outages=[
            Outage(
                start_ms=_ms(row["start_ns"]),
                end_ms=None if pd.isna(row["end_ns"]) else _ms(row["end_ns"]),
                lost=row["lost"],
                phase=row["phase"],
                candidates=row["candidates"],
            )
            for row in _rows(flow.outages)
        ],
        instrument=Instrument(
            sender_late_max_ms=_ms(flow.sender_late_max_ns),
            receiver_dropped=flow.receiver_dropped,
            sender_notes=flow.sender_notes,
        ),
    )


def _rows(frame: pd.DataFrame) -> list[dict[Any, Any]]:
    return frame.to_dict(orient="records")


def _ms(ns: Any) -> float:
    """Milliseconds to the microsecond: no clock here is better."""
    return round(int(ns) / 1e6, 3)
