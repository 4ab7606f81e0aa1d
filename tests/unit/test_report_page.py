"""The page of a run."""

from __future__ import annotations

import io
import re
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console
from synthetic import (
    FAILOVER_CUTS,
    FAILOVER_EVENTS,
    QEMUS_WORDS,
    Cut,
    bme,
    event,
    failover,
    flow,
    refused,
)
from test_report_results import run_of

from harness.analysis.expectation import Expectation, Fail, Pass
from harness.analysis.measured import DEVICE_WROTE, Measured
from harness.analysis.verdict import Limits
from harness.report import words
from harness.report.entry import Recorded, migration_result
from harness.report.page import write_page
from harness.report.results import CaseResult, Results, write_results
from harness.report.summary import summary

VOID = {"meta", "br", "wbr", "link", "img", "hr", "input"}


class Balance(HTMLParser):
    """Notes every tag that is closed out of turn, every id, and every address."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.wrong: list[str] = []
        self.ids: list[str] = []
        self.addresses: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag not in VOID:
            self.open.append(tag)
        self._note(attrs)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        assert tag not in VOID or tag == "br"
        self._note(attrs)

    def handle_endtag(self, tag: str) -> None:
        if not self.open or self.open.pop() != tag:
            self.wrong.append(tag)

    def _note(self, attrs: list[tuple[str, str | None]]) -> None:
        for name, value in attrs:
            if name == "id":
                self.ids.append(str(value))
            if name in ("href", "src"):
                self.addresses.append(str(value))


def recorded_run(folder: Path, *measured: Measured, limits: Limits | None = None) -> Results:
    """Write a run with one test per migration."""
    results = run_of()
    cases = []
    for number, one in enumerate(measured):
        recorded = migration_result(one, limits, Pass())
        artifacts = folder / f"test-{number}"
        artifacts.mkdir()
        recorded.write(artifacts)
        cases.append(case_of(recorded, nodeid=f"tests/lab/test_x.py::test_{number}"))
    results = results.model_copy(update={"tests": cases})
    write_results(results, folder)
    return results


def case_of(recorded: Recorded, *, nodeid: str) -> CaseResult:
    return CaseResult(
        nodeid=nodeid,
        outcome="passed",
        verdict=recorded.verdict.word,
        artifacts="test-" + nodeid.split("_")[-1],
        migrations=[recorded.migration],
    )


def printed(results: Results) -> str:
    out = io.StringIO()
    summary(results, Console(file=out))
    return out.getvalue()


def three_flows(loss: float = 0.0) -> Measured:
    lost = [n for n in range(2000) if loss and (n * 7919) % 1000 < loss * 1000]
    return failover(
        flows=[
            flow(cuts=FAILOVER_CUTS, lost=lost),
            flow(name="up", direction="from-guest", frame_bytes=64, cuts=FAILOVER_CUTS, lost=lost),
            flow(name="down", direction="to-guest", frame_bytes=1514, cuts=FAILOVER_CUTS),
        ]
    )


def test_the_page_is_one_file_that_needs_no_other(tmp_path: Path) -> None:
    """Opened from a mail attachment it must look the same: every address is local or within."""
    recorded_run(tmp_path, three_flows(), failover())
    page = write_page(tmp_path).read_text()
    parser = Balance()
    parser.feed(page)
    assert parser.wrong == []
    assert parser.open == []
    assert not [a for a in parser.addresses if not a.startswith(("#", "test-"))]
    assert not re.search(r"url\((?!#)|@import|<script|<link", page)
    assert len(parser.ids) == len(set(parser.ids)), "two elements share an id"


def test_every_file_the_page_links_to_exists(tmp_path: Path) -> None:
    recorded_run(tmp_path, failover())
    (tmp_path / "test-0" / "odd name#.log").write_text("")
    page = write_page(tmp_path).read_text()
    parser = Balance()
    parser.feed(page)
    assert "test-0/packets-jumbo.parquet" in parser.addresses
    assert "test-0/odd%20name%23.log" in parser.addresses


def test_thirty_migrations_with_loss_would_stay_below_five_megabytes(tmp_path: Path) -> None:
    """A nightly run's page must still open on a telephone, and through a mail gateway."""
    recorded_run(tmp_path, three_flows(loss=0.3))
    assert write_page(tmp_path).stat().st_size < 5_000_000 / 30


