"""The order of DMA, the last pass and STOP: kept, broken by name, or not to be told."""

from __future__ import annotations

from dataclasses import replace

import pytest
from synthetic import FAILOVER_BME, FAILOVER_EVENTS, VF, bme, event, failover, refused

from harness.analysis.excerpt import LEFT_OUT
from harness.analysis.measured import Measured
from harness.analysis.migration import analyse
from harness.analysis.order import dma_order, surely_before
from harness.analysis.verdict import Limits, Verdict

WITHOUT_RELEASE = tuple(e for e in FAILOVER_EVENTS if e.name != "vf released")


def judged(measured: Measured, *, order: bool = True) -> Verdict:
    return analyse(measured, Limits(dma_order=order)).verdict


def test_a_vf_whose_bme_is_1_at_stop_breaks_the_order_by_name() -> None:
    """DMA must be off first.  The VF wrote into pages that were already copied."""
    late = [bme(-900, "alder", 0x0507), bme(4600, "alder", 0x0103)]
    verdict = judged(failover(bme=late))
    assert verdict.word == "fail"
    assert verdict.reasons == (
        "DMA order broken: VF 0000:01:10.0 of alder: BME was still 1 at the last pass before STOP,"
        " first seen 0 700 ms later",
    )
    assert judged(failover(bme=late), order=False).word == "pass"


def test_what_is_broken_is_shown_on_the_timeline() -> None:
    """Who reads a failure wants to see what came before what, and how exactly that is known."""
    late = [bme(-900, "alder", 0x0507), bme(4600, "alder", 0x0103)]
    lines = judged(failover(bme=late)).excerpt
    assert [line.split("  ")[-1].strip() for line in lines] == [
        "MIGRATION_PASS 1", "filter cleared", "MIGRATION_PASS 2", "STOP", "MIGRATION device",
        "0000:01:10.0 COMMAND 0x0103, by vfio", "MIGRATION completed", "FAILOVER_NEGOTIATED",
    ]  # fmt: skip
    assert lines[5].startswith("     +4600.0 ms ±0.4   bme:alder ")
    assert judged(failover()).excerpt == ()


def test_what_lies_between_two_moments_is_left_out_of_an_excerpt() -> None:
    never = [bme(-900, "alder", 0x0507), bme(7700, "alder", 0x0507)]
    busy = [event(t_ms, "guest", "eth2 link up") for t_ms in range(4000, 4500, 100)]
    (order,) = dma_order(failover(bme=never, events=[*FAILOVER_EVENTS, *busy]))
    assert [line == LEFT_OUT for line in order.excerpt] == [False] * 5 + [True] + [False] * 5


@pytest.mark.parametrize(("t_ms", "outcome"), [(3800, "kept"), (4200, "broken")])
def test_dma_stops_before_the_last_pass_and_not_just_before_stop(t_ms: float, outcome: str) -> None:
    """Between that pass and STOP the guest still runs, and what it gets may not be marked."""
    stops = [(-900, 0x0507), (t_ms, 0x0103), (7000, 0x0103)]
    seen = [bme(at_ms, "alder", command) for at_ms, command in stops]
    assert [o.outcome for o in dma_order(failover(bme=seen))] == [outcome]


def test_without_an_announced_pass_the_first_one_is_the_last() -> None:
    alone = [e for e in FAILOVER_EVENTS if not e.name.startswith("MIGRATION_PASS")]
    stops = [bme(-900, "alder", 0x0507), bme(3000, "alder", 0x0103)]
    assert [o.outcome for o in dma_order(failover(bme=stops, events=alone))] == ["broken"]


@pytest.mark.parametrize(
    ("t_ms", "outcome"),
    [(4400, "broken"), (4523.1, "broken"), (4739, "broken"), (4740.3, "unknown"), (4741, "kept")],
)
def test_a_vf_that_masters_the_bus_before_all_is_copied_breaks_it(
    t_ms: float, outcome: str
) -> None:
    """QEMU copies the last pages after STOP; after that it may do what it likes with them."""
    again = [*FAILOVER_BME[:3], bme(t_ms, "alder", 0x0507)]
    assert [o.outcome for o in dma_order(failover(bme=again))] == [outcome]


@pytest.mark.parametrize(
    "ended", ["MIGRATION cancelling", "MIGRATION cancelled", "MIGRATION failed", "RESUME"]
)
def test_a_vf_may_do_as_it_likes_once_its_migration_is_given_up(ended: str) -> None:
    """By the source's word after STOP; neither the destination's nor a RESUME of before is that."""
    until_stop = [e for e in FAILOVER_EVENTS if e.name != "MIGRATION completed"]
    events = [event(4000, "qmp:alder", "RESUME"), *until_stop, event(4600, "qmp:alder", ended)]
    events += [event(4530, "qmp:birch", "MIGRATION failed")]
    for t_ms, outcome in ((4560, "broken"), (4650, "kept")):
        again = [*FAILOVER_BME[:3], bme(t_ms, "alder", 0x0507)]
        given_up = failover(bme=again, events=events, status="cancelled")
        assert [o.outcome for o in dma_order(given_up)] == [outcome]


def test_a_vf_whose_bme_is_never_cleared_breaks_the_order() -> None:
    never = [bme(-900, "alder", 0x0507), bme(4700, "alder", 0x0507)]
    assert [o.outcome for o in dma_order(failover(bme=never))] == ["broken"]


