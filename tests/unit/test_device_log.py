"""A device's own DMA log is held against what the harness sees from outside."""

from __future__ import annotations

from pathlib import Path
from typing import Any, cast

import pandas as pd
import pytest
from synthetic import FAILOVER_EVENTS, event, failover
from timelines import KNOWN_TO_MS, MS, by, only, timeline
from timelines import state as state

from harness.analysis.measured import DEVICE_WROTE, Measured
from harness.analysis.memory import DOUBT_NS, read_log, since
from harness.analysis.migration import analyse
from harness.analysis.order import dma_order
from harness.analysis.verdict import Limits
from harness.migration.watch import Seen
from harness.migration.witness import WitnessedComparison
from harness.report import words
from harness.report.entry import migration_result
from harness.twin.dma_log import MISBEHAVED, DmaLog, Kind

LAST_PASS_MS = 3900


def seen(*accesses: tuple[float, int], missed: int = 0) -> Seen:
    """A VF of alder and its log: of each access the time in ms from asking, and the kind."""
    log = pd.DataFrame(
        {
            "t_ns": [by("alder", t_ms) for t_ms, _ in accesses],
            "length": 100,
            "writes": [kind & ~MISBEHAVED >= Kind.RX_DATA for _, kind in accesses],
            "misbehaved": [bool(kind & MISBEHAVED) for _, kind in accesses],
        }
    ).astype({"writes": bool, "misbehaved": bool})
    log.attrs["missed"] = missed
    return Seen("alder", dma=log, dma_clock="alder")


def test_the_last_write_stands_on_the_timeline_with_those_since_asking(state: Path) -> None:
    """A write without the right to counts from when somebody looked: DMA may be stopped before."""
    accesses = (
        (-500, Kind.RX_DATA | MISBEHAVED), (10, Kind.RX_DATA), (250, Kind.RX_WRITEBACK),
        (900, Kind.RX_DESCRIPTOR),
    )  # fmt: skip
    found = timeline(state, seen(*accesses))
    wrote = only(found, DEVICE_WROTE)
    assert (wrote.t_ns - found.asked_ns, wrote.source) == (250 * MS, "dma:alder")
    assert wrote.uncertainty_ns == KNOWN_TO_MS["alder"] * MS + DOUBT_NS
    assert wrote.data == {"writes": 2, "bytes": 200, "misbehaved": 1, "not_logged": 0}


def test_a_device_that_wrote_nothing_has_no_last_write(state: Path) -> None:
    found = timeline(state, seen((10, Kind.RX_DESCRIPTOR)))
    assert all(each.name != DEVICE_WROTE for each in found.events)


def test_what_a_full_log_has_no_room_for_is_told_though_no_write_is_in_it(state: Path) -> None:
    found = timeline(state, seen(missed=7))
    wrote = only(found, DEVICE_WROTE)
    assert wrote.data == {"writes": 0, "bytes": 0, "misbehaved": 0, "not_logged": 7}


