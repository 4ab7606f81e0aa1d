"""Pass, fail, invalid: what the figures say, and whether they may."""

from __future__ import annotations

from dataclasses import replace

import pytest
from synthetic import (
    ASKED_NS,
    FAILOVER_BME,
    FAILOVER_CUTS,
    FAILOVER_EVENTS,
    QEMUS_WORDS,
    VF,
    Cut,
    bme,
    event,
    failover,
    flow,
    received_record,
    refused,
)

from harness.analysis.measured import NO_FAULT, BmeSample, Measured
from harness.analysis.migration import analyse
from harness.analysis.verdict import Limits, Verdict, worst
from harness.errors import MeasurementError


def judged(measured: Measured, **limits: object) -> Verdict:
    return analyse(measured, Limits(**limits)).verdict  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("before", "word"), [(Cut(-900, -800), "pass"), (Cut(-990, 1200), "invalid")]
)
def test_a_lab_that_was_not_at_rest_has_no_result(before: Cut, word: str) -> None:
    """The headline would charge the migration with what was there before it."""
    restless = failover(flows=[flow(cuts=[before, *FAILOVER_CUTS[1:]])])
    verdict = analyse(restless, Limits()).verdict
    assert verdict.word == word
    told = "flow jumbo: its longest outage began before the migration was asked for"
    assert (told in verdict.reasons) == (word == "invalid")


def test_a_guest_that_does_not_run_at_its_destination_fails() -> None:
    """The source's QEMU has done its part and says so; the guest is nowhere."""
    moved = replace(failover(), destination_state="paused")
    verdict = analyse(moved, Limits()).verdict
    assert verdict.word == "fail"
    assert "QEMU says completed, and the guest is paused at the destination" in verdict.reasons
    arrived = replace(failover(), destination_state="running")
    assert analyse(arrived, Limits()).verdict == analyse(failover(), Limits()).verdict


def test_a_fault_that_was_not_put_in_makes_no_result() -> None:
    """The migration passes all the same, and the test would say that the fault does no harm."""
    text = "precopy: it did not come to that"
    faultless = failover(events=[*FAILOVER_EVENTS, event(8000, "conductor", NO_FAULT, text=text)])
    assert judged(faultless) == Verdict("invalid", (f"the fault of a test was not put in: {text}",))


def test_a_migration_within_its_limits_passes() -> None:
    """The planted migration breaks nothing; each test below breaks one thing of it."""
    assert judged(failover(), longest_outage_ms=2000) == Verdict("pass")


def test_an_outage_over_the_limit_fails() -> None:
    """1 905 ms were planted; a limit of 1 904 ms must see that."""
    verdict = judged(failover(), longest_outage_ms=1904)
    assert verdict == Verdict("fail", ("flow jumbo: longest outage 1905 ms, more than 1904 ms",))


def test_the_sum_of_outages_has_its_own_limit() -> None:
    """Many short outages can hurt more than a long one."""
    assert "sum of outages" in judged(failover(), total_outage_ms=1950).reasons[0]


def test_lost_frames_have_their_own_limit() -> None:
    assert "frames lost, more than 100" in judged(failover(), lost=100).reasons[0]


def test_a_flow_that_never_came_back_fails_without_any_limit() -> None:
    """With no limit set and no finite outage, zero loss would be reported."""
    dead = failover(flows=[flow(cuts=[Cut(4500, 9999)])])
    verdict = judged(dead)
    assert verdict.word == "fail"
    assert "never came back" in verdict.reasons[0]


@pytest.mark.parametrize("what", ["corrupted", "unrecognisable"])
def test_corrupted_frames_fail(what: str) -> None:
    """A torn 9K frame is a page that was lost on the way; one is enough."""
    bad = flow(corrupted=[77])
    if what == "unrecognisable":
        stray = received_record([99_999], [1], [0], [ASKED_NS])
        bad = replace(flow(), received=flow().received + stray)
    assert "1 frames arrived corrupted or short" in judged(failover(flows=[bad])).reasons[0]


def test_a_status_other_than_expected_fails_and_quotes_qemu() -> None:
    """QEMU's own error text is what the reader needs first."""
    failed = failover(status="failed", reason="Unable to write to socket: Broken pipe")
    verdict = judged(failed)
    assert verdict.word == "fail"
    assert "ended as failed, not as completed: Unable to write to socket" in verdict.reasons[0]


def test_a_test_that_cancels_expects_it() -> None:
    events = [
        event(0, "conductor", "migrate asked"),
        event(900, "qmp:alder", "MIGRATION cancelled"),
    ]
    cancelled = failover(status="cancelled", events=events, flows=[flow()])
    assert judged(cancelled, status="cancelled") == Verdict("pass")


def test_frames_that_our_receiver_dropped_make_it_invalid() -> None:
    """Else the harness blames the NIC for its own loss."""
    verdict = judged(failover(flows=[flow(receiver_dropped=1)]))
    assert verdict == Verdict("invalid", ("flow jumbo: our own receiver dropped 1 frames",))


