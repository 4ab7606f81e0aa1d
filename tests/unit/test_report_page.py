"""The page, its figure, the terminal's table and JUnit's properties."""

from __future__ import annotations

import io
import re
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any, Literal
from xml.etree import ElementTree

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

from harness.analysis.measured import ECHOES, Measured
from harness.analysis.verdict import Limits
from harness.report import tables, words
from harness.report.entry import Recorded, migration_result
from harness.report.figure import migration_figure
from harness.report.junit import properties
from harness.report.layout import extent
from harness.report.page import write_page
from harness.report.results import CaseResult, Results, write_results
from harness.report.summary import summary

VOID = {"meta", "br", "link", "img", "hr", "input"}


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
        recorded = migration_result(one, limits)
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
    recorded_run(tmp_path, replace(spoiled, scheme=evil))
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
    assert reason < page.index("test_1</a>")


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


def test_an_invalid_migration_is_called_no_result(tmp_path: Path) -> None:
    """Its figures are there to be looked at, not to be quoted."""
    recorded_run(tmp_path, failover(flows=[flow(receiver_dropped=1, cuts=FAILOVER_CUTS)]))
    page = write_page(tmp_path).read_text()
    assert "Why there is no result" in page
    assert "Not a result: Users were cut off" in page


def test_a_broken_order_is_shown_by_the_lines_of_its_timeline(tmp_path: Path) -> None:
    samples = [bme(-900, "alder", 0x0507), bme(4600, "alder", 0x0103)]
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


def test_a_run_without_migrations_has_a_page_too(tmp_path: Path) -> None:
    write_results(run_of(), tmp_path)
    assert "No test of this run measured a migration." in write_page(tmp_path).read_text()


def test_a_page_can_be_made_without_the_packets(tmp_path: Path) -> None:
    """results.json alone, copied from a lab, still shows outages and phases."""
    recorded_run(tmp_path, failover())
    (tmp_path / "test-0" / "packets-jumbo.parquet").unlink()
    assert "1.91 s" not in write_page(tmp_path).read_text()[:100]
    assert "1.90 s" in write_page(tmp_path).read_text()


def test_the_figure_names_phases_outages_and_both_down_times() -> None:
    """Each is text that can be read and searched, not an outline."""
    recorded = migration_result(failover())
    svg = migration_figure(recorded.migration, recorded.packets, key="k")
    texts = "".join(ElementTree.fromstring(svg).itertext())
    for expected in (
        "pre-copy 4.24 s",
        "stop 1.90 s",
        "unplug 280 ms",
        "QEMU: 224 ms",
        "users: 1.91 s (jumbo)",
        "1.91 s",
        "UNPLUG_PRIMARY (alder)",
        "hand-off: filter cleared (alder)",
        "BME alder",
        "guest: eth2 gone",
        "gone",
        "410 of 2000 lost",
    ):
        assert expected in texts, expected


def test_the_figure_follows_the_pages_colours() -> None:
    """A colour left as it is would be black text on a dark page."""
    recorded = migration_result(failover())
    svg = migration_figure(recorded.migration, recorded.packets, key="k")
    assert not re.search(r"#0([1-7])0(?:\1)0(?:\1)", svg)
    assert "var(--ink, #1d2733)" in svg
    assert "DejaVu" not in svg


def test_a_figure_shows_a_flow_that_never_came_back() -> None:
    dead = migration_result(failover(flows=[flow(cuts=[Cut(279, 9999)])]))
    svg = migration_figure(dead.migration, dead.packets, key="k")
    assert "never came back" in svg


@pytest.mark.parametrize("rate", [10, 5000])
def test_a_flow_of_any_rate_has_a_bounded_figure(rate: int) -> None:
    """5,000 a second for ten seconds would be megabytes of dots."""
    recorded = migration_result(failover(flows=[flow(rate_pps=rate, cuts=FAILOVER_CUTS)]))
    assert len(migration_figure(recorded.migration, recorded.packets, key="k")) < 100_000


def test_one_slow_answer_among_many_is_still_a_dot() -> None:
    """Thinning by picking every n-th frame would lose the one that matters."""
    recorded = migration_result(failover(flows=[flow(rate_pps=5000, delayed_ms={20_000: 700.0})]))
    svg = migration_figure(recorded.migration, recorded.packets, key="k")
    assert "1 s" in "".join(ElementTree.fromstring(svg).itertext())


def test_an_outage_that_may_belong_to_two_phases_says_so() -> None:
    """The cut at 279 ms and the release at 280 ms lie within one interval of the flow."""
    rows = tables.outage_rows(migration_result(failover()).migration)
    assert (rows[0].phase, rows[0].also) == ("unplug", "pre-copy")
    assert (rows[2].phase, rows[2].also) == ("replug", "")


