"""The stretches of a migration, and the one in which each outage began."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace

import pandas as pd

from harness.analysis.measured import QUIESCE, REFUSED, BmeSample, Event, Measured

NAMES = ("before", "quiesce", "unplug", "pre-copy", "stop", "resume", "replug", "after")

ASKED = "migrate asked"
LET_GO_ASKED = "unplug asked"
RELEASED = "vf released"
ATTACHED = "vf attached"
STOPPING = "guest stopping"
"""QEMU begins to stop the guest; it says STOP when that is done."""

CLOSED_BY_ITS_LAST_ACT = (("unplug", "pre-copy"), ("replug", "after"))


@dataclass(frozen=True, slots=True)
class Boundary:
    """The moment at which the phase *name* begins; *gap_ns* as an event's."""

    name: str
    t_ns: int
    uncertainty_ns: int = 0
    gap_ns: int = 0


def phases(measured: Measured, *, starts_ns: int, ends_ns: int) -> pd.DataFrame:
    """Divide a migration into phases; columns and units stand in the package's docstring.

    *starts_ns* and *ends_ns* are those of the data, in the peer's clock.  A phase whose beginning
    nothing on the timeline shows is left out: the one before it lasts until the next that is
    shown.  So a cancelled migration has no stop, ``plain`` no unplug and no replug, and ``inplace``
    a quiesce only where that step is taken before the migration is asked for.  One that QEMU
    refused is over when it was asked for: before, and after.
    """
    found = [Boundary("before", min(starts_ns, measured.asked_ns))]
    for boundary in _boundaries(measured):
        # Two clocks may put a boundary before its cause; then the phase between has no length.
        at = max(boundary.t_ns, found[-1].t_ns)
        if at == found[-1].t_ns:
            found.pop()
        found.append(replace(boundary, t_ns=at))
    start = pd.Series([b.t_ns for b in found], dtype="int64") - measured.asked_ns
    last = max(ends_ns - measured.asked_ns, int(start.iloc[-1]))
    return pd.DataFrame(
        {
            "name": [b.name for b in found],
            "start_ns": start,
            "end_ns": start.shift(-1, fill_value=last).astype("int64"),
            "uncertainty_ns": pd.Series([b.uncertainty_ns for b in found], dtype="int64"),
            "gap_ns": pd.Series([b.gap_ns for b in found], dtype="int64"),
        }
    )


def attribute(outages: pd.DataFrame, phases: pd.DataFrame) -> pd.DataFrame:
    """*outages* with the columns phase and candidates.

    The break lies between earliest_ns and latest_ns.  Something breaks a flow, so a boundary in
    that stretch, give or take its uncertainty, is taken as its cause; of several, the one nearest
    to the stretch, then the first.  The outage is then of the phase that begins there, but for
    the VF's release and return: these are the last act of unplug and of replug.  Without such a
    boundary it is the phase already running.
    """
    names = phases["name"].tolist()
    starts = list(zip(phases["start_ns"], phases["uncertainty_ns"], strict=True))
    chosen, candidates = [], []
    for earliest, latest in zip(outages["earliest_ns"], outages["latest_ns"], strict=True):
        running = max((i for i, (t, _) in enumerate(starts) if t <= earliest), default=0)
        near = [
            (max(earliest - t, t - latest, 0), i)
            for i, (t, uncertainty) in enumerate(starts)
            if i > 0 and earliest - uncertainty <= t <= latest + uncertainty
        ]
        cause = min(near)[1] if near else running
        if near and (names[cause - 1], names[cause]) in CLOSED_BY_ITS_LAST_ACT:
            cause -= 1
        chosen.append(names[cause])
        possible = {running} | {i for _, i in near} | {i - 1 for _, i in near}
        candidates.append(tuple(names[i] for i in sorted(possible)))
    return outages.assign(
        phase=pd.Series(chosen, index=outages.index, dtype="str"),
        candidates=pd.Series(candidates, index=outages.index, dtype="object"),
    )


def stopped(measured: Measured) -> Event | None:
    """When the source's QEMU had stopped the guest for its last pages; None if it never did.

    Of several, the last before it said that it completed: after the others the guest ran on.
    """
    said = list(said_by_source(measured))
    ends = [event.t_ns for event in said if event.name == "MIGRATION completed"]
    stops = (e for e in said if e.name == "STOP" and not (ends and e.t_ns > min(ends)))
    return max(stops, key=lambda event: event.t_ns, default=None)


