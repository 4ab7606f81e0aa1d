"""The quiesce audit: what is made of its records."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest
from made_up_audit import (
    AFTER,
    ASKED,
    CLEAR,
    GONE,
    MOMENTS,
    MS,
    QUIET,
    SET,
    STOPPED,
    found,
    recorded,
    seen,
)
from synthetic import received_record

from harness.agent.payload import CORRUPTED
from harness.analysis.audit_records import NOT_BACK
from harness.analysis.measured import BmeSample
from harness.errors import MeasurementError


def test_a_vf_that_stops_is_silent_and_comes_back() -> None:
    quiet = found(*STOPPED)
    assert quiet.is_silent
    assert not quiet.is_master
    assert quiet.faults == []
    assert (quiet.cleared_ms, quiet.memory_cleared_ms, quiet.step_ms) == (0.6, None, 2)
    assert (quiet.sent, quiet.returned, quiet.back_ms, quiet.newest_ms) == (299, 0, 301, -5)
    assert quiet.paused_ms == 2100


@pytest.mark.parametrize(
    ("signs", "told"),
    [
        ({"arrive": [1000, 1005]}, "2 frames came in"),
        (
            {"evidence": replace(QUIET, newest=AFTER)},
            "a frame sent 999 ms later is in memory",
        ),
        ({"evidence": replace(QUIET, changed=3)}, "3 pages under its rings changed"),
        ({"evidence": replace(QUIET, accesses=1)}, "1 accesses were logged"),
    ],
    ids=str,
)
def test_each_sign_of_life_of_a_vf_that_must_be_silent_is_a_fault(
    signs: dict[str, Any], told: str
) -> None:
    """A frame whose answer is lost was received all the same: memory tells, and so does a log."""
    alive = found(*STOPPED, **signs)
    assert not alive.is_silent
    wrong = f"VF vf0 of alder was not allowed to master the bus, and still {told}"
    assert alive.faults == [wrong]


def test_a_frame_counts_when_it_came_in_and_not_when_it_was_sent() -> None:
    """One that was held back until BME was set again is no fault; one of before may be."""
    held_back = found(*STOPPED, arrive=[2000], after_ms=250)
    assert (held_back.returned, held_back.faults) == (0, [])
    let_in = found(*STOPPED, arrive=[300], after_ms=400)
    assert (let_in.returned, let_in.is_silent) == (1, False)


@pytest.mark.parametrize(
    ("edges", "arrive", "count"),
    [
        (STOPPED, range(5, 95, 5), 18),
        (STOPPED, range(5, 590, 5), 117),
        (((-400, SET), (1, CLEAR), (2000, SET), (4000, SET)), range(700, 1400, 5), 140),
        (((-400, SET), (650, CLEAR), (2300, SET)), range(1000, 1500, 5), 100),
        (((-400, SET), (650, CLEAR), (2300, SET)), range(0, 645, 5), 0),
        (((-400, SET), (650, CLEAR, 60), (2300, SET)), [585, 595, 645, 655], 1),
        (((-400, SET), (1, CLEAR), (2000, SET, 60), (4000, SET)), [1935, 1945, 1995], 1),
        (((-400, CLEAR), (4000, CLEAR)), range(-5, 20, 5), 4),
        (((100, CLEAR), (4000, CLEAR)), range(5, 120, 5), 3),
        (((-400, SET), (4.97, CLEAR), (2300, SET)), [5, 10], 1),
        (((-400, SET), (1, CLEAR), (400, CLEAR, 300), (2300, SET)), [150, 395, 405], 1),
    ],
    ids=[
        *("before the look", "until it", "until set again", "since cleared", "before cleared"),
        *("cleared when", "set when", "clear at first", "seen first", "clocks", "hole"),
    ],
)
def test_a_frame_that_comes_in_while_bme_is_clear_is_a_fault_whenever_that_is(
    edges: tuple[tuple[float, ...], ...], arrive: Sequence[float], count: int
) -> None:
    """That BME was set for another part of the look excuses no frame of this one."""
    let_in = found(*edges, arrive=arrive)
    assert let_in.let_in == count
    assert [f"{count} frames came in" in fault for fault in let_in.faults] == [True] * bool(count)


def test_a_frame_that_was_sent_before_and_came_back_after_may_have_come_in_before() -> None:
    """Its answer was on its way already when BME was cleared; or came once it was set again."""
    for on_its_way in ([-5], [2100]):
        assert found(*STOPPED, arrive=on_its_way, after_ms=150).let_in == 0


def test_a_frame_about_when_the_look_began_or_ended_is_none_of_it() -> None:
    for sent_ms, after_ms in ((595, 5.01), (2095, 4.99)):
        assert found(*STOPPED, arrive=[sent_ms], after_ms=after_ms).returned == 0
    assert found(*STOPPED, arrive=[2150]).back_ms == 301


@pytest.mark.parametrize("sample", [seen(500, CLEAR, 300), seen(2900, CLEAR, 300)])
def test_a_time_without_a_sample_that_is_not_of_the_look_is_no_matter(sample: BmeSample) -> None:
    samples = sorted([seen(-400, SET), seen(1, CLEAR), sample, seen(4000, CLEAR)], key=at)
    assert found(samples=tuple(samples)).is_silent


def at(sample: BmeSample) -> int:
    return sample.t_ns


def test_a_frame_in_memory_may_have_come_in_once_bme_was_set_again() -> None:
    """It waited in the device; had BME not been set again, the device would have gone on."""
    again = replace(QUIET, newest=AFTER)
    held_back = found((-400, SET), (1, CLEAR), (1500, SET), (4000, SET), evidence=again)
    assert held_back.faults == []
    (fault,) = found((-400, SET), (1, CLEAR), (2300, SET), evidence=again).faults
    assert fault.endswith("a frame sent 999 ms later is in memory")
    early = found(*STOPPED, evidence=replace(QUIET, newest=102))
    assert early.faults[0].endswith("a frame sent 9 ms later is in memory")


@pytest.mark.parametrize("sequence", [0xFFFF_FFF0, 98], ids=["stray", "again"])
def test_what_arrives_without_being_a_frames_answer_came_in_too(sequence: int) -> None:
    """A number that was changed on the way, or a frame that came a second time."""
    flow = recorded(*STOPPED).flow
    late = received_record([sequence], [CORRUPTED], [ASKED - 10 * MS], [ASKED + 1000 * MS])
    found_again = found(*STOPPED, flow=replace(flow, received=flow.received + late))
    assert (found_again.returned, found_again.let_in, found_again.is_silent) == (1, 0, False)
    assert len(found_again.faults) == 1


def test_a_frame_of_before_the_look_by_the_clocks_is_no_sign() -> None:
    """It was sent 5 ms after, which may be before; one sent 10 ms after is one."""
    blurred: dict[str, Any] = {
        "moments": replace(MOMENTS, uncertainty_ns=6 * MS),
        "clock_uncertainty_ms": 10,
    }
    assert found(*STOPPED, evidence=replace(QUIET, newest=AFTER - 79), **blurred).is_silent
    assert not found(*STOPPED, evidence=replace(QUIET, newest=AFTER - 78), **blurred).is_silent


def test_what_lives_while_bme_is_set_is_no_fault() -> None:
    lively = replace(QUIET, newest=AFTER, changed=500)
    working = found((-400, SET), (4000, SET), arrive=[1000], evidence=lively)
    assert working.is_master
    assert not working.is_silent
    assert working.faults == []


def test_pages_that_the_driver_gave_back_may_change() -> None:
    """Its kernel uses them for anything: that they change is no sign of the device."""
    given_back = replace(QUIET, changed=3, has_rings=False)
    assert found(*STOPPED, evidence=given_back).is_silent


def test_a_vf_that_is_gone_neither_masters_nor_has_memory() -> None:
    """All ones has every bit set; it means that no function answered."""
    gone = found((-400, SET), (100, GONE), (2300, SET))
    assert (gone.is_gone, gone.is_master) == (True, False)
    assert (gone.cleared_ms, gone.memory_cleared_ms) == (100, 100)


def test_a_bit_that_the_vf_does_not_have_is_not_cleared() -> None:
    """VFIO makes up Memory Enable for an 82599's VF; read through sysfs it seems to go."""
    samples = (seen(-400, 0x0506, via="vfio"), seen(0.6, 0x0500, via="sysfs"), seen(4000, 0x0500))
    assert found(samples=samples, own_memory_enable=False).memory_cleared_ms is None
    assert found(samples=samples, own_memory_enable=True).memory_cleared_ms == 0.6


