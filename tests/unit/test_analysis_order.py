"""The order of DMA, the last pass and STOP: kept, broken by name, or not to be told."""

from __future__ import annotations

from dataclasses import replace

import pytest
from synthetic import FAILOVER_BME, FAILOVER_EVENTS, bme, event, failover, refused

from harness.analysis.excerpt import LEFT_OUT
from harness.analysis.measured import BmeSample, Measured
from harness.analysis.migration import analyse
from harness.analysis.order import dma_order
from harness.analysis.order.copying import surely_before
from harness.analysis.verdict import Limits, Verdict

THERE = bme(7000, "birch", 0x0406)
"""The VF at the destination, at work."""


def after_hole(t_ms: float, gap_ms: float, command: int) -> BmeSample:
    """A sample that came so long after the one before it."""
    sample = bme(t_ms, "alder", command, uncertainty_ms=gap_ms + 0.4)
    return replace(sample, gap_ns=round(gap_ms * 1e6))


def judged(measured: Measured, *, order: bool = True) -> Verdict:
    return analyse(measured, Limits(dma_order=order)).verdict


def test_a_vf_whose_bme_is_1_at_stop_breaks_the_order_by_name() -> None:
    """DMA must be off first.  The VF wrote into pages that were already copied."""
    late = [bme(-900, "alder", 0x0507), bme(4600, "alder", 0x0103), THERE]
    verdict = judged(failover(bme=late))
    assert verdict.word == "fail"
    assert verdict.reasons == (
        "DMA order broken: VF 0000:01:10.0 of alder: BME was still 1 at the last pass before STOP,"
        " first seen 0 700 ms later",
    )
    assert judged(failover(bme=late), order=False).word == "pass"


def test_what_is_broken_is_shown_on_the_timeline() -> None:
    """Who reads a failure wants to see what came before what, and how exactly that is known."""
    late = [bme(-900, "alder", 0x0507), bme(4600, "alder", 0x0103), THERE]
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


def test_a_pass_that_is_announced_after_stop_is_not_the_last_before_it() -> None:
    later = [*FAILOVER_EVENTS, event(4600, "qmp:alder", "MIGRATION_PASS 3")]
    stops = [bme(-900, "alder", 0x0507), bme(4550, "alder", 0x0103)]
    assert [o.outcome for o in dma_order(failover(bme=stops, events=later))] == ["broken"]


def test_without_any_pass_it_is_stop_that_counts() -> None:
    alone = [e for e in FAILOVER_EVENTS if "PASS" not in e.name and "active" not in e.name]
    stops = [bme(-900, "alder", 0x0507), bme(4600, "alder", 0x0103)]
    (order,) = dma_order(failover(bme=stops, events=alone))
    assert "BME was still 1 at STOP, first seen 0 77 ms later" in order.why


def test_the_other_hosts_vf_is_none_of_it() -> None:
    """Its driver may set it up while pages are still copied; it has the same address there."""
    early = [*FAILOVER_BME[:4], bme(4600, "birch", 0x0406), bme(9000, "birch", 0x0406)]
    (order,) = dma_order(failover(bme=early))
    assert (order.outcome, order.excerpt) == ("kept", ())


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
    maybe = after_hole(3990, 100, 0x0103)
    samples = [bme(-900, "alder", 0x0103), surely, maybe, bme(9000, "alder", 0x0103)]
    (order,) = dma_order(failover(bme=samples))
    assert order.outcome == "unknown"


@pytest.mark.parametrize(
    ("samples", "outcome"),
    [
        ([(3898, 0x0103, 0.4), (7000, 0x0103, 0.4)], "kept"),
        ([(3899.9, 0x0103, 0.4), (7000, 0x0103, 0.4)], "unknown"),
        ([(3895, 0x0103, 10), (7000, 0x0103, 0.4)], "unknown"),
        ([(-900, 0x0103, 0.4), (4740.1, 0x0103, 5)], "unknown"),
        ([(-900, 0x0103, 0.4), (4746, 0x0103, 5)], "kept"),
        ([(-900, 0x0507, 0.4), (3900.1, 0x0507, 5)], "unknown"),
        ([(-900, 0x0507, 0.4), (3906, 0x0507, 5)], "broken"),
    ],
    ids=str,
)
def test_an_observer_saw_nothing_of_before_its_first_look_nor_after_its_last(
    samples: list[tuple[float, int, float]], outcome: str
) -> None:
    """The last pass is at 3900 ms and the last page copied at 4740; clocks count here, too."""
    seen = [bme(t_ms, "alder", command, uncertainty_ms=u) for t_ms, command, u in samples]
    assert [o.outcome for o in dma_order(failover(bme=seen))] == [outcome]


