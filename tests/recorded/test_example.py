"""The run kept in reports/example, analysed anew: what was recorded still says what it said."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from harness.analysis.measured import BmeSample, Event, Measured, QemuFigures
from harness.analysis.order import dma_order
from harness.analysis.outages import outages
from harness.analysis.packets import read_packets
from harness.analysis.phases import attribute, phases
from harness.analysis.scheme import SchemeRecord
from harness.migration.schemes.failover import Failover
from harness.report.page import write_page
from harness.report.reading import read_results
from harness.report.results import CaseResult, Migration

RECORD = SchemeRecord("failover", "acpi", Failover.vf, Failover.phases, Failover.must_show)
BEGINNINGS = {"guest stopping", "STOP"}
EXAMPLE = Path(__file__).parents[2] / "reports" / "example"


@pytest.fixture(scope="module")
def test_of_example() -> CaseResult:
    """The only test of the run."""
    (case,) = read_results(EXAMPLE).tests
    return case


@pytest.fixture(scope="module")
def migration(test_of_example: CaseResult) -> Migration:
    (migration,) = test_of_example.migrations
    return migration


@pytest.fixture(scope="module")
def measured(test_of_example: CaseResult, migration: Migration) -> Measured:
    """The migration's timeline as its machines recorded it, without the flows."""
    folder = EXAMPLE / test_of_example.artifacts
    events = [Event(**line) for line in lines(folder / "timeline.jsonl")]
    return Measured(
        scheme=RECORD,
        source=migration.source,
        destination=migration.destination,
        status=migration.status,
        reason=None,
        qemu=QemuFigures(),
        asked_ns=next(event.t_ns for event in events if event.name == "migrate asked"),
        events=tuple(events),
        bme=tuple(BmeSample(**line) for line in lines(folder / "bme.jsonl")),
        flows=(),
    )


def lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def packets_of(case: CaseResult, flow: str) -> pd.DataFrame:
    return read_packets(EXAMPLE / case.artifacts / f"packets-{flow}.parquet")


def test_outages_and_their_phases_are_found_again(
    test_of_example: CaseResult, migration: Migration, measured: Measured
) -> None:
    """A change of the analysis that moves an outage or its phase changes what old runs mean."""
    for flow in migration.flows:
        packets = packets_of(test_of_example, flow.name)
        interval_ns = round(1e9 / flow.rate_pps)
        found = outages(packets, direction=flow.direction, interval_ns=interval_ns)
        first, last = int(packets["sent_ns"].min()), int(packets["sent_ns"].max())
        asked = measured.asked_ns
        stretches = phases(measured, starts_ns=asked + first, ends_ns=asked + last)
        rows: list[dict[Any, Any]] = attribute(found, stretches).to_dict(orient="records")
        assert [
            (
                round(row["start_ns"] / 1e6, 3),
                round(row["end_ns"] / 1e6, 3),
                row["lost"],
                row["phase"],
                row["candidates"],
            )
            for row in rows
        ] == [
            (each.start_ms, each.end_ms, each.lost, each.phase, each.candidates)
            for each in flow.outages
        ]
        assert [(name, round(ns / 1e6, 3)) for name, ns in _uncertain(stretches)] == [
            (phase.name, phase.uncertainty_ms) for phase in migration.phases
        ]


def _uncertain(stretches: pd.DataFrame) -> Iterator[tuple[str, int]]:
    return zip(stretches["name"], stretches["uncertainty_ns"], strict=True)


def test_frames_add_up(test_of_example: CaseResult, migration: Migration) -> None:
    """Sent is received and lost, by the packets themselves."""
    for flow in migration.flows:
        packets = packets_of(test_of_example, flow.name)
        assert len(packets) == flow.sent == flow.received + flow.lost
        assert int((packets["copies"] == 0).sum()) == flow.lost


def test_the_stop_begins_when_the_guest_began_to_stop(measured: Measured) -> None:
    """QEMU says STOP when it stands, tens of milliseconds after its users began to wait."""
    began = {event.name: event.t_ns for event in measured.events if event.name in BEGINNINGS}
    stretches = phases(measured, starts_ns=measured.asked_ns, ends_ns=measured.events[-1].t_ns)
    (stop_ns,) = stretches.loc[stretches["name"] == "stop", "start_ns"]
    assert measured.asked_ns + stop_ns == began["guest stopping"] <= began["STOP"]


def test_dma_had_stopped_in_time(measured: Measured) -> None:
    """The order that a migration needs, as a real run shows it."""
    assert [order.outcome for order in dma_order(measured)] == ["kept"]


def test_the_page_can_be_written_again(tmp_path: Path) -> None:
    """A report is a view of the records: it can be made from them at any time, elsewhere."""
    for source in EXAMPLE.rglob("*"):
        target = tmp_path / source.relative_to(EXAMPLE)
        if source.is_dir():
            target.mkdir()
        else:
            target.write_bytes(source.read_bytes())
    page = write_page(tmp_path).read_text()
    assert "<svg" in page
    assert "9014" in page
