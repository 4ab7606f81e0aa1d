"""What a device wrote down of its own DMA is held against what was seen from outside."""

from __future__ import annotations

from pathlib import Path
from typing import Any, cast

import pandas as pd
import pytest
from synthetic import FAILOVER_EVENTS, event, failover
from timelines import MS, by, only, timeline
from timelines import state as state

from harness.analysis.measured import DEVICE_WROTE, Measured
from harness.analysis.memory import read_log
from harness.analysis.migration import analyse
from harness.analysis.order import dma_order
from harness.analysis.verdict import Limits
from harness.migration.watch import Seen
from harness.migration.witness import WitnessedComparison
from harness.report import words
from harness.report.entry import migration_result
from harness.twin.dma_log import MISBEHAVED, DmaLog, Kind

LAST_PASS_MS = 3900


def log_of(*accesses: tuple[float, int]) -> pd.DataFrame:
    """A log in the peer's clock; of each access its time in ms from asking, and its kind."""
    log = pd.DataFrame(
        {
            "t_ns": [by("peer", t_ms) for t_ms, _ in accesses],
            "length": 100,
            "writes": [kind & ~MISBEHAVED >= Kind.RX_DATA for _, kind in accesses],
            "misbehaved": [bool(kind & MISBEHAVED) for _, kind in accesses],
        }
    )
    log.attrs["dropped"] = 0
    return log


def test_the_last_write_stands_on_the_timeline_with_those_since_asking(state: Path) -> None:
    """The log has the peer's clock, and begins long before; the VF is one of alder's."""
    accesses = log_of(
        (-500, Kind.RX_DATA), (10, Kind.RX_DATA), (250, Kind.RX_WRITEBACK | MISBEHAVED),
        (900, Kind.RX_DESCRIPTOR),
    )  # fmt: skip
    found = timeline(state, Seen("alder", dma=accesses, dma_clock="peer"))
    wrote = only(found, DEVICE_WROTE)
    assert (wrote.t_ns - found.asked_ns, wrote.source) == (250 * MS, "dma:alder")
    assert wrote.data == {"writes": 2, "bytes": 200, "misbehaved": 1, "not_logged": 0}


def test_a_device_that_wrote_nothing_has_no_last_write(state: Path) -> None:
    seen = Seen("alder", dma=log_of((10, Kind.RX_DESCRIPTOR)), dma_clock="peer")
    assert all(each.name != DEVICE_WROTE for each in timeline(state, seen).events)


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
    """A VF of a migration that was given up writes on, as it should."""
    orders = dma_order(wrote(t_ms, status))
    assert [each.outcome for each in orders] == outcomes
    assert "still wrote 100 ms after the last pass" in orders[-1].why or len(orders) == 1


def test_a_write_without_the_right_to_fails_every_migration() -> None:
    """Memory need not have been compared."""
    verdict = analyse(wrote(270, misbehaved=3), Limits()).verdict
    assert verdict.word == "fail"
    assert verdict.reasons[0].startswith("the device wrote 3 times without the right to")


@pytest.mark.parametrize(
    ("t_ms", "wrong", "said"),
    [
        (270, 0, "last at 270.0 ms, 10 ms before the VF was seen released; none of these"),
        (285, 2, "last at 285.0 ms, 5.0 ms after the VF was seen released; 2 of these"),
    ],
)
def test_a_report_says_what_the_device_wrote(t_ms: float, wrong: int, said: str) -> None:
    told = words.device_log(migration_result(wrote(t_ms, misbehaved=wrong)).migration)
    assert told.startswith("By its own log the source's VF wrote to the guest's memory 1200 times")
    assert "(3.4 MB)" in told
    assert said in told
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
    """Such a page was marked as dirty long before; only what is written meanwhile can be lost."""
    monkeypatch.setattr("harness.migration.comparison.Comparison.prepare", lambda *_: None)
    log = DmaLog(str(tmp_path / "dma.log"), 100)
    log.add(0x1000, 64, Kind.RX_DATA, 0)
    comparison = WitnessedComparison(Growing(log))
    nobody = cast("Any", None)
    comparison.prepare(nobody, nobody, nobody)
    log.add(0x2FF0, 64, Kind.RX_DATA, 0)
    differ = pd.DataFrame({"page_frame": [1, 2, 3], "owner": ["", "", ""]})
    told = comparison._explained(nobody, nobody, differ)
    assert (told["unexplained"], told["not_logged"]) == ([1], 0)
    assert len(read_log(comparison._log.dma_log())) == 2
    log.close()
