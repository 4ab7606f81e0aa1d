"""What is said of a run in words: the terminal's table, the page's, and JUnit's properties."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import pytest
from synthetic import (
    FAILOVER_EVENTS,
    Cut,
    event,
    failover,
    flow,
)
from test_report_page import case_of, printed, recorded_run, three_flows
from test_report_results import run_of

from harness.analysis.measured import ECHOES
from harness.analysis.verdict import Limits
from harness.report import tables, words
from harness.report.entry import migration_result
from harness.report.junit import properties


def test_the_headline_puts_both_figures_side_by_side() -> None:
    assert words.headline(migration_result(failover()).migration) == (
        "Users were cut off for 1.91 s, beginning in stop. QEMU says 224 ms (\u00d7 8.5)."
    )


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
    found = dict(properties(migration_result(three_flows()).migration))
    assert found["qemu_downtime_ms"] == "224"
    assert found["longest_outage_ms_jumbo"] == "1905"
    assert found["total_outage_ms_jumbo"] == "2075"
    assert found["lost_jumbo"] == "410"
    assert found["verdict"] == "pass"


def test_junit_has_each_reason_and_qemus_own() -> None:
    """CI shows the properties and not the page; QEMU's semicolon separates nothing."""
    moved = failover(status="failed", reason="gone; nothing heard")
    found = dict(properties(migration_result(moved, Limits(lost=1)).migration))
    assert found["reason"].splitlines() == [
        "the migration ended as failed, not as completed: gone; nothing heard",
        "flow jumbo: 410 frames lost, more than 1",
    ]
    assert found["qemu_reason"] == "gone; nothing heard"
    passed = dict(properties(migration_result(failover()).migration))
    assert not {"reason", "qemu_reason"} & set(passed)


def test_an_open_outage_is_no_number_in_junit() -> None:
    """A tool that plots would take an empty value for zero."""
    dead = migration_result(failover(flows=[flow(cuts=[Cut(279, 9999)])]))
    found = dict(properties(dead.migration))
    assert (found["longest_outage_ms_jumbo"], found["total_outage_ms_jumbo"]) == ("open", "open")


def test_the_second_migrations_properties_have_names_of_their_own() -> None:
    """JUnit readers keep one value per name."""
    migration = migration_result(failover()).migration
    first = {name for name, _ in properties(migration)}
    second = {name for name, _ in properties(migration, number=2)}
    assert not first & second
