"""The timeline of a migration shows its marks; each function here finds one of them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

from harness.analysis.measured import QUIESCE, BmeSample, Event, Measured
from harness.analysis.scheme import Mark

ASKED = "migrate asked"
RELEASED = "vf released"
ATTACHED = "vf attached"
STOPPING = "guest stopping"
"""QEMU begins to stop the guest; it says STOP when that is done."""

Seen = Event | BmeSample | None


def stopped(measured: Measured) -> Event | None:
    """Return when the source's QEMU had stopped the guest for its last pages, or None.

    QEMU may have stopped the guest several times.  The last STOP before ``completed`` counts, since
    the guest ran on after the others.
    """
    said = list(said_by_source(measured))
    ends = [event.t_ns for event in said if event.name == "MIGRATION completed"]
    stops = (e for e in said if e.name == "STOP" and not (ends and e.t_ns > min(ends)))
    return max(stops, key=lambda event: event.t_ns, default=None)


def said_by_source(measured: Measured) -> Iterator[Event]:
    """Yield what the source's QEMU said since the migration was asked for.

    An event that came before that or after, as far as the clocks can tell, is among them.
    """
    for event in measured.events:
        is_of_then = event.t_ns + event.uncertainty_ns >= measured.asked_ns
        if event.source == qmp(measured.source) and is_of_then:
            yield event


def released(measured: Measured) -> Event | None:
    """Return when the source's VF was let go: as an observer saw it, else as QEMU implies it.

    QEMU stays in wait-unplug until the guest has ejected a failover primary.
    """
    return first(measured.events, (RELEASED,)) or first(
        measured.events,
        ("MIGRATION active",),
        qmp(measured.source),
        since_ns=measured.asked_ns,
    )


def given_up(measured: Measured) -> Event | None:
    """Return when the source's QEMU said that the migration was cancelled, or failed."""
    return first(
        measured.events,
        ("MIGRATION cancelled", "MIGRATION failed"),
        qmp(measured.source),
        since_ns=measured.asked_ns,
    )


def attached_since(measured: Measured, t_ns: int) -> Event | None:
    """Return when an interface of the failover pair got a lasting link after *t_ns*."""
    return first(measured.events, (ATTACHED,), since_ns=t_ns)


def _quiesce(measured: Measured) -> Seen:
    step = first(measured.events, (QUIESCE,))
    return step if step and step.t_ns < measured.asked_ns else None


def _asked(measured: Measured) -> Event:
    return Event(measured.asked_ns, 0, "conductor", ASKED)


def _stopping(measured: Measured) -> Seen:
    """Return when stopping the guest began: its users wait from then on, not from STOP."""
    stop = stopped(measured)
    if stop is None:
        return None
    begun = first(measured.events, (STOPPING,), since_ns=measured.asked_ns)
    return begun if begun and begun.t_ns < stop.t_ns else stop


def _runs(measured: Measured) -> Event | None:
    """Return when the guest ran again after its stop, on either host."""
    stop = stopped(measured)
    return first(measured.events, ("RESUME",), since_ns=stop.t_ns) if stop else None


def _loaded(measured: Measured) -> Seen:
    runs = _runs(measured)
    if runs is None:
        return None
    done = first(measured.events, ("MIGRATION completed",), runs.source, since_ns=runs.t_ns)
    return done or runs


def _masters(measured: Measured) -> Seen:
    """Return when a VF could first do DMA where the guest runs again.

    That is RESUME itself if the VF's BME was 1 by then.
    """
    runs = _runs(measured)
    if runs is None:
        return None
    host = runs.source.removeprefix("qmp:")
    there = sorted((s for s in measured.bme if s.host == host), key=lambda sample: sample.t_ns)
    before = [sample for sample in there if sample.t_ns <= runs.t_ns]
    if before and before[-1].masters:
        return runs
    return next((s for s in there if s.t_ns > runs.t_ns and s.masters), None)


def _attached(measured: Measured) -> Seen:
    runs = _runs(measured)
    return attached_since(measured, runs.t_ns) if runs else None


FINDERS: Mapping[Mark, Callable[[Measured], Seen]] = {
    Mark.QUIESCE: _quiesce,
    Mark.ASKED: _asked,
    Mark.RELEASED: released,
    Mark.STOPPING: _stopping,
    Mark.RUNS: _runs,
    Mark.LOADED: _loaded,
    Mark.MASTERS: _masters,
    Mark.ATTACHED: _attached,
}
"""Each mark has a function that returns the event or the sample which shows the mark, or None."""


def first(
    events: Iterable[Event],
    names: Sequence[str],
    source: str | None = None,
    *,
    since_ns: int | None = None,
) -> Event | None:
    """Return the earliest event with one of *names* that may be of *since_ns* or later."""
    matching = (
        event
        for event in events
        if event.name in names
        and (source is None or event.source == source)
        and (since_ns is None or event.t_ns + event.uncertainty_ns >= since_ns)
    )
    return min(matching, key=lambda event: event.t_ns, default=None)


def qmp(host: str) -> str:
    """Return the source of events that the QEMU of *host* announced."""
    return f"qmp:{host}"
