"""A guest that kept its VF: phases, order, verdict, and its row in the table of orders."""

from __future__ import annotations

from collections.abc import Sequence
from io import StringIO
from typing import Any

import pytest
from rich.console import Console
from synthetic import Cut, bme, event, failover, flow
from test_report_results import run_of

from harness.analysis.measured import Event, Measured
from harness.analysis.order import dma_order
from harness.report.entry import Recorded, migration_result
from harness.report.inplace import inplace_rows
from harness.report.summary import summary

PLAN = {
    "quiesce": "bme-cleared", "when": "pre-copy", "marking": "after", "passes": 0, "gap_s": 0.0,
}  # fmt: skip
KEPT = {
    "pages": 131072, "differ": 0, "may_differ": 0, "must_differ": 0, "unexplained": [],
    "writes": 900, "late_writes": 0, "close_writes": 0, "not_lost": 0,
}  # fmt: skip
CLEARED, BACK = (bme(1500, "alder", 0x0402, "vf0"), bme(4900, "birch", 0x0406, "vf0"))
STAYS, DEAD = bme(-900, "alder", 0x0406, "vf0"), bme(4900, "birch", 0x0000, "vf0")


def moved(
    *notes: Event,
    plan: dict[str, Any] = PLAN,
    pages: dict[str, Any] = KEPT,
    samples: Sequence[Any] = (STAYS, CLEARED, BACK),
    cuts: Sequence[Cut] = (Cut(1500, 5200),),
) -> Measured:
    """A guest that moved from alder to birch with its VF; QEMU paused before its last pass."""
    events = [
        event(-950, "conductor", "in place", **plan),
        event(0, "conductor", "migrate asked", 0),
        event(5, "qmp:alder", "MIGRATION active"),
        event(3300, "qmp:alder", "STOP"),
        event(3301, "qmp:alder", "MIGRATION pre-switchover"),
        event(3400, "qmp:alder", "MIGRATION device"),
        event(3500, "qmp:alder", "MIGRATION completed"),
        event(4700, "conductor", "memory compared", **pages),
        event(4800, "qmp:birch", "RESUME"),
        *notes,
    ]
    return failover(scheme="inplace", events=events, bme=samples, flows=(flow(cuts=cuts),))


def reported(measured: Measured) -> Recorded:
    return migration_result(measured)


def test_what_is_done_before_the_migration_has_a_phase_of_its_own() -> None:
    """The guest's users wait from then on; that is no unrest from before, but the migration's."""
    asleep = moved(event(-600, "conductor", "quiesce"), cuts=(Cut(-590, 5200),))
    migration = reported(asleep).migration
    assert [phase.name for phase in migration.phases] == [
        "before", "quiesce", "pre-copy", "stop", "resume", "after",
    ]  # fmt: skip
    assert migration.flows[0].outages[0].phase == "quiesce"
    assert reported(asleep).verdict.word == "pass", reported(asleep).verdict


def test_the_devices_own_log_says_whether_dma_had_stopped() -> None:
    """A driver that suspends leaves BME set and writes no more; one that is deaf to BME goes on."""
    assert [each.outcome for each in dma_order(moved(samples=(STAYS, BACK)))] == ["kept"]
    (order,) = dma_order(moved(pages={**KEPT, "late_writes": 7}))
    assert order.outcome == "broken"
    assert "wrote 7 times after the stopped pass had begun" in order.why
    (order,) = dma_order(moved(pages={**KEPT, "close_writes": 2}))
    assert order.outcome == "unknown"
    assert "wrote 2 times about when the stopped pass began" in order.why
    (order,) = dma_order(moved(pages={**KEPT, "late_writes": 1, "close_writes": 2}))
    assert order.outcome == "broken"
    (order,) = dma_order(moved(pages={**KEPT, "writes": 0}))
    assert (order.outcome, "has no write at all" in order.why) == ("unknown", True)