def test_each_vf_is_judged_by_itself() -> None:
    """One quiet VF must not answer for another that still writes."""
    two = [*FAILOVER_BME, bme(-900, "alder", 0x0507, vf="b"), bme(4700, "alder", 0x0507, vf="b")]
    assert [o.outcome for o in dma_order(failover(bme=two))] == ["kept", "broken"]


@pytest.mark.parametrize("t_ms", [3900.3, 3899.7])
def test_a_change_too_close_to_the_last_pass_is_unknown_and_invalid(t_ms: float) -> None:
    """The clocks of two machines cannot tell 0.3 ms; a guess either way would be a claim."""
    close = [bme(-900, "alder", 0x0507), bme(t_ms, "alder", 0x0103)]
    assert [o.outcome for o in dma_order(failover(bme=close))] == ["unknown"]
    assert judged(failover(bme=close)).word == "invalid"


def test_an_observer_that_ended_before_stop_knows_nothing() -> None:
    """Its last word was 1, long before STOP; silence since then is not a broken order."""
    ended = [bme(-900, "alder", 0x0507), bme(1000, "alder", 0x0507)]
    assert [o.outcome for o in dma_order(failover(bme=ended))] == ["unknown"]


@pytest.mark.parametrize(
    "samples", [[(-900, 0x0103)], [(-900, 0x0507), (50, 0x0103), (4700, 0x0103)]], ids=str
)
def test_an_observer_that_ended_before_all_is_copied_does_not_know_of_zero_either(
    samples: list[tuple[float, int]],
) -> None:
    """A driver may have set BME since, and the device have written."""
    ended = [bme(t_ms, "alder", command) for t_ms, command in samples]
    (order,) = dma_order(failover(bme=ended))
    assert order.outcome == "unknown"
    assert order.why.endswith("nobody looked at its BME as far as MIGRATION completed")


def test_a_change_that_may_be_before_the_pass_makes_the_order_unknown() -> None:
    """Though another change is nearer to it by the middle of what is known of both."""
    surely = bme(3890, "alder", 0x0507, uncertainty_ms=0.4)
    maybe = bme(3990, "alder", 0x0103, uncertainty_ms=100.4)
    samples = [bme(-900, "alder", 0x0103), surely, maybe, bme(9000, "alder", 0x0103)]
    (order,) = dma_order(failover(bme=samples))
    assert order.outcome == "unknown"


def test_a_vf_that_is_gone_has_stopped() -> None:
    """All ones has the bit of BME set; it means that no function answered."""
    gone = [bme(-900, "alder", 0x0507), bme(400, "alder", 0xFFFF)]
    assert [o.outcome for o in dma_order(failover(bme=gone))] == ["kept"]


def test_without_an_observer_the_release_is_the_evidence() -> None:
    late = [*WITHOUT_RELEASE, event(4700, "conductor", "vf released")]
    assert [o.outcome for o in dma_order(failover(bme=()))] == ["kept"]
    assert [o.outcome for o in dma_order(failover(bme=(), events=late))] == ["broken"]


def test_without_any_evidence_nothing_is_claimed() -> None:
    """A migration whose VF nobody watched must not pass as one whose DMA stopped in time."""
    (order,) = dma_order(failover(bme=(), events=WITHOUT_RELEASE))
    assert order.outcome == "unknown"
    assert dma_order(failover(scheme="plain")) == []


def driven(*states: tuple[float, str], doubt_ms: float = 2.4) -> Measured:
    """A VF that QEMU drives; its driver never clears BME, since it knows of no migration."""
    events = [event(t, "vfio:alder", f"vfio state {s}", doubt_ms, vf=VF) for t, s in states]
    return failover(
        scheme="inplace",
        events=[*WITHOUT_RELEASE, *events, event(6000, "vfio:birch", "vfio state STOP", vf=VF)],
        bme=[bme(-900, "alder", 0x0507), bme(7000, "alder", 0x0507), bme(6500, "birch", 0x0507)],
    )


@pytest.mark.parametrize(("t_ms", "outcome"), [(4521, "kept"), (4523.5, "kept"), (4530, "broken")])
def test_a_device_that_vfio_stopped_need_not_have_its_bme_clear(t_ms: float, outcome: str) -> None:
    halted = driven((-900, "RUNNING"), (t_ms, "STOP_COPY"))
    assert [order.outcome for order in dma_order(halted)] == [outcome]
    assert judged(halted).word == ("pass" if outcome == "kept" else "fail")


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


def test_a_migration_that_completed_without_a_stop_has_an_order_that_nobody_knows() -> None:
    unstopped = [each for each in FAILOVER_EVENTS if each.name != "STOP"]
    assert [o.outcome for o in dma_order(failover(events=unstopped))] == ["unknown"]


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


def test_a_migration_that_was_refused_has_no_order() -> None:
    assert dma_order(refused()) == []


@pytest.mark.parametrize(
    ("t_ms", "uncertainty_ms", "sure"), [(98.9, 1, True), (99, 1, False), (50, 51, False)]
)
def test_one_event_is_before_another_if_no_uncertainty_can_swap_them(
    t_ms: float, uncertainty_ms: float, sure: bool
) -> None:
    """Either may be off by what stands beside it; an order that is only likely is none."""
    one, other = (event(t, "x", "x", u) for t, u in ((t_ms, uncertainty_ms), (100, 0)))
    assert surely_before(one, other) is sure
    assert not surely_before(other, one)
