"""results.json: exactly the promised shape, and a migration's entry in it."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, get_args, get_type_hints

import pytest
from synthetic import FAILOVER_BME, FAILOVER_CUTS, Cut, bme, failover, flow

from harness.analysis.measured import BmeSample
from harness.analysis.packets import read_packets
from harness.analysis.verdict import Limits
from harness.report.entry import migration_result, packets_path
from harness.report.reading import read_results
from harness.report.results import (
    CaseResult,
    GuestProvenance,
    HostProvenance,
    Lab,
    Migration,
    Provenance,
    Results,
    results_schema,
    write_results,
)

KEYS = {
    "": "schema run started lab provenance tests",
    "lab": "name emulated topology",
    "provenance": "harness hosts guest",
    "provenance.guest": "kernel vf_driver",
    "provenance.hosts.alder": "kernel qemu pf_driver pf_device firmware",
    "tests.0": "nodeid outcome verdict artifacts migrations audits",
    "tests.0.migrations.0": "scheme trigger source destination status verdict reasons"
    " expected as_expected qemu_reason qemu flows phases bme events excerpt",
    "tests.0.migrations.0.qemu": "downtime_ms total_ms setup_ms transferred_bytes passes",
    "tests.0.migrations.0.flows.0": "name direction frame_bytes rate_pps sent received lost"
    " duplicated reordered corrupted resolution_ms longest_outage_ms total_outage_ms outages"
    " instrument",
    "tests.0.migrations.0.flows.0.outages.0": "start_ms end_ms lost phase candidates",
    "tests.0.migrations.0.flows.0.instrument": "sender_late_max_ms receiver_dropped sender_notes",
    "tests.0.migrations.0.phases.0": "name start_ms end_ms uncertainty_ms",
    "tests.0.migrations.0.bme.0": "t_ms host vf command bme via",
    "tests.0.migrations.0.events.0": "t_ms uncertainty_ms source name data",
}


def run_of(*migrations: Migration) -> Results:
    host = HostProvenance(
        kernel="6.12.107", qemu="10.0.13", pf_driver="igb", pf_device="8086:10c9", firmware=None
    )
    return Results(
        run="synthetic",
        started=datetime(2026, 11, 23, 8, 0, tzinfo=UTC),
        lab=Lab(name="emulated", emulated=True, topology="topologies/emulated.toml"),
        provenance=Provenance(
            harness="0.1.0",
            hosts={"alder": host},
            guest=GuestProvenance(kernel="6.12.107", vf_driver="igbvf 6.12.107"),
        ),
        tests=[
            CaseResult(
                nodeid="tests/lab/test_x.py::test_x",
                outcome="passed",
                verdict="pass",
                artifacts="test_x",
                migrations=list(migrations),
            )
        ],
    )


@pytest.mark.parametrize("path", list(KEYS))
def test_every_object_has_exactly_the_promised_names(path: str, tmp_path: Path) -> None:
    """Others read these names; one less, or one with another meaning, is a new schema."""
    run = run_of(migration_result(failover()).migration)
    there = json.loads(write_results(run, tmp_path).read_text())
    for part in filter(None, path.split(".")):
        there = there[int(part) if part.isdigit() else part]
    assert sorted(there) == sorted(KEYS[path].split())


def test_what_is_written_is_read_back(tmp_path: Path) -> None:
    run = run_of(migration_result(failover()).migration)
    write_results(run, tmp_path)
    assert read_results(tmp_path) == run


def test_started_is_rfc_3339(tmp_path: Path) -> None:
    """A time without its zone cannot be put beside another lab's."""
    text = json.loads(write_results(run_of(), tmp_path).read_text())["started"]
    assert text == "2026-11-23T08:00:00Z"


@pytest.mark.parametrize("via", get_args(get_type_hints(BmeSample)["via"]))
def test_every_way_to_read_bme_has_its_word(via: Any) -> None:
    """A sample that the schema has no word for would break the report of a whole run."""
    sample = replace(bme(-900, "alder", 0x0406), via=via)
    (read,) = migration_result(failover(bme=(sample,))).migration.bme
    assert read.via == via


