"""The order of DMA and STOP where QEMU drives a VF by VFIO's migration states."""

from __future__ import annotations

from dataclasses import replace

import pytest
from synthetic import FAILOVER_EVENTS, VF, bme, event, failover

from harness.analysis.measured import Measured
from harness.analysis.migration import analyse
from harness.analysis.order import dma_order
from harness.analysis.verdict import Limits


def driven(*states: tuple[float, str], doubt_ms: float = 2.4) -> Measured:
    """A VF that QEMU drives; its driver never clears BME, since it knows of no migration."""
    events = [event(t, "vfio:alder", f"vfio state {s}", doubt_ms, vf=VF) for t, s in states]
    return failover(
        scheme="inplace",
        events=[*FAILOVER_EVENTS, *events, event(6000, "vfio:birch", "vfio state STOP", vf=VF)],
        bme=[bme(-900, "alder", 0x0507), bme(7000, "alder", 0x0507), bme(6500, "birch", 0x0507)],
    )


@pytest.mark.parametrize(("t_ms", "outcome"), [(4521, "kept"), (4523.5, "kept"), (4530, "broken")])
def test_a_device_that_vfio_stopped_need_not_have_its_bme_clear(t_ms: float, outcome: str) -> None:
    halted = driven((-900, "RUNNING"), (t_ms, "STOP_COPY"))
    assert [order.outcome for order in dma_order(halted)] == [outcome]
    assert analyse(halted, Limits()).verdict.word == ("pass" if outcome == "kept" else "fail")


@pytest.mark.parametrize(
    ("states", "outcome"),
    [
        ([(-950, "STOP"), (-900, "RUNNING")], "broken"),
        ([(400, "STOP"), (500, "RUNNING")], "broken"),
        ([(400, "STOP"), (500, "PRE_COPY"), (4523, "STOP_COPY")], "kept"),
        ([(400, "STOP"), (500, "RUNNING"), (4000, "STOP")], "kept"),
        ([(400, "STOP"), (500, "RUNNING"), (4600, "STOP")], "broken"),
        ([(4500, "STOP_COPY"), (4524, "RUNNING")], "broken"),
        ([(4500, "STOP_COPY"), (4600, "RUNNING"), (4700, "STOP_COPY")], "broken"),
        ([(4500, "STOP_COPY"), (4521, "RUNNING"), (4524, "STOP_COPY")], "unknown"),
        ([(4500, "STOP_COPY"), (4738, "RUNNING")], "unknown"),
        ([(4500, "STOP_COPY"), (4743, "RUNNING")], "kept"),
    ],
    ids=str,
)
def test_a_device_that_runs_again_must_be_stopped_again_by_stop(
    states: list[tuple[float, str]], outcome: str
) -> None:
    """And must not run before the last pages are copied, at 4740 ms."""
    assert [order.outcome for order in dma_order(driven(*states))] == [outcome]


def test_a_state_that_nobody_could_read_in_time_is_unknown() -> None:
    """A driver lets who asks wait while the device changes its state: for a second here."""
    late = driven((-900, "RUNNING"), (5400, "STOP_COPY"), doubt_ms=1000)
    (order,) = dma_order(late)
    assert (order.outcome, "is known to 1000 ms only" in order.why) == ("unknown", True)
    near = driven((-900, "RUNNING"), (4523, "STOP_COPY"), doubt_ms=20)
    assert [order.outcome for order in dma_order(near)] == ["unknown"]
    again = driven((100, "STOP_COPY"), (4530, "RUNNING"), (4700, "STOP"), doubt_ms=50)
    (order,) = dma_order(again)
    assert order.outcome == "broken"
    assert "run again before its last pages were copied" in order.why


@pytest.mark.parametrize(
    ("states", "outcome", "told"),
    [
        ([(4521, "STOP_COPY"), (4600, "ERROR")], "unknown", "was in VFIO's state ERROR"),
        ([(4521, "STOP_COPY"), (4600, "9")], "unknown", "was in VFIO's state 9"),
        ([(4521, "STOP_COPY"), (4600, "RESUMING")], "kept", "had stopped"),
        ([(4521, "STOP_COPY"), (4600, "PRE_COPY_P2P")], "broken", "run again"),
        ([(4521, "STOP_COPY"), (4600, "ERROR"), (4650, "RUNNING")], "broken", "run again"),
        ([(100, "ERROR"), (4600, "STOP_COPY")], "unknown", "was in VFIO's state ERROR"),
        ([(100, "RUNNING"), (300, "PRE_COPY"), (4521, "STOP_COPY")], "kept", "had stopped"),
    ],
)
def test_what_a_device_did_in_a_state_without_a_promise_nobody_knows(
    states: list[tuple[float, str]], outcome: str, told: str
) -> None:
    """One that failed has to be reset; one that is being loaded does nothing."""
    (order,) = dma_order(driven(*states))
    assert (order.outcome, told in order.why) == (outcome, True), order


def test_a_device_that_nobody_watched_to_the_end_may_have_run_again() -> None:
    halted = driven((-900, "RUNNING"), (4521, "STOP_COPY"))
    for seen, outcome in (
        ([], "unknown"),
        ([bme(4600, "alder", 0x0507)], "unknown"),
        ([bme(7000, "birch", 0x0507)], "unknown"),
        ([bme(t, "alder", 0x0103, vf="b") for t in (-900, 7000)], "unknown"),
        ([bme(4600, "alder", 0xFFFF)], "kept"),
        ([bme(4741, "alder", 0x0507)], "kept"),
    ):
        orders = dma_order(replace(halted, bme=tuple(seen)))
        assert orders[-1].outcome == outcome, seen


def test_a_device_that_was_stopped_late_is_told_from_one_that_ran_again() -> None:
    """Its first state is seen some time after it was asked for: it ran before that, too."""
    (order,) = dma_order(driven((100, "RUNNING"), (4530, "STOP_COPY")))
    assert order.why == f"VFIO stopped {VF} 7 ms after the guest"


def test_a_state_of_before_the_migration_is_none_of_it() -> None:
    """A guest that was stopped and went on may have left it; BME says what the VF might do."""
    assert [order.outcome for order in dma_order(driven((-900, "STOP")))] == ["broken"]


def test_each_vf_that_vfio_stopped_is_judged() -> None:
    first = driven((-900, "RUNNING"), (4521, "STOP_COPY"))
    late = event(4900, "vfio:alder", "vfio state STOP_COPY", 1, vf="b")
    both = replace(first, events=(*first.events, late))
    assert sorted(order.outcome for order in dma_order(both)) == ["broken", "kept"]


def test_a_vf_that_vfio_stopped_does_not_answer_for_another() -> None:
    halted = driven((-900, "RUNNING"), (4521, "STOP_COPY"))
    other = [bme(-900, "alder", 0x0507, vf="b"), bme(4700, "alder", 0x0507, vf="b")]
    both = replace(halted, bme=(*halted.bme, *other))
    assert sorted(order.outcome for order in dma_order(both)) == ["broken", "kept"]


def test_a_device_that_stays_running_is_judged_by_its_bme() -> None:
    """The destination's states are of another device."""
    running = failover(
        scheme="inplace",
        events=[
            event(-900, "vfio:alder", "vfio state RUNNING"),
            *FAILOVER_EVENTS,
            event(4000, "vfio:birch", "vfio state STOP"),
        ],
        bme=[bme(-900, "alder", 0x0507), bme(7000, "alder", 0x0507)],
    )
    assert [order.outcome for order in dma_order(running)] == ["broken"]