def test_what_a_guest_says_cannot_become_markup(tmp_path: Path) -> None:
    """Event data and QEMU's errors come from machines under test."""
    evil = "<script>alert(1)</script>"
    spoiled = failover(
        status="failed", reason=evil, events=[*FAILOVER_EVENTS, event(9, "guest", evil, text=evil)]
    )
    recorded_run(tmp_path, replace(spoiled, scheme=replace(spoiled.scheme, name=evil)))
    page = write_page(tmp_path).read_text()
    assert "<script" not in page
    assert "&lt;script&gt;" in page


def test_failures_stand_first_and_lead_with_the_reason(tmp_path: Path) -> None:
    """A reader of a red run wants the reason before anything else."""
    slow = failover(flows=[flow(cuts=[Cut(100, 8000)])])
    recorded_run(tmp_path, failover(), slow, limits=Limits(longest_outage_ms=2000))
    page = write_page(tmp_path).read_text()
    rows = re.findall(r"<tr class=\"(\w+)\">", page)
    assert rows == ["fail", "pass"]
    reason = page.index("longest outage 7905 ms, more than 2000 ms")
    assert reason < page.index("test_<wbr>1</a>")


@pytest.mark.parametrize(("outcome", "shown"), [("failed", True), ("passed", False)])
def test_a_failed_test_without_a_migration_is_not_folded_away(
    tmp_path: Path, outcome: str, shown: bool
) -> None:
    """The badge above says that one failed; a reader looks for it."""
    results = recorded_run(tmp_path, failover())
    other = results.tests[0].model_copy(
        update={"nodeid": "t.py::t", "outcome": outcome, "verdict": None, "migrations": []}
    )
    write_results(results.model_copy(update={"tests": [*results.tests, other]}), tmp_path)
    assert ("<details open>" in write_page(tmp_path).read_text()) == shown


@pytest.mark.parametrize(
    ("expect", "colour", "badge", "told"),
    [
        (Fail("frames lost"), "pass", "fail, as expected", "Why this failed, as its test expected"),
        (None, "skipped", "fail, not counted", "its test expected nothing of it"),
        (Pass(), "fail", "fail", "its test expected the verdict pass"),
        (Fail("pages"), "fail", "fail", "its test expected the verdict fail, with &#39;pages&#39;"),
    ],
)
def test_a_failure_counts_where_it_was_not_expected(
    tmp_path: Path, expect: Expectation | None, colour: str, badge: str, told: str
) -> None:
    """A control that went red is no failure of the run: neither on the page nor on a terminal."""
    recorded = migration_result(failover(), Limits(lost=1), expect)
    case = case_of(recorded, nodeid="tests/lab/test_x.py::test_0")
    case = case.model_copy(update={"verdict": recorded.migration.counts_as})
    run = run_of().model_copy(update={"tests": [case]})
    write_results(run, tmp_path)
    page = write_page(tmp_path).read_text()
    assert f'<span class="badge {colour}">{badge}</span>' in page
    assert told in page
    is_failure = badge == "fail"
    assert ("1 fail</span>" in page) == is_failure
    assert f"{badge} test_0 (failover): flow jumbo: 410 frames lost, more than 1" in printed(run)


def test_the_reason_that_a_test_expected_comes_first() -> None:
    """The table has room for one: pages lost, and not the VF that is dead in every such row."""
    limits = Limits(longest_outage_ms=1000, lost=1)
    moved = migration_result(failover(), limits, Fail("frames lost"))
    lines = printed(run_of(moved.migration)).splitlines()
    assert [line.partition(": ")[2] for line in lines if line.startswith("fail, as")] == [
        "flow jumbo: 410 frames lost, more than 1",
        "flow jumbo: longest outage 1905 ms, more than 1000 ms",
    ]


def test_a_tests_own_assertion_is_not_taken_for_what_it_expected() -> None:
    """The control went red as it was to; who reads the run must look for something else."""
    recorded = migration_result(failover(), Limits(lost=1), Fail("frames lost"))
    case = case_of(recorded, nodeid="tests/lab/test_x.py::test_0")
    case = case.model_copy(update={"verdict": "pass", "outcome": "failed"})
    lines = printed(run_of().model_copy(update={"tests": [case]})).splitlines()
    assert "fail test_0 (failover): the test's own assertions failed: see junit.xml" in lines


def test_a_control_that_stays_green_is_told() -> None:
    recorded = migration_result(failover(), expect=Fail("frames lost"))
    case = case_of(recorded, nodeid="tests/lab/test_x.py::test_0")
    case = case.model_copy(update={"verdict": recorded.migration.counts_as})
    run = run_of().model_copy(update={"tests": [case]})
    said = "its test expected the verdict fail, with 'frames lost'"
    assert f"fail test_0 (failover): {said}" in printed(run)


