"""Relating the clocks of two machines, with the uncertainty kept.

A *reading* asks another machine for its time and notes ours before and after.  Whatever the
way there costs, the other clock was read between the two, so half the round trip bounds the
error: the reading with the shortest round trip is the best one (as in RFC 5905, section 10).
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Reading:
    """One exchange: our monotonic time before and after, theirs in between; all in ns."""

    before_ns: int
    there_ns: int
    after_ns: int

    @property
    def round_trip_ns(self) -> int:
        return self.after_ns - self.before_ns


@dataclass(frozen=True, slots=True)
class Relation:
    """``there = here + offset_ns``, give or take *uncertainty_ns*, when ours said *here_ns*."""

    here_ns: int
    offset_ns: int
    uncertainty_ns: int


def relate(readings: Iterable[Reading]) -> Relation:
    """The relation that the reading with the shortest round trip gives.

    Raises ValueError without any reading.
    """
    best = min(readings, key=lambda reading: reading.round_trip_ns)
    middle = best.before_ns + best.round_trip_ns // 2
    return Relation(middle, best.there_ns - middle, (best.round_trip_ns + 1) // 2)


@dataclass(frozen=True, slots=True)
class ClockMap:
    """Another machine's clock during a run: related before it and after it, linear in between.

    Outside the two relations the nearer one is used as it is.
    """

    before: Relation
    after: Relation

    def to_here(self, there_ns: int) -> tuple[int, int]:
        """Their time in our clock: (ns, uncertainty in ns)."""
        offset_ns, uncertainty_ns = self._offset(there_ns - self.before.offset_ns)
        return there_ns - offset_ns, uncertainty_ns

    def to_there(self, here_ns: int) -> tuple[int, int]:
        """Our time in their clock: (ns, uncertainty in ns)."""
        offset_ns, uncertainty_ns = self._offset(here_ns)
        return here_ns + offset_ns, uncertainty_ns

    def _offset(self, here_ns: int) -> tuple[int, int]:
        """The offset at about *here_ns*, and its uncertainty.

        That is the larger of the two relations' plus how far the offset moved between them, since
        nothing says that it moved evenly.
        """
        span = self.after.here_ns - self.before.here_ns
        share = min(1.0, max(0.0, (here_ns - self.before.here_ns) / span)) if span > 0 else 0.0
        moved = self.after.offset_ns - self.before.offset_ns
        uncertainty = max(self.before.uncertainty_ns, self.after.uncertainty_ns) + abs(moved)
        return self.before.offset_ns + round(share * moved), uncertainty