@pytest.mark.parametrize(
    ("t_ms", "gap_ms", "outcome"),
    [(4400, 300, "unknown"), (4400, 200, "kept"), (3950, 300, "unknown"), (3890, 300, "kept"),
     (4900, 300, "unknown"), (5100, 300, "kept")],
)  # fmt: skip
def test_a_time_for_which_nobody_looked_tells_nothing_of_what_was_copied_in_it(
    t_ms: float, gap_ms: float, outcome: str
) -> None:
    """BME read 0 before and after; what it was between is known to nobody.  A VF gone stays so."""
    hole = after_hole(t_ms, gap_ms, 0x0103)
    samples = [bme(-900, "alder", 0x0103), hole, bme(9000, "alder", 0x0103)]
    (order,) = dma_order(failover(bme=samples))
    assert order.outcome == outcome, order
    gone = [bme(-900, "alder", 0xFFFF), replace(hole, command=0xFFFF), bme(9000, "alder", 0xFFFF)]
    assert [o.outcome for o in dma_order(failover(bme=gone))] == ["kept"]


@pytest.mark.parametrize(
    ("t_ms", "gap_ms", "outcome"),
    [(4760, 900, "unknown"), (4700, 900, "broken"), (4760, 800, "broken"), (4760, 200, "broken")],
)
def test_a_bme_that_was_1_before_a_hole_and_after_it_may_have_been_0_in_it(
    t_ms: float, gap_ms: float, outcome: str
) -> None:
    """If that hole is all of the copying; at its end, or with its beginning, it was 1 for sure."""
    hole = after_hole(t_ms, gap_ms, 0x0507)
    samples = [bme(-900, "alder", 0x0507), hole, bme(9000, "alder", 0x0507)]
    assert [o.outcome for o in dma_order(failover(bme=samples))] == [outcome]


@pytest.mark.parametrize(("t_ms", "outcome"), [(3899.1, "kept"), (3899.3, "unknown")])
def test_what_a_sample_shows_had_come_by_then(t_ms: float, outcome: str) -> None:
    """The time since the sample before it lies before it: it makes no doubt of what came after."""
    cleared = after_hole(t_ms, 100, 0x0103)
    samples = [bme(-900, "alder", 0x0507), cleared, bme(9000, "alder", 0x0103)]
    assert [o.outcome for o in dma_order(failover(bme=samples))] == [outcome]


def test_a_migration_whose_end_nobody_saw_has_an_order_that_nobody_knows() -> None:
    """When the last page was copied the source says; the destination says when it runs."""
    unended = [e for e in FAILOVER_EVENTS if e.name != "MIGRATION completed"]
    again = [*FAILOVER_BME[:3], bme(4600, "alder", 0x0507)]
    assert [o.outcome for o in dma_order(failover(bme=again, events=unended))] == ["unknown"]
    broken_off = failover(bme=again, events=unended, status="failed")
    assert [o.outcome for o in dma_order(broken_off)] == ["kept"]


def test_a_guest_that_stopped_and_ran_on_is_judged_by_its_last_stop() -> None:
    """Somebody paused it, or QEMU did for another reason; that copied no last page."""
    paused = [event(3000, "qmp:alder", "STOP"), event(3050, "qmp:alder", "RESUME")]
    after = event(5000, "qmp:alder", "STOP")
    again = [*FAILOVER_BME[:3], bme(3500, "alder", 0x0507), bme(9000, "alder", 0x0507)]
    events = [*paused, *FAILOVER_EVENTS, after]
    assert [o.outcome for o in dma_order(failover(bme=again, events=events))] == ["broken"]


def test_a_first_pass_of_about_when_it_was_asked_for_is_of_this_migration() -> None:
    """By the clocks of two machines its beginning may come a moment before its cause."""
    others = [e for e in FAILOVER_EVENTS if e.source != "qmp:alder" or "MIGRATION" not in e.name]
    events = [*others, event(4740, "qmp:alder", "MIGRATION completed")]
    stops = [bme(-900, "alder", 0x0507), bme(3000, "alder", 0x0103), bme(9000, "alder", 0x0103)]
    for t_ms, outcome in ((-0.1, "broken"), (-0.6, "kept")):
        first = event(t_ms, "qmp:alder", "MIGRATION active")
        assert [o.outcome for o in dma_order(failover(bme=stops, events=[*events, first]))] == [
            outcome
        ]


def test_a_vf_that_is_gone_has_stopped() -> None:
    """All ones has the bit of BME set; it means that no function answered."""
    gone = [bme(-900, "alder", 0x0507), bme(400, "alder", 0xFFFF)]
    assert [o.outcome for o in dma_order(failover(bme=gone))] == ["kept"]


def test_without_any_evidence_nothing_is_claimed() -> None:
    """A migration whose VF nobody watched must not pass as one whose DMA stopped in time."""
    (order,) = dma_order(failover(bme=()))
    assert order.outcome == "unknown"
    assert dma_order(failover(scheme="plain")) == []


def test_a_migration_that_completed_without_a_stop_has_an_order_that_nobody_knows() -> None:
    unstopped = [each for each in FAILOVER_EVENTS if each.name != "STOP"]
    assert [o.outcome for o in dma_order(failover(events=unstopped))] == ["unknown"]


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