def test_the_error_bar_is_written_by_direction() -> None:
    """A gap between sent frames overstates; a guest's silence may go either way."""
    flows = {f.name: f for f in migration_result(three_flows()).migration.flows}
    assert words.error_bar(flows["jumbo"]) == "+0 / \u221210 ms"
    assert words.error_bar(flows["up"]) == "\u00b1 5.0 ms"


def test_the_headline_puts_both_figures_side_by_side() -> None:
    assert words.headline(migration_result(failover()).migration) == (
        "Users were cut off for 1.91 s, beginning in stop. QEMU says 224 ms (\u00d7 8.5)."
    )


def test_a_refusal_is_told_in_qemus_words_wherever_a_migration_is(tmp_path: Path) -> None:
    """It passed and nobody was cut off: without them it looks like a migration that worked."""
    said = f"QEMU refused: {QEMUS_WORDS}"
    results = recorded_run(tmp_path, refused(), limits=Limits(status="refused"))
    ((migration,),) = (case.migrations for case in results.tests)
    assert (migration.status, migration.reason) == ("refused", QEMUS_WORDS)
    assert words.headline(migration) == f"No outage in any flow. {said}."
    assert said in printed(results)
    assert said in write_page(tmp_path).read_text()


def test_the_figure_of_a_refusal_shows_that_nothing_came_of_it() -> None:
    """All of it: a tenth of a second around the asking would hide what came after."""
    recorded = migration_result(refused(), Limits(status="refused"))
    assert extent(recorded.migration) == (-1.0, 8.995)
    svg = migration_figure(recorded.migration, recorded.packets, key="k")
    texts = "".join(ElementTree.fromstring(svg).itertext())
    for expected in ("migrate refused", "after", "no outage", "BME alder"):
        assert expected in texts, expected


def test_the_figure_has_the_migration_states_of_a_vf() -> None:
    """Where QEMU drives, they are the steps of the migration."""
    state = event(4525, "vfio:alder", "vfio state STOP_COPY", was="RUNNING")
    recorded = migration_result(failover(events=[*FAILOVER_EVENTS, state]))
    svg = migration_figure(recorded.migration, recorded.packets, key="k")
    assert "vfio state STOP_COPY (alder)" in "".join(ElementTree.fromstring(svg).itertext())


@pytest.mark.parametrize(
    ("outcome", "verdict", "word"),
    [
        ("passed", "pass", "pass"),
        ("passed", None, "pass"),
        ("failed", "pass", "fail"),
        ("error", None, "fail"),
        ("failed", "invalid", "invalid"),
        ("skipped", None, "skipped"),
        ("not run", "pass", "skipped"),
    ],
)
def test_a_test_that_did_not_pass_is_never_called_a_pass(
    outcome: str, verdict: Literal["pass", "invalid"] | None, word: str
) -> None:
    """A good migration in a test whose own assertions failed, or that was cut off, is no pass."""
    case = case_of(migration_result(failover()), nodeid="tests/lab/test_x.py::test_0")
    ended = case.model_copy(update={"outcome": outcome, "verdict": verdict})
    assert tables.word_of(ended) == word


def test_an_open_outage_has_no_ratio() -> None:
    """Infinity over 224 ms is not a number to print."""
    dead = migration_result(failover(flows=[flow(cuts=[Cut(279, 9999)])])).migration
    assert words.ratio(dead) is None
    assert words.felt(dead) == "never came back"


def test_a_flow_that_never_came_back_outweighs_any_that_did() -> None:
    """A second, healthier flow must not lend its finite figure to the table."""
    flows = [flow(cuts=[Cut(100, 8000)]), flow(name="dead", cuts=[Cut(8900, 9999)])]
    migration = migration_result(failover(flows=flows)).migration
    assert words.felt(migration) == "never came back"
    assert words.headline(migration).startswith("Flow dead was cut off in after")


@pytest.mark.parametrize(
    ("ms", "text"),
    [(0.04, "0.0 ms"), (9.94, "9.9 ms"), (9.96, "10 ms"), (999.4, "999 ms"), (999.6, "1.00 s")],
)
def test_durations_have_three_digits_at_most_and_their_unit(ms: float, text: str) -> None:
    assert words.duration(ms) == text


def printed(results: Results) -> str:
    out = io.StringIO()
    summary(results, Console(file=out))
    return out.getvalue()