@pytest.mark.parametrize("wraps", [False, True], ids=["full", "wraps"])
@pytest.mark.parametrize("made", range(12))
@pytest.mark.parametrize("number", range(12))
def test_of_the_accesses_since_a_moment_those_that_a_log_has_not_are_counted(
    tmp_path: Path, wraps: bool, made: int, number: int
) -> None:
    """A log for four records has the first four of all, or the newest, one to four of them."""
    if number > made:
        return
    log = DmaLog(str(tmp_path / "dma.log"), 4, wraps=wraps)
    for address in range(made):
        log.add(address, 1, Kind.RX_DATA, 0)
    log.close()
    found = since(read_log((tmp_path / "dma.log").read_bytes()), number)
    kept = range(min(4, made))
    if wraps and made:
        kept = range((made - 1) // 4 * 4, made)
    expected = [each for each in kept if each >= number]
    assert found["address"].tolist() == expected
    assert found.attrs["missed"] == made - number - len(expected)


def wrote(t_ms: float, status: str = "completed", **more: int) -> Measured:
    data = {"writes": 1200, "bytes": 3_400_000, "misbehaved": 0, "not_logged": 0, **more}
    last = event(t_ms, "dma:alder", DEVICE_WROTE, **data)
    return failover(events=[*FAILOVER_EVENTS, last], status=status)


@pytest.mark.parametrize(
    ("t_ms", "status", "outcomes"),
    [
        (270, "completed", ["kept"]),
        (LAST_PASS_MS + 100, "completed", ["kept", "broken"]),
        (LAST_PASS_MS + 100, "cancelled", ["kept"]),
    ],
)
def test_a_write_after_the_last_pass_breaks_the_order_though_bme_is_clear(
    t_ms: float, status: str, outcomes: list[str]
) -> None:
    """The VF of a migration that was given up writes on, as it should."""
    assert [each.outcome for each in dma_order(wrote(t_ms, status))] == outcomes


def test_a_write_that_is_too_late_is_told_with_the_pass_that_was_too_early() -> None:
    (*_, order) = dma_order(wrote(LAST_PASS_MS + 100))
    assert order.why == "the device still wrote 100 ms after MIGRATION_PASS 2, by its own log"


def test_a_write_without_the_right_to_fails_every_migration() -> None:
    """Memory need not have been compared."""
    verdict = analyse(wrote(270, misbehaved=3), Limits()).verdict
    assert verdict.word == "fail"
    assert verdict.reasons[0].startswith("the device wrote 3 times without the right to")


def test_a_log_that_had_no_room_makes_a_migration_invalid() -> None:
    """Its last write came after the last one that is known."""
    verdict = analyse(wrote(270, not_logged=5), Limits()).verdict
    assert verdict.word == "invalid"
    assert verdict.reasons[0].startswith("the device's log had no room for 5 accesses")


@pytest.mark.parametrize(
    ("told", "said"),
    [
        ({}, "1200 times (3.4 MB) from when the migration was asked for, last at 270.0 ms, 10 ms"
         " before the VF was seen released; it never wrote without the right to."),
        ({"misbehaved": 2}, "10 ms before the VF was seen released; it wrote 2 times without the"
         " right to."),
        ({"writes": 0}, "wrote nothing once the migration was asked for."),
        ({"not_logged": 3}, "had no room for 3 accesses."),
    ],
)  # fmt: skip
def test_a_report_says_what_the_device_wrote(told: dict[str, Any], said: str) -> None:
    migration = migration_result(wrote(270, **told)).migration
    assert words.device_log(migration).endswith(said)


def test_a_report_says_that_the_device_wrote_after_its_release() -> None:
    migration = migration_result(wrote(285)).migration
    assert "5.0 ms after the VF was seen released" in words.device_log(migration)


def test_a_report_says_nothing_of_a_device_without_a_log() -> None:
    assert words.device_log(migration_result(failover()).migration) == ""


class Growing:
    """A device whose log is the file of *log*."""

    clock_of = "peer"

    def __init__(self, log: DmaLog) -> None:
        self._log = log

    @property
    def accesses(self) -> int:
        return self._log.count

    def dma_log(self) -> bytes:
        self._log.settle()
        return Path(self._log.path).read_bytes()


def test_a_page_written_before_the_migration_is_lost_by_something_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """QEMU copies such a page in its first pass; only what is written meanwhile can be lost."""
    monkeypatch.setattr("harness.migration.comparison.Comparison.prepare", lambda *_: None)
    log = DmaLog(str(tmp_path / "dma.log"), 100)
    log.add(0x1000, 64, Kind.RX_DATA, 0)
    comparison = WitnessedComparison(Growing(log))
    nobody = cast("Any", None)
    comparison.prepare(nobody, nobody, nobody)
    log.add(0x2FF0, 64, Kind.RX_DATA, 0)
    differ = pd.DataFrame({"page_frame": [1, 2, 3], "owner": ["", "", ""]})
    assert comparison._explained(nobody, nobody, differ)["unexplained"] == [1]
    log.close()