def test_packets_dropped_before_any_socket_make_it_invalid() -> None:
    """Two flows of one receiver count the same: they are told once."""
    both = [replace(flow(name=name), backlog_dropped=7) for name in ("one", "two")]
    verdict = judged(failover(flows=both))
    assert verdict.word == "invalid"
    (why,) = verdict.reasons
    assert "dropped 7 packets before it knew whose they were" in why


def test_a_late_sender_makes_it_invalid() -> None:
    """Nothing was measured while our own sender paused."""
    verdict = judged(failover(flows=[flow(late_ms={300: 10.1})]))
    assert verdict.word == "invalid"
    assert "up to 10.1 ms late" in verdict.reasons[0]


def test_a_late_sender_says_what_it_lacked() -> None:
    """Who may grant SCHED_FIFO reads it here, and nowhere else."""
    late = replace(flow(late_ms={300: 10.1}), sender_notes=("SCHED_FIFO was not permitted",))
    (why,) = judged(failover(flows=[late])).reasons
    assert why.endswith("more than 10 ms; SCHED_FIFO was not permitted")


def test_frames_that_our_sender_could_not_send_make_it_invalid() -> None:
    """Nothing was sent, so nothing could be lost: an outage in that hole would not be seen."""
    whole = flow()
    holed = whole.sent[: 300 * 20] + whole.sent[320 * 20 :]
    kept = [n for n in range(2000) if not 300 <= n < 320]
    arrivals = received_record(kept, [0] * 1980, [0] * 1980, [ASKED_NS + n for n in kept])
    verdict = judged(failover(flows=[replace(whole, sent=holed, received=arrivals)]))
    assert verdict == Verdict("invalid", ("flow jumbo: our own sender could not send 20 frames",))


def test_frames_that_were_due_after_the_last_one_sent_make_it_invalid() -> None:
    """The peer's link went down for good: its record just ends, as if all had been well."""
    verdict = judged(failover(flows=[replace(flow(), unsent=37)]))
    assert verdict == Verdict("invalid", ("flow jumbo: our own sender could not send 37 frames",))


def test_a_guest_that_can_send_no_more_never_comes_back() -> None:
    """Its users wait for what it cannot even send; a jitter of two frames is no outage."""
    silent = replace(flow(direction="from-guest"), unsent=37)
    verdict = judged(failover(flows=[silent]))
    assert verdict.word == "fail"
    assert verdict.reasons[0].endswith("it never came back after 9.001 s"), "none is lost"
    assert judged(failover(flows=[replace(silent, unsent=2)])).word == "pass"


def test_a_guests_sender_may_be_late() -> None:
    """It was stopped with its guest: that is the measurement, not a fault of ours."""
    stopped = dict.fromkeys(range(1000, 2000), 300.0)
    assert judged(failover(flows=[flow(direction="from-guest", late_ms=stopped)])).word == "pass"


def test_an_uncertain_clock_makes_it_invalid() -> None:
    """An outage that may lie in any of three phases has none."""
    vague = [
        replace(e, uncertainty_ns=5_100_000) if e.name == "STOP" else e for e in FAILOVER_EVENTS
    ]
    verdict = judged(failover(events=vague), dma_order=False)
    assert verdict.word == "invalid"
    assert "the clocks give the beginning of stop to 5.1 ms only" in verdict.reasons[0]


def test_the_time_between_two_samples_is_no_fault_of_the_clocks() -> None:
    """BME is read every few ms, and clocks of real hosts are related to a tenth of one.

    Both are the error bar of where pre-copy begins; only the clocks' can spoil all other events.
    """
    sampled = [replace(each, uncertainty_ns=5_000_000, gap_ns=4_600_000) for each in FAILOVER_BME]
    released = [
        replace(e, uncertainty_ns=5_000_000, gap_ns=4_600_000) if e.name == "vf released" else e
        for e in FAILOVER_EVENTS
    ]
    assert any(e.gap_ns for e in released), "or this shows nothing"
    verdict = judged(failover(events=released, bme=sampled), clock_uncertainty_ms=2)
    assert verdict.word == "pass", verdict.reasons


def test_a_receivers_clock_that_moved_makes_it_invalid() -> None:
    """Kernel stamps are wall clock; if that was set meanwhile, every arrival is off."""
    moved = replace(flow(), clock_moved_ns=-6_000_000)
    assert "wall clock moved by 6 ms" in judged(failover(flows=[moved])).reasons[0]


def test_invalid_wins_over_fail() -> None:
    """A failure measured by a harness that was not good enough is no result."""
    both = failover(flows=[flow(receiver_dropped=3, corrupted=[5], cuts=[Cut(4500, 9999)])])
    assert judged(both, longest_outage_ms=1) == Verdict(
        "invalid", ("flow jumbo: our own receiver dropped 3 frames",)
    )


def test_a_migration_without_any_flow_is_an_error() -> None:
    """No data must not become a pass."""
    with pytest.raises(MeasurementError, match="no flow was running"):
        judged(failover(flows=[]))