def test_a_vf_that_masters_the_bus_again_meanwhile_may_write() -> None:
    """Its driver has noticed, and set it up: that is no device that goes on without leave."""
    writes = replace(QUIET, newest=AFTER)
    again = found((-400, SET), (1, CLEAR), (1500, SET), (4000, SET), arrive=[1600], evidence=writes)
    assert again.is_master
    assert again.faults == []
    assert (again.cleared_ms, again.set_again_ms) == (1, 1500)
    assert again.back_ms == 301, "what came in while it was looked at did not come back by that"


def test_a_vf_that_is_cleared_and_stays_so_is_not_set_again() -> None:
    """Another bit may change first, as INTx Disable does, with BME set as it was."""
    still = found((-400, SET), (0.2, SET & ~0x400), (0.6, CLEAR), (2201, SET))
    assert (still.cleared_ms, still.set_again_ms) == (0.6, None)


def test_what_bme_does_after_the_look_does_not_count() -> None:
    """It is set again to take the step back; and what it did before was another step's."""
    late = found((-400, SET), (2150, CLEAR), (2300, SET))
    assert late.is_master
    assert late.cleared_ms is None


def test_a_vf_that_pauses_is_told_from_one_that_never_does() -> None:
    """A reset that does nothing leaves a gap of one interval; one that does a longer one."""
    never = found((-400, SET), (4000, SET), arrive=range(0, 2500, 5))
    assert never.paused_ms == 5
    back = [*range(0, 100, 5), *range(900, 2500, 5)]
    assert found((-400, SET), (4000, SET), arrive=back).paused_ms == 805
    assert found((-400, SET), (4000, SET), arrive=range(0, 1500, 5)).paused_ms == 604
    assert found((-400, SET), (4000, SET), arrive=range(800, 2500, 5)).paused_ms == 801


