"""Every machine's clocks in the peer's: what puts all that was seen on one timeline."""

from __future__ import annotations

from dataclasses import dataclass

from harness.clock import ClockMap, Reading, Relation, relate
from harness.remote import Host

READINGS = 25


@dataclass(frozen=True, slots=True)
class Clocks:
    """A machine's two clocks, related to ours at one moment."""

    monotonic: Relation
    wall: Relation


@dataclass(frozen=True, slots=True)
class Stamp:
    """A moment in the peer's monotonic clock."""

    t_ns: int
    uncertainty_ns: int


def read_clocks(machine: Host) -> Clocks:
    """Relate the clocks of *machine* to our monotonic clock, by READINGS short exchanges."""
    readings = machine.clock_readings(READINGS)
    wall_ahead_ns = machine.realtime_minus_monotonic_ns()
    wall = [
        Reading(each.before_ns, each.there_ns + wall_ahead_ns, each.after_ns) for each in readings
    ]
    return Clocks(relate(readings), relate(wall))


class SharedClock:
    """Turns stamps of the machines of one migration into the peer's clock.

    *before* and *after* hold every machine's clocks, by name, as read before and after it.
    """

    def __init__(self, before: dict[str, Clocks], after: dict[str, Clocks], peer: str) -> None:
        self._before = before
        self._after = after
        self._peer = ClockMap(before[peer].monotonic, after[peer].monotonic)

    def from_ours(self, t_ns: int, uncertainty_ns: int = 0) -> Stamp:
        """A stamp of our own monotonic clock."""
        there_ns, error_ns = self._peer.to_there(t_ns)
        return Stamp(there_ns, uncertainty_ns + error_ns)

    def from_monotonic(self, machine: str, t_ns: int) -> Stamp:
        """A stamp of *machine*'s monotonic clock."""
        before, after = self._before[machine].monotonic, self._after[machine].monotonic
        return self.from_ours(*ClockMap(before, after).to_here(t_ns))

    def from_wall(self, machine: str, t_ns: int) -> Stamp:
        """A stamp of *machine*'s wall clock."""
        before, after = self._before[machine].wall, self._after[machine].wall
        return self.from_ours(*ClockMap(before, after).to_here(t_ns))

    def from_guest(self, guest: str, t_ns: int, stopped: Stamp | None) -> Stamp:
        """A stamp of the migrating guest's monotonic clock, which stands while it is stopped.

        *stopped* is when it was stopped.  By the clock's first relation a stamp comes before that
        or it is of the time after; one that is too near to tell may be either, and its
        uncertainty covers both.
        """
        first, second = self._before[guest].monotonic, self._after[guest].monotonic
        early = self.from_ours(*ClockMap(first, first).to_here(t_ns))
        if stopped is None:
            return early
        late = self.from_ours(*ClockMap(second, second).to_here(t_ns))
        doubt_ns = early.uncertainty_ns + stopped.uncertainty_ns
        if abs(early.t_ns - stopped.t_ns) > doubt_ns:
            return early if early.t_ns < stopped.t_ns else late
        return _either(early, late)


def _either(one: Stamp, other: Stamp) -> Stamp:
    """The shortest stretch that holds both."""
    begin_ns = min(each.t_ns - each.uncertainty_ns for each in (one, other))
    end_ns = max(each.t_ns + each.uncertainty_ns for each in (one, other))
    middle_ns = (begin_ns + end_ns) // 2
    return Stamp(middle_ns, end_ns - middle_ns)
