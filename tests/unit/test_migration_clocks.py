"""Every stamp in the peer's clock, with an uncertainty that the true time is always within."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from made_up_host import Machine, made_up_host

from harness.clock import Reading, Relation, relate
from harness.migration.clocks import READINGS, Clocks, SharedClock, Stamp, read_clocks

S = 1_000_000_000
BEFORE_NS, AFTER_NS = 1_000 * S, 1_060 * S
"""Our time at which the clocks are related, before and after a migration."""

MOMENT = st.integers(BEFORE_NS + 1 * S, AFTER_NS - 1 * S)
OFFSET = st.integers(-(10**15), 10**15)
MOVED = st.integers(-(10**9), 10**9)
DELAYS = st.lists(st.tuples(st.integers(0, 10**8), st.integers(0, 10**8)), min_size=1, max_size=4)


def related(at_ns: int, offset_ns: int, delays: list[tuple[int, int]]) -> Relation:
    """Relate a clock that is *offset_ns* ahead, over exchanges with these delays on their ways."""
    return relate(
        Reading(at_ns, at_ns + there + offset_ns, at_ns + there + back) for there, back in delays
    )


@dataclass(frozen=True)
class Clock:
    """A machine's clock: how far it is ahead of ours, before and after, and in between."""

    before_ns: int
    moved_ns: int
    share: float
    delays: tuple[list[tuple[int, int]], list[tuple[int, int]]]

    def at(self, ours_ns: int) -> int:
        """Give its time at our *ours_ns*: it may have moved at any moment, slowly or at once."""
        return ours_ns + self.before_ns + round(self.share * self.moved_ns)

    def clocks(self, *, after: bool) -> Clocks:
        at_ns = AFTER_NS if after else BEFORE_NS
        offset_ns = self.before_ns + (self.moved_ns if after else 0)
        relation = related(at_ns, offset_ns, self.delays[after])
        return Clocks(monotonic=relation, wall=relation)


CLOCKS = st.builds(Clock, OFFSET, MOVED, st.floats(0, 1), st.tuples(DELAYS, DELAYS))


def shared(**clocks: Clock) -> SharedClock:
    before, after = (
        {name: clock.clocks(after=late) for name, clock in clocks.items()} for late in (False, True)
    )
    return SharedClock(before, after, "peer")


def steady(offset_ns: int, uncertainty_ns: int, *, later_ns: int | None = None) -> Clocks:
    """A clock that is *offset_ns* ahead of ours, known so well."""
    at_ns = BEFORE_NS if later_ns is None else AFTER_NS
    relation = Relation(at_ns, offset_ns, uncertainty_ns)
    return Clocks(relation, relation)


@given(peer=CLOCKS, host=CLOCKS, moment_ns=MOMENT)
def test_the_true_time_of_a_stamp_is_within_its_uncertainty(
    peer: Clock, host: Clock, moment_ns: int
) -> None:
    """Two unknown clocks lie between a host and the peer, and both may move meanwhile.

    A relation used the wrong way round, or an error bar that is lost where two are put together,
    orders cause after effect.
    """
    clock = shared(peer=peer, alder=host)
    for stamp in (
        clock.from_monotonic("alder", host.at(moment_ns)),
        clock.from_wall("alder", host.at(moment_ns)),
    ):
        assert abs(stamp.t_ns - peer.at(moment_ns)) <= stamp.uncertainty_ns


@given(peer=CLOCKS, moment_ns=MOMENT, off_ns=st.integers(-(10**9), 10**9))
def test_our_own_uncertainty_is_added(peer: Clock, moment_ns: int, off_ns: int) -> None:
    """A step of ours was done somewhere between asking and the answer."""
    stamp = shared(peer=peer).from_ours(moment_ns + off_ns, abs(off_ns))
    assert abs(stamp.t_ns - peer.at(moment_ns)) <= stamp.uncertainty_ns


