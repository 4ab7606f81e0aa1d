"""Waiting for a state, with a deadline and the last thing seen. The only place that sleeps."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TypeVar

from harness.errors import HarnessError, WaitError

T = TypeVar("T")


class Deadline:
    """A moment on the monotonic clock, passed down rather than spent again at each level."""

    def __init__(self, seconds: float) -> None:
        self._end = time.monotonic() + seconds
        self.seconds = seconds

    @property
    def remaining(self) -> float:
        """Seconds left, never below zero."""
        return max(0.0, self._end - time.monotonic())

    @property
    def expired(self) -> bool:
        return self.remaining == 0.0


def let_pass(seconds: float) -> None:
    """Do nothing for *seconds*, where time itself is what is measured or needed."""
    time.sleep(seconds)


def wait_for(
    what: str,
    look: Callable[[], T],
    *,
    within: float | Deadline,
    until: Callable[[T], object] = bool,
    every_s: float = 0.05,
    fix: str = "see what was last seen above; the host's log says more",
    error: type[HarnessError] = WaitError,
) -> T:
    """Call *look* until *until* is true of what it returns, and return that.

    *look* is called at least once, even if *within* has run out.  Raises *error* with the last
    thing seen; what *look* itself raises is not caught.  *error* says who must act, if that is
    known: LabError for a cable that is not in.
    """
    deadline = within if isinstance(within, Deadline) else Deadline(within)
    while True:
        seen = look()
        if until(seen):
            return seen
        if deadline.expired:
            raise error(
                f"waited {deadline.seconds:g} s for {what}",
                because=f"last seen: {seen!r}",
                fix=fix,
            )
        time.sleep(min(every_s, deadline.remaining))
