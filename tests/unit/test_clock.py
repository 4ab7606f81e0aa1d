"""Clocks of two machines: the true offset is always within the uncertainty that is given."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.clock import ClockMap, Reading, Relation, relate

NS = st.integers(0, 10**18)
OFFSET = st.integers(-(10**15), 10**15)
DELAY = st.integers(0, 10**10)
DELAYS = st.lists(st.tuples(DELAY, DELAY), min_size=1, max_size=20)


def exchange(start: int, offset: int, there: int, back: int) -> Reading:
    """Make the reading of a clock that is *offset* ahead, with these delays on the way; in ns."""
    return Reading(start, start + there + offset, start + there + back)


def exchanges(start: int, offset: int, delays: list[tuple[int, int]]) -> list[Reading]:
    return [exchange(start, offset, there, back) for there, back in delays]


@given(NS, OFFSET, DELAYS)
def test_true_offset_is_within_the_uncertainty(
    start: int, offset: int, delays: list[tuple[int, int]]
) -> None:
    """Whatever part of the round trip was the way there.

    All of it is the worst case: half the trip off, and an odd number of ns must be rounded up.
    """
    relation = relate(exchanges(start, offset, delays))
    assert abs(relation.offset_ns - offset) <= relation.uncertainty_ns


@given(NS, OFFSET, DELAYS)
def test_the_uncertainty_is_half_the_shortest_round_trip(
    start: int, offset: int, delays: list[tuple[int, int]]
) -> None:
    """One slow exchange among many must not widen the error bar of a whole run."""
    relation = relate(exchanges(start, offset, delays))
    shortest = min(there + back for there, back in delays)
    assert relation.uncertainty_ns == (shortest + 1) // 2


@given(
    start=NS,
    span=st.integers(10**10, 10**13),
    ends=st.tuples(OFFSET, OFFSET),
    between=st.tuples(st.floats(0, 1), st.floats(0, 1)),
    delays=st.tuples(DELAYS, DELAYS),
)
def test_an_event_between_two_relations_is_placed_within_its_uncertainty(
    start: int,
    span: int,
    ends: tuple[int, int],
    between: tuple[float, float],
    delays: tuple[list[tuple[int, int]], list[tuple[int, int]]],
) -> None:
    """The other clock may have moved at any moment between, slowly or in one step.

    *between* is when the event was, and how far the clock had moved by then.
    """
    before, after = ends
    clocks = ClockMap(
        relate(exchanges(start, before, delays[0])),
        relate(exchanges(start + span, after, delays[1])),
    )
    happened = start + round(between[0] * span)
    there = happened + before + round(between[1] * (after - before))
    placed, uncertainty = clocks.to_here(there)
    assert abs(placed - happened) <= uncertainty


@given(NS, OFFSET, st.integers(-(10**13), 10**13), DELAYS)
def test_a_clock_that_did_not_move_is_related_outside_the_two_readings_too(
    start: int, offset: int, when: int, delays: list[tuple[int, int]]
) -> None:
    """Events just before the first exchange and after the last one belong to the run."""
    clocks = ClockMap(
        relate(exchanges(start, offset, delays)), relate(exchanges(start + 10**12, offset, delays))
    )
    placed, uncertainty = clocks.to_here(start + when + offset)
    assert abs(placed - (start + when)) <= uncertainty


def test_a_clock_that_moved_evenly_is_followed() -> None:
    """A hand-made case: 1,000 ns of drift over the run, half of it at half time."""
    clocks = ClockMap(Relation(0, 5_000, 10), Relation(1_000_000, 6_000, 20))
    assert clocks.to_here(505_500) == (500_000, 1_020)
    assert clocks.to_here(5_000) == (0, 1_020)
    assert clocks.to_here(1_006_000) == (1_000_000, 1_020)
    assert clocks.to_here(2_006_000) == (2_000_000, 1_020)
    assert clocks.to_here(-95_000) == (-100_000, 1_020)


def test_both_relations_at_one_moment_are_no_division_by_zero() -> None:
    clocks = ClockMap(Relation(0, 7, 3), Relation(0, 7, 3))
    assert clocks.to_here(107) == (100, 3)


def test_no_reading_is_no_relation() -> None:
    """An offset of 0 made out of nothing would look like two clocks that agree."""
    with pytest.raises(ValueError, match="empty"):
        relate([])