@given(
    peer=CLOCKS,
    guest=st.tuples(OFFSET, DELAYS, DELAYS),
    stop_ns=st.integers(BEFORE_NS + 5 * S, BEFORE_NS + 20 * S),
    stopped_for_ns=st.integers(0, 30 * S),
    from_stop_ns=st.one_of(st.integers(-4 * S, 30 * S), st.integers(-S // 2, S // 2)),
    stop_error=st.tuples(st.integers(0, 10**8), st.floats(-1, 1)),
)
def test_the_true_time_of_a_guests_stamp_is_within_its_uncertainty(
    peer: Clock,
    guest: tuple[int, list[tuple[int, int]], list[tuple[int, int]]],
    stop_ns: int,
    stopped_for_ns: int,
    from_stop_ns: int,
    stop_error: tuple[int, float],
) -> None:
    """The guest's clock stands while the guest does: what follows is behind by the stop.

    So does a stamp near the stop, which may belong to either side; taken for the wrong one, it is
    off by the whole stop.
    """
    offset_ns, early, late = guest
    theirs_ns = stop_ns + from_stop_ns + offset_ns
    moment_ns = stop_ns + from_stop_ns + (stopped_for_ns if from_stop_ns > 0 else 0)
    jumped_ns = offset_ns - stopped_for_ns
    before = {"peer": peer.clocks(after=False)}
    after = {"peer": peer.clocks(after=True)}
    before["guest"] = Clocks(*[related(BEFORE_NS, offset_ns, early)] * 2)
    after["guest"] = Clocks(*[related(AFTER_NS + stopped_for_ns, jumped_ns, late)] * 2)
    bound_ns, share = stop_error
    stopped = Stamp(peer.at(stop_ns) + round(share * bound_ns), bound_ns + 1)

    stamp = SharedClock(before, after, "peer").from_guest("guest", theirs_ns, stopped)
    assert abs(stamp.t_ns - peer.at(moment_ns)) <= stamp.uncertainty_ns


def test_a_guests_stamp_far_from_the_stop_is_as_good_as_any() -> None:
    """An uncertainty that covers the stop everywhere would be true and of no use."""
    clock = SharedClock(
        {"peer": steady(5 * S, 3), "guest": steady(7 * S, 100)},
        {"peer": steady(5 * S, 3, later_ns=0), "guest": steady(5 * S, 200, later_ns=0)},
        "peer",
    )
    stop_ns = BEFORE_NS + 20 * S  # for two seconds
    stopped = Stamp(stop_ns + 5 * S, 1000)
    assert clock.from_guest("guest", stop_ns - S + 7 * S, stopped) == Stamp(stop_ns + 4 * S, 103)
    assert clock.from_guest("guest", stop_ns + 3 * S + 5 * S, stopped) == Stamp(
        stop_ns + 8 * S, 203
    )


@pytest.mark.parametrize("from_stop_ns", [-1100, 0, 1100])
def test_a_guests_stamp_too_near_to_the_stop_may_be_of_either_side(from_stop_ns: int) -> None:
    """The stop is known to 1000 ns and the guest's clock to 103: together they cannot tell.

    Both sides are covered: from just before the stop to just after the guest ran on.
    """
    clock = SharedClock(
        {"peer": steady(0, 3), "guest": steady(7 * S, 100)},
        {"peer": steady(0, 3, later_ns=0), "guest": steady(5 * S, 200, later_ns=0)},
        "peer",
    )
    stop_ns = BEFORE_NS + 20 * S  # for two seconds
    theirs_ns = stop_ns + from_stop_ns + 7 * S
    stamp = clock.from_guest("guest", theirs_ns, Stamp(stop_ns, 1000))
    assert stamp.t_ns - stamp.uncertainty_ns <= stop_ns + from_stop_ns - 103
    assert stamp.t_ns + stamp.uncertainty_ns >= stop_ns + from_stop_ns + 2 * S + 203


def test_a_guest_that_was_never_stopped_has_one_clock() -> None:
    """A migration that failed early: the relation from after it is of another moment."""
    clock = SharedClock(
        {"peer": steady(0, 0), "guest": steady(7 * S, 100)},
        {"peer": steady(0, 0, later_ns=0), "guest": steady(7 * S + 9, 100, later_ns=0)},
        "peer",
    )
    moment_ns = AFTER_NS - S
    assert clock.from_guest("guest", moment_ns + 7 * S, None) == Stamp(moment_ns, 100)


def test_uncertainties_of_both_clocks_are_summed() -> None:
    """The larger of the two is the usual mistake: it is too small by up to a half."""
    clock = SharedClock(
        {"peer": steady(5 * S, 30), "alder": steady(-S, 100)},
        {"peer": steady(5 * S, 30, later_ns=0), "alder": steady(-S, 100, later_ns=0)},
        "peer",
    )
    moment_ns = BEFORE_NS + S
    assert clock.from_monotonic("alder", moment_ns - S) == Stamp(moment_ns + 5 * S, 130)


def test_both_clocks_of_a_machine_are_read(tmp_path: Path) -> None:
    """QEMU stamps by the wall clock, recorders by the monotonic one: years apart if mixed up."""
    machine = Machine(tmp_path)
    machine.ahead_ns = (42 * S, 1_700_000_000 * S)
    ours = made_up_host(machine)
    clocks = read_clocks(ours)
    for relation, ahead_ns in zip((clocks.monotonic, clocks.wall), machine.ahead_ns, strict=True):
        assert abs(relation.offset_ns - ahead_ns) <= relation.uncertainty_ns
        assert relation.uncertainty_ns < S


def test_many_readings_are_taken_for_one_good_one(tmp_path: Path) -> None:
    """The shortest of them is the error bar of the whole run."""
    machine = Machine(tmp_path)
    asked = []
    answer = machine.call

    def call(verb: str, *, patience_s: float = 30.0, **args: object) -> object:
        asked.append(verb)
        return answer(verb, patience_s=patience_s, **args)

    machine.call = call  # type: ignore[method-assign]
    read_clocks(made_up_host(machine))
    assert asked.count("clock") == READINGS + 1