@pytest.mark.parametrize(
    ("pages", "samples", "reason"),
    [
        ({"differ": 24, "may_differ": 30}, (STAYS, CLEARED, BACK), "24 of 131072 pages of memory"),
        ({"differ": 1, "unexplained": [7]}, (STAYS, CLEARED, BACK), "1 of them the device did not"),
        ({}, (CLEARED, DEAD), "the guest's VF never mastered the bus at the destination"),
        ({}, (STAYS, CLEARED, DEAD), "its COMMAND was 0x0406 at alder and is 0x0000 at birch"),
    ],
)
def test_lost_memory_and_a_dead_vf_fail_the_migration(
    pages: dict[str, Any], samples: Sequence[Any], reason: str
) -> None:
    """QEMU says `completed` of each of these."""
    verdict = reported(moved(pages={**KEPT, **pages}, samples=samples)).verdict
    assert verdict.word == "fail"
    assert any(reason in each for each in verdict.reasons), verdict.reasons


def test_a_log_that_is_not_the_whole_truth_makes_it_invalid() -> None:
    """Pages that it would explain could be the order's fault, and could be ours."""
    verdict = reported(moved(pages={**KEPT, "not_lost": 2})).verdict
    assert verdict.word == "invalid"
    assert "2 pages arrived that had to be lost" in verdict.reasons[0]


def test_the_table_has_a_row_for_each_order_and_the_worst_first() -> None:
    """What was done, what was lost, why, and what the VF was good for afterwards."""
    wrong = moved(
        event(1400, "conductor", "marked", pages=1028),
        plan={**PLAN, "marking": "before", "passes": 1, "gap_s": 1.0},
        pages={**KEPT, "differ": 24, "must_differ": 23, "may_differ": 25},
        samples=(STAYS, CLEARED),
        cuts=(Cut(1500, 99_000),),
    )
    refused = moved(
        event(1400, "conductor", "marking refused", text="the client refused"),
        samples=(STAYS, BACK),
    )
    runs = [reported(each).migration for each in (refused, wrong)]
    first, second = inplace_rows(run_of(*runs), {id(runs[1]): "m2"})
    assert (first.key, first.stopped, first.when) == ("m2", "BME cleared by the host", "pre-copy")
    assert first.marked == "before the stop, 1 pass and 1 s between (1028 pages)"
    assert (first.lost_pages, first.all_kept) == ("24 of 131072", False)
    assert first.explained.endswith("predicted: 23 to 25")
    assert (first.bme, first.afterwards) == ("0 at +1.50 s", "dead, though set up there")
    assert second.marked == "refused: the client refused"
    assert (second.bme, second.all_kept) == ("stays 1", True)
    assert second.afterwards == "back 400 ms after the guest ran on"


def test_a_vf_that_nobody_set_up_again_is_told_from_one_that_carries_nothing() -> None:
    """The first is what a guest without a resume comes to; the second would be our own fault."""
    unset = moved(event(6900, "conductor", "vf not taken up"), cuts=(Cut(1500, 99_000),))
    (row,) = inplace_rows(run_of(reported(unset).migration), {})
    assert row.afterwards == "dead: no driver set it up there"


def test_pages_that_nothing_explains_are_told_apart() -> None:
    pages = {**KEPT, "differ": 2, "unexplained": [3]}
    (row,) = inplace_rows(run_of(reported(moved(pages=pages)).migration), {})
    assert row.explained == "1 were not written by the device after their last copy"


def test_the_terminal_shows_the_orders_too_and_only_where_there_are_some() -> None:
    def printed(measured: Measured) -> str:
        console = Console(file=StringIO(), width=140)
        summary(run_of(reported(measured).migration), console)
        return console.file.getvalue()  # type: ignore[attr-defined, no-any-return]

    assert "BME cleared by the host" in printed(moved())
    assert "DMA stopped by" not in printed(failover())