def test_the_json_schema_names_the_field_as_the_file_does() -> None:
    """The Python name differs (``schema`` is taken by pydantic); the file must not."""
    properties = results_schema()["properties"]
    assert "schema" in properties
    assert "schema_version" not in properties


def test_the_entry_has_the_planted_outages_in_milliseconds() -> None:
    """Five cuts were planted; the longest is STOP to RESUME, as the frames at 5 ms saw it."""
    only = migration_result(failover()).migration.flows[0]
    assert [(o.start_ms, o.end_ms) for o in only.outages] == [
        (275, 345),
        (4520, 6425),
        (6715, 6735),
        (6795, 6845),
        (6980, 7010),
    ]
    assert only.longest_outage_ms == 1905
    assert only.total_outage_ms == 70 + 1905 + 20 + 50 + 30
    assert (only.sent, only.received, only.lost) == (2000, 1590, 410)
    assert len(only.outages) == len(FAILOVER_CUTS)


def test_an_open_outage_has_no_length() -> None:
    """Null, not the time until the flow ended: that would pass a limit if it ended soon."""
    dead = migration_result(failover(flows=[flow(cuts=[Cut(8900, 9999)])])).migration.flows[0]
    assert dead.longest_outage_ms is None
    assert dead.total_outage_ms is None
    assert dead.outages[-1].end_ms is None


def test_no_outage_is_zero() -> None:
    calm = migration_result(failover(flows=[flow()])).migration.flows[0]
    assert (calm.longest_outage_ms, calm.total_outage_ms, calm.outages) == (0, 0, [])


def test_a_verdict_stands_with_its_reasons_and_apart_from_qemus() -> None:
    """Whoever reads only results.json must learn why, and QEMU's words are never taken for ours."""
    limits = Limits(longest_outage_ms=1000, lost=1, status="completed")
    failed = migration_result(failover(status="failed", reason="a; b"), limits).migration
    assert (failed.verdict, failed.qemu_reason) == ("fail", "a; b")
    assert failed.reasons == (
        "the migration ended as failed, not as completed: a; b",
        "flow jumbo: longest outage 1905 ms, more than 1000 ms",
        "flow jumbo: 410 frames lost, more than 1",
    )
    passed = migration_result(failover()).migration
    assert (passed.verdict, passed.reasons, passed.qemu_reason) == ("pass", (), None)


def test_an_outage_has_the_phases_that_the_clocks_allow() -> None:
    """Replug begins with a sample of BME, and clocks put that sample before or after the break."""
    early, late = FAILOVER_BME[:5], FAILOVER_BME[6:]
    migration = migration_result(
        failover(bme=(*early, bme(6714.8, "birch", 0x0406), *late))
    ).migration
    assert {p.name: p.uncertainty_ms for p in migration.phases} == {
        "before": 0.0,
        "unplug": 0.0,
        "pre-copy": 0.4,
        "stop": 0.4,
        "resume": 0.4,
        "replug": 0.4,
        "after": 2.0,
    }
    assert [outage.candidates for outage in migration.flows[0].outages] == [
        ("unplug", "pre-copy"),
        ("pre-copy", "stop"),
        ("resume", "replug"),
        ("replug",),
        ("replug", "after"),
    ]


def test_events_count_from_migrate_asked_in_time_order() -> None:
    """Recorders deliver theirs one after the other; a reader wants one timeline."""
    events = migration_result(failover()).migration.events
    times = [event.t_ms for event in events]
    assert times == sorted(times)
    assert next(e.t_ms for e in events if e.name == "migrate asked") == 0


def test_packets_are_kept_beside_it(tmp_path: Path) -> None:
    """A second migration of the same test must not overwrite the first one's packets."""
    recorded = migration_result(failover())
    first = recorded.write(tmp_path)
    second = recorded.write(tmp_path, number=2)
    assert [p.name for p in first + second] == ["packets-jumbo.parquet", "packets-jumbo-2.parquet"]
    assert len(read_packets(packets_path(tmp_path, "jumbo", number=2))) == 2000