def test_a_vf_that_does_not_come_back_has_no_time() -> None:
    """Frames that came in before it was given up are nobody's return."""
    assert found(*STOPPED, back=NOT_BACK).back_ms is None


def flow_with(**changes: Any) -> dict[str, Any]:
    return {"flow": replace(recorded(*STOPPED).flow, **changes)}


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"samples": ()}, "nobody observed the VF"),
        ({"samples": (seen(599.97, CLEAR), seen(4000, SET))}, "look's beginning to its end"),
        ({"samples": (seen(-400, CLEAR), seen(2100.03, CLEAR))}, "look's beginning to its end"),
        ({"samples": (seen(0, 2), seen(1500, 2, 300), seen(4000, 2))}, "for 300 ms of the look"),
        ({"samples": (seen(0, 2), seen(2300, 2, 300), seen(4000, 2))}, "for 300 ms of the look"),
        ({"samples": (seen(-400, SET), seen(2000, CLEAR))}, "from the look's beginning to its end"),
        ({"samples": (seen(700, SET), seen(4000, SET))}, "from the look's beginning to its end"),
        ({"moments": replace(MOMENTS, uncertainty_ns=6 * MS)}, "agree to 6 ms only, worse than 5"),
        (flow_with(receiver_dropped=3), "our own receiver dropped 3 frames"),
        (flow_with(backlog_dropped=2), "its kernel dropped 2 packets"),
        (flow_with(clock_moved_ns=-6 * MS), "wall clock moved by 6 ms, more than 5"),
        ({"clock_uncertainty_ms": 0.01}, "agree to 0.02 ms only, worse than 0.01"),
        ({"samples": tuple(seen(t, SET, uncertainty_ns=7 * MS) for t in (0, 4000))}, "7 ms only"),
        ({"moments": replace(MOMENTS, looked_again=ASKED)}, "no frame was sent"),
        ({"evidence": replace(QUIET, buffers=0)}, "no buffer in"),
        ({"evidence": replace(QUIET, newest=None)}, "no frame that the flow sent was found"),
        ({"evidence": replace(QUIET, newest=999_999)}, "no frame that the flow sent was found"),
    ],
)
def test_an_audit_without_evidence_is_none(changes: dict[str, Any], told: str) -> None:
    """Silence of a flow that did not run, or of a VF that nobody looked at, says nothing."""
    with pytest.raises(MeasurementError, match=told):
        found(*STOPPED, **changes)


@pytest.mark.parametrize(
    "edges",
    [
        ((-400, SET), (605, CLEAR, 10), (2300, SET, 5)),
        ((-400, SET), (1, CLEAR), (2105, SET, 10), (2300, SET)),
        ((-400, SET), (599.97, CLEAR), (2300, SET, 5)),
        ((-400, SET), (1, CLEAR), (2100.03, SET), (2300, SET)),
        ((-400, SET), (1, CLEAR), (2099.97, SET), (2300, SET)),
    ],
    ids=["cleared as it began", "set as it ended", "cleared about then", "set after", "set before"],
)
def test_a_vf_that_may_have_mastered_is_neither_excused_nor_blamed(
    edges: tuple[tuple[float, ...], ...],
) -> None:
    """A sample tells of the time since the one before, and the clocks may be off."""
    assert not found(*edges).is_master
    with pytest.raises(MeasurementError, match="or not, and 3 pages under its rings"):
        found(*edges, evidence=replace(QUIET, changed=3))


@pytest.mark.parametrize(
    "edges",
    [((-400, SET), (599.9, CLEAR, 100), (2206, SET, 100)), ((-400, CLEAR), (4000, CLEAR))],
    ids=["closely", "throughout"],
)
def test_a_vf_that_surely_had_no_leave_is_blamed(edges: tuple[tuple[float, ...], ...]) -> None:
    assert len(found(*edges, evidence=replace(QUIET, changed=3)).faults) == 1


def test_a_vf_whose_bme_stays_set_is_excused_whatever_else_changes() -> None:
    """Its driver masks INTx time and again: that is no moment in which BME may have been clear."""
    busy = [(t_ms, SET ^ (0x400 * (t_ms % 4 == 0)), 2) for t_ms in range(600, 2102, 2)]
    stays = found((-400, SET), *busy, (4000, SET), evidence=replace(QUIET, changed=3))
    assert (stays.is_master, stays.faults) == (True, [])


def test_a_vf_that_surely_had_leave_is_excused() -> None:
    """For a part of the look at least, between what may have been the one change and the next."""
    again = found(
        (-400, SET), (1, CLEAR), (700, SET, 50), (900, CLEAR, 150), (2201, SET),
        evidence=replace(QUIET, changed=3),
    )  # fmt: skip
    assert (again.is_master, again.faults) == (True, [])