def test_the_worst_verdict_is_the_tests() -> None:
    assert worst(["pass", "invalid", "fail"]) == "invalid"
    assert worst(["pass", "fail"]) == "fail"
    assert worst([]) is None


MASTERED = bme(-1500, "alder", 0x0406)


@pytest.mark.parametrize(
    ("command", "lost"),
    [
        (0x0000, "is 0x0000 at birch: Bus Master Enable is lost"),
        (0x0402, "is 0x0402 at birch: Bus Master Enable is lost"),
        (0xFFFF, "is 0xffff at birch: no function answers there"),
    ],
)
@pytest.mark.parametrize("scheme", ["plain", "failover"])
def test_a_vf_that_masters_the_bus_no_more_fails(scheme: str, command: int, lost: str) -> None:
    """It can show a link, and no flow need be there that would have told."""
    unbound = bme(300, "alder", 0x0106)
    samples = [MASTERED, unbound, bme(4900, "birch", 0x0406), bme(8000, "birch", command)]
    dead = failover(scheme=scheme, bme=samples)
    verdict = judged(dead, dma_order=False)
    assert verdict == Verdict("fail", (f"VF {VF}: its COMMAND was 0x0406 at alder and {lost}",))


@pytest.mark.parametrize(
    "samples",
    [
        [MASTERED, bme(-1400, "birch", 0xFFFF), bme(8000, "birch", 0x0406)],
        [bme(-1500, "alder", 0x0000), bme(8000, "birch", 0x0000)],
    ],
    ids=["it came back", "it never mastered"],
)
def test_a_vf_that_lost_nothing_on_its_way_does_not_fail(samples: list[BmeSample]) -> None:
    """What counts is the end at the destination, of one that could do DMA before."""
    assert judged(failover(scheme="plain", bme=samples)).word == "pass"


def test_each_vf_at_the_destination_is_looked_at() -> None:
    """One that masters the bus must not answer for another, whichever was seen last."""
    for t_ms in (7900, 8100):
        two = [MASTERED, bme(8000, "birch", 0x0406), bme(t_ms, "birch", 0x0402, "b")]
        (reason,) = judged(failover(scheme="plain", bme=two)).reasons
        assert reason == "VF b: its COMMAND was 0x0406 at alder and is 0x0402 at birch: " + (
            "Bus Master Enable is lost"
        )


def test_a_vf_that_nobody_looked_at_is_neither_dead_nor_well() -> None:
    """Not at its destination: what is not known there is no fault, and no pass either."""
    went = judged(failover(scheme="plain", bme=[MASTERED, bme(8000, "alder", 0x0000)]))
    assert went.reasons == ("nobody looked at the guest's VF at the destination",)
    here = [bme(-900, "alder", 0x0103), bme(7000, "alder", 0x0103)]
    unseen = judged(failover(scheme="inplace", bme=here))
    assert unseen.word == "invalid"
    assert unseen.reasons == ("nobody looked at the guest's VF at the destination",)
    dead = failover(scheme="inplace", bme=[*here, bme(7000, "birch", 0)])
    assert judged(dead).reasons == (
        "the guest's VF never mastered the bus at the destination: it is dead there",
    )


def test_memory_that_was_to_be_compared_and_was_not_makes_no_result() -> None:
    missing = event(5000, "conductor", "memory not compared", text="alder: out of time")
    verdict = judged(failover(events=[*FAILOVER_EVENTS, missing]))
    assert verdict.word == "invalid"
    assert verdict.reasons == ("memory was to be compared, and was not: alder: out of time",)


def test_a_vf_that_stayed_is_not_looked_for_at_the_destination() -> None:
    """A cancelled migration leaves it where it was."""
    events = [
        event(0, "conductor", "migrate asked"),
        event(900, "qmp:alder", "MIGRATION cancelled"),
    ]
    samples = [MASTERED, bme(8000, "birch", 0xFFFF)]
    stayed = failover(status="cancelled", events=events, flows=[flow()], bme=samples)
    assert judged(stayed, status="cancelled") == Verdict("pass")


def test_a_refusal_that_did_nothing_is_what_a_test_can_expect() -> None:
    """Stock QEMU has to refuse a VF whose state nobody can save; there is no order to judge."""
    assert judged(refused(), status="refused") == Verdict("pass")
    verdict = judged(refused())
    assert verdict.word == "fail"
    assert verdict.reasons == (f"the migration ended as refused, not as completed: {QEMUS_WORDS}",)
    assert judged(failover(), status="refused").word == "fail"


def test_a_refusal_that_cost_a_frame_or_stopped_the_guest_fails() -> None:
    """Nothing was to happen: what a migration may take does not hold here."""
    lossy = judged(refused(flow(lost=[700])), status="refused")
    assert lossy.reasons == ("flow jumbo: QEMU refused to migrate, and 1 frames were lost",)
    stop = event(900, "qmp:alder", "STOP")
    told = judged(refused(events=[stop]), status="refused").reasons
    assert "QEMU refused to migrate the guest, and stopped it all the same" in told