def said_by_source(measured: Measured) -> Iterator[Event]:
    """What the source's QEMU said from when the migration was asked for, by the clocks."""
    for event in measured.events:
        is_of_then = event.t_ns + event.uncertainty_ns >= measured.asked_ns
        if event.source == _qmp(measured.source) and is_of_then:
            yield event


def _stopping(measured: Measured, stop: Event) -> Event:
    """When stopping the guest began: its users wait from then on, not from *stop*."""
    begun = _first(measured.events, (STOPPING,), since_ns=measured.asked_ns)
    return begun if begun and begun.t_ns < stop.t_ns else stop


def released(measured: Measured) -> Event | None:
    """When the VF was let go on the source: seen by the conductor, else implied by QEMU.

    QEMU stays in wait-unplug until the guest has ejected a failover primary.
    """
    return _first(measured.events, (RELEASED,)) or _first(
        measured.events,
        ("MIGRATION active",),
        _qmp(measured.source),
        since_ns=measured.asked_ns,
    )


def _boundaries(measured: Measured) -> list[Boundary]:
    """List what the timeline shows, in the order in which the phases follow each other."""
    if measured.status == REFUSED:
        return [Boundary("after", measured.asked_ns)]
    found: list[Boundary] = []
    gone = released(measured) if measured.has_vf else None
    if measured.keeps_vf:
        step = _first(measured.events, (QUIESCE,))
        found += _begins("quiesce", step if step and step.t_ns < measured.asked_ns else None)
        found.append(Boundary("pre-copy", measured.asked_ns))
    elif measured.has_vf:
        asked = _first(measured.events, (LET_GO_ASKED,))
        first = min(measured.asked_ns, asked.t_ns) if asked else measured.asked_ns
        found += [Boundary("unplug", first), *_begins("pre-copy", gone)]
    else:
        found.append(Boundary("pre-copy", measured.asked_ns))
    stop = stopped(measured)
    if stop is None:
        return found + _given_up(measured, gone)
    found += _begins("stop", _stopping(measured, stop))
    runs = _first(measured.events, ("RESUME",), since_ns=stop.t_ns)
    return found + (_resumed(measured, runs) if runs else [])


def _given_up(measured: Measured, gone: Event | None) -> list[Boundary]:
    """After a migration that ended before the guest was stopped."""
    over = _first(
        measured.events,
        ("MIGRATION cancelled", "MIGRATION failed"),
        _qmp(measured.source),
        since_ns=measured.asked_ns,
    )
    if over is None:
        return []
    if gone is None or gone.t_ns > over.t_ns:
        return _begins("after", over)
    attached = _first(measured.events, (ATTACHED,), since_ns=over.t_ns)
    return [*_begins("replug", over), *_begins("after", attached)]


def _resumed(measured: Measured, runs: Event) -> list[Boundary]:
    """From *runs*, when the guest runs again on either host, to the VF's return."""
    host = runs.source.removeprefix("qmp:")
    if not measured.has_vf:
        done = _first(measured.events, ("MIGRATION completed",), runs.source, since_ns=runs.t_ns)
        return [*_begins("resume", runs), *_begins("after", done or runs)]
    if measured.keeps_vf:
        return [
            *_begins("resume", runs),
            *_begins("after", _bme_set(measured.bme, host, since=runs)),
        ]
    return [
        *_begins("resume", runs),
        *_begins("replug", _bme_set(measured.bme, host, since=runs)),
        *_begins("after", _first(measured.events, (ATTACHED,), since_ns=runs.t_ns)),
    ]


def _begins(name: str, seen: Event | BmeSample | None) -> list[Boundary]:
    return [] if seen is None else [Boundary(name, seen.t_ns, seen.uncertainty_ns, seen.gap_ns)]


def _first(
    events: Iterable[Event],
    names: Sequence[str],
    source: str | None = None,
    *,
    since_ns: int | None = None,
) -> Event | None:
    matching = (
        event
        for event in events
        if event.name in names
        and (source is None or event.source == source)
        and (since_ns is None or event.t_ns + event.uncertainty_ns >= since_ns)
    )
    return min(matching, key=lambda event: event.t_ns, default=None)


def _bme_set(samples: Iterable[BmeSample], host: str, *, since: Event) -> BmeSample | Event | None:
    """When a VF on *host* could first do DMA: at *since* itself if its BME was 1 by then."""
    there = sorted((s for s in samples if s.host == host), key=lambda sample: sample.t_ns)
    before = [sample for sample in there if sample.t_ns <= since.t_ns]
    if before and before[-1].masters:
        return since
    return next((s for s in there if s.t_ns > since.t_ns and s.masters), None)


def _qmp(host: str) -> str:
    return f"qmp:{host}"
