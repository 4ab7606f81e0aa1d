"""When QEMU copied a guest's last pages, and what surely came before what."""

from __future__ import annotations

from dataclasses import dataclass

from harness.analysis.marks import said_by_source
from harness.analysis.measured import BmeSample, Event, Measured

_PASS, _FIRST_PASS = "MIGRATION_PASS", "MIGRATION active"
_ENDS = {
    *("MIGRATION completed", "MIGRATION failed", "MIGRATION cancelling", "MIGRATION cancelled"),
    "RESUME",
}
"""What the source says once it copies no more, whatever came of it."""


@dataclass(frozen=True, slots=True)
class Copying:
    """How the source's QEMU copied the last pages; each moment is what it said itself.

    last_pass  the last pass that it announced before *stop* began; *stop* where there is none
    stop       the guest had stopped
    copied     the last page was sent, or that was given up
    """

    last_pass: Event
    stop: Event
    copied: Event

    @property
    def limit(self) -> str:
        """What DMA must have stopped before, in words."""
        return "STOP" if self.last_pass is self.stop else "the last pass before STOP"


def copying(measured: Measured, stop: Event) -> Copying | None:
    """How pages were copied before *stop* and after; None if nobody knows until when.

    A migration that did not complete, and does not say how it ended, copied nothing after *stop*.
    """
    said = list(said_by_source(measured))
    before = [event for event in said if event.t_ns <= stop.t_ns]
    passes = [event for event in before if event.name.startswith(_PASS)]
    passes = passes or [event for event in before if event.name == _FIRST_PASS]
    ends = [event for event in said if event.name in _ENDS and event.t_ns >= stop.t_ns]
    if not ends and measured.status == "completed":
        return None
    last_pass = max(passes, key=lambda event: event.t_ns, default=stop)
    copied = min(ends, key=lambda event: event.t_ns, default=stop)
    return Copying(last_pass, stop, copied)


def surely_before(one: BmeSample | Event, other: BmeSample | Event) -> bool:
    """Whether *one* came first, whatever the clocks and the time between two looks make of it.

    What a sample shows had come by then: the time since the sample before it lies before it.
    """
    late_ns = one.uncertainty_ns - (one.gap_ns if isinstance(one, BmeSample) else 0)
    return other.t_ns - one.t_ns > late_ns + other.uncertainty_ns


def doubt_ns(one: BmeSample | Event, other: BmeSample | Event) -> int:
    """How far the time from the one to the other may be off."""
    return one.uncertainty_ns + other.uncertainty_ns


def in_ms(ns: int) -> str:
    """A time for a sentence."""
    return f"{ns / 1e6:.3g}" if abs(ns) < 100_000_000 else f"{ns / 1e6:.0f}"
