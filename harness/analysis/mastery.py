"""When a VF might master the bus, and when surely not, by samples of its COMMAND."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

from harness.agent.bme import HOLE_NS
from harness.analysis.measured import BmeSample


@dataclass(frozen=True, slots=True)
class Stretch:
    """A time in which BME was set, so that the VF *masters* the bus, or was not; ms.

    It was so from *since* to *until* for sure, and from *not_before* to *not_after* at the most.
    """

    masters: bool
    not_before: float
    since: float
    until: float
    not_after: float

    def surely_meets(self, begin: float, end: float) -> bool:
        """Whether some of the time from *begin* to *end* is in it, beyond doubt."""
        return max(self.since, begin) < min(self.until, end)

    def may_meet(self, begin: float, end: float) -> bool:
        """Whether some of that time may be in it."""
        return max(self.not_before, begin) < min(self.not_after, end)


def stretches(command: Sequence[tuple[float, BmeSample]], clocks_ms: float) -> list[Stretch]:
    """One after the other, by samples each with its time, in order; of none there is none.

    A change came after the sample before it, and the times of both may be off by *clocks_ms*.  Of a
    time for which nobody looked it is not known whether it belongs to what was seen after it.
    """
    if not command:
        return []
    begins = [command[0]]
    for (_, was), (ms, now) in pairwise(command):
        if now.masters != was.masters or now.gap_ns > HOLE_NS:
            begins.append((ms, now))
    first_ms, last_ms = begins[0][0], command[-1][0]
    edges = [(ms - sample.gap_ns / 1e6 - clocks_ms, ms + clocks_ms) for ms, sample in begins[1:]]
    edges = [(-math.inf, first_ms + clocks_ms), *edges, (last_ms - clocks_ms, math.inf)]
    return [
        Stretch(sample.masters, not_before, since, until, not_after)
        for (_, sample), ((not_before, since), (until, not_after)) in zip(
            begins, pairwise(edges), strict=True
        )
    ]