def test_what_the_sender_lacked_stands_below_its_flow(tmp_path: Path) -> None:
    """A pass at ordinary priority is a pass on a quiet machine only."""
    lacking = replace(flow(cuts=FAILOVER_CUTS), sender_notes=("SCHED_FIFO was not permitted",))
    recorded_run(tmp_path, failover(flows=[lacking]))
    page = write_page(tmp_path).read_text()
    assert "Sender of jumbo: SCHED_FIFO was not permitted." in page


def test_an_invalid_migration_is_called_no_result(tmp_path: Path) -> None:
    """Its figures are there to be looked at, not to be quoted."""
    recorded_run(tmp_path, failover(flows=[flow(receiver_dropped=1, cuts=FAILOVER_CUTS)]))
    page = write_page(tmp_path).read_text()
    assert "Why there is no result" in page
    assert "Not a result: Users were cut off" in page


def test_a_broken_order_is_shown_by_the_lines_of_its_timeline(tmp_path: Path) -> None:
    seen = ((-900, "alder", 0x0507), (4600, "alder", 0x0103), (7000, "birch", 0x0406))
    samples = [bme(*each) for each in seen]
    recorded_run(tmp_path, failover(bme=samples))
    page = write_page(tmp_path).read_text()
    assert "DMA order broken: VF 0000:01:10.0" in page
    assert "+4600.0 ms ±0.4   bme:alder        0000:01:10.0 COMMAND 0x0103" in page


def test_what_comparing_memory_came_to_and_cost_is_told(tmp_path: Path) -> None:
    """The stop is longer for it: who reads the figures has to know."""
    owner = {"0xb002": "kvmclock's wall clock of processor 0"}
    compared: dict[str, Any] = {"pages": 65536, "differ": 0, "page_frames": [], "owned": owner}
    events = [
        event(5000, "conductor", "memory digested", took_ms=1561.4),
        event(9000, "conductor", "memory compared", **compared),
    ]
    moved = failover(events=[*FAILOVER_EVENTS, *events])
    said = words.memory(migration_result(moved).migration)
    assert said == (
        "Memory was compared after the stop, which took 1.56 s of it: 0 of 65536 pages were lost; "
        "pages that the hypervisor writes by itself differ: 0xb002 (kvmclock's wall clock of "
        "processor 0)."
    )
    recorded_run(tmp_path, moved)
    assert "which took 1.56 s of it" in write_page(tmp_path).read_text()
    assert words.memory(migration_result(failover()).migration) == ""


def test_what_the_vf_wrote_by_its_devices_own_log_is_told(tmp_path: Path) -> None:
    """The page has the figures of the log, and how long before the release the last write was."""
    wrote = {"writes": 1200, "bytes": 3_400_000, "misbehaved": 0, "not_logged": 0}
    last = event(270, "dma:alder", DEVICE_WROTE, **wrote)
    recorded_run(tmp_path, failover(events=[*FAILOVER_EVENTS, last]))
    page = write_page(tmp_path).read_text()
    assert "wrote to the guest&#39;s memory 1200 times (3.4 MB)" in page
    assert "it never wrote without the right to" in page


def test_a_run_without_migrations_has_a_page_too(tmp_path: Path) -> None:
    write_results(run_of(), tmp_path)
    assert "No test of this run measured a migration." in write_page(tmp_path).read_text()


def test_a_page_can_be_made_without_the_packets(tmp_path: Path) -> None:
    """results.json alone, copied from a lab, still shows outages and phases."""
    recorded_run(tmp_path, failover())
    (tmp_path / "test-0" / "packets-jumbo.parquet").unlink()
    assert "1.91 s" not in write_page(tmp_path).read_text()[:100]
    assert "1.90 s" in write_page(tmp_path).read_text()


def test_a_refusal_is_told_in_qemus_words_wherever_a_migration_is(tmp_path: Path) -> None:
    """It passed and nobody was cut off: without them it looks like a migration that worked."""
    said = f"QEMU refused: {QEMUS_WORDS}"
    results = recorded_run(tmp_path, refused(), limits=Limits(status="refused"))
    ((migration,),) = (case.migrations for case in results.tests)
    assert (migration.status, migration.qemu_reason) == ("refused", QEMUS_WORDS)
    assert words.headline(migration) == f"No outage in any flow. {said}."
    assert said in printed(results)
    assert said in write_page(tmp_path).read_text()