def test_the_terminal_shows_qemus_figure_beside_the_users(tmp_path: Path) -> None:
    text = printed(recorded_run(tmp_path, failover()))
    row = next(line for line in text.splitlines() if line.startswith("pass"))
    assert row.split()[-6:] == ["ms", "1.91", "s", "(\u00d7", "8.5)", "410"]
    assert "224 ms" in row
    by_phase = "unplug 70 ms, stop 1.91 s, replug 50 ms, in all 2.08 s"
    assert by_phase.replace(" ", "\u00a0").replace(",\u00a0", ", ") in text


def test_one_outage_has_no_sum(tmp_path: Path) -> None:
    """It would be the same figure twice."""
    once = failover(flows=[flow(cuts=[Cut(4500, 5000)])])
    text = printed(recorded_run(tmp_path, once))
    assert "pre-copy\u00a0505\u00a0ms" in text
    assert "in\u00a0all" not in text


def test_the_sum_is_of_the_flow_that_was_cut_off_longest(tmp_path: Path) -> None:
    """One outage of 3 s beside many short ones of another flow: 'in all' is not theirs."""
    flows = [
        flow(name="one", cuts=[Cut(4500, 7500)]),
        flow(name="two", cuts=[Cut(1000, 1100), Cut(2000, 2100)]),
    ]
    assert "in\u00a0all\u00a03.00\u00a0s" in printed(recorded_run(tmp_path, failover(flows=flows)))
    flows[0] = flow(name="one", cuts=[Cut(4500, 9999)])
    folder = tmp_path / "open"
    folder.mkdir()
    open_ended = printed(recorded_run(folder, failover(flows=flows)))
    assert "in\u00a0all" not in open_ended


def test_doubled_frames_are_counted_for_neither_way() -> None:
    """300 lost on the way there and 50 doubled: the counters alone would say 250 and 50."""
    doubled = flow(cuts=[Cut(4500, 6000)], duplicated=range(50))
    counted = event(9000, "guest", ECHOES, requests=1750, replies=1750)
    both = failover(flows=[doubled], events=(*FAILOVER_EVENTS, counted))
    migration = migration_result(both).migration
    assert (migration.flows[0].lost, migration.flows[0].duplicated) == (300, 50)
    assert words.lost_by_way(migration) is None


@pytest.mark.parametrize(
    ("requests", "replies", "ways"),
    [
        pytest.param(1700, 1650, (300, 50, 60), id="both ways"),
        pytest.param(2000, 2000, (0, 0, 410), id="all on the way back"),
        pytest.param(2001, 1650, None, id="somebody else sent requests"),
        pytest.param(1700, 1589, None, id="fewer replies than came"),
        pytest.param(1700, 1701, None, id="more replies than requests"),
    ],
)
def test_lost_round_trips_are_split_by_the_guests_own_count(
    requests: int, replies: int, ways: tuple[int, int, int] | None
) -> None:
    """2000 were sent and 1590 returned.  A count that does not fit is no count."""
    counted = event(9000, "guest", ECHOES, requests=requests, replies=replies)
    migration = migration_result(failover(events=(*FAILOVER_EVENTS, counted))).migration
    assert words.lost_by_way(migration) == ways
    assert words.lost_by_way(migration_result(failover()).migration) is None, "nobody counted"


def test_a_pipe_gets_plain_text(tmp_path: Path) -> None:
    """Escape codes in a CI log hide the numbers."""
    assert "\x1b" not in printed(recorded_run(tmp_path, failover()))


def test_the_terminal_says_why(tmp_path: Path) -> None:
    text = printed(recorded_run(tmp_path, failover(), limits=Limits(lost=1)))
    assert "fail test_0 (failover): flow jumbo: 410 frames lost, more than 1" in text


def test_no_migration_is_said_in_words() -> None:
    assert printed(run_of()) == "No test measured a migration.\n"


def test_junit_has_the_figures_by_flow() -> None:
    found = dict(properties(migration_result(three_flows()).migration, "pass"))
    assert found["qemu_downtime_ms"] == "224"
    assert found["longest_outage_ms_jumbo"] == "1905"
    assert found["total_outage_ms_jumbo"] == "2075"
    assert found["lost_jumbo"] == "410"
    assert found["verdict"] == "pass"


def test_an_open_outage_is_no_number_in_junit() -> None:
    """A tool that plots would take an empty value for zero."""
    dead = migration_result(failover(flows=[flow(cuts=[Cut(279, 9999)])]))
    found = dict(properties(dead.migration, "fail"))
    assert (found["longest_outage_ms_jumbo"], found["total_outage_ms_jumbo"]) == ("open", "open")


def test_the_second_migrations_properties_have_names_of_their_own() -> None:
    """JUnit readers keep one value per name."""
    migration = migration_result(failover()).migration
    first = {name for name, _ in properties(migration, "pass")}
    second = {name for name, _ in properties(migration, "pass", number=2)}
    assert not first & second
