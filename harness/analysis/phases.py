"""The stretches of a migration, and the one in which each outage began."""

from __future__ import annotations

from dataclasses import dataclass, replace

import pandas as pd

from harness.analysis.marks import FINDERS, Seen, attached_since, given_up, released
from harness.analysis.measured import REFUSED, Measured
from harness.analysis.scheme import Mark

NAMES = ("before", "quiesce", "unplug", "pre-copy", "stop", "resume", "replug", "after")

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
    shown.  So a cancelled migration has no stop.  The scheme's record says which phases there are.
    A migration that QEMU refused is over when it was asked for: before, and after.
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


def _boundaries(measured: Measured) -> list[Boundary]:
    """List what the timeline shows, in the order in which the phases follow each other."""
    if measured.status == REFUSED:
        return [Boundary("after", measured.asked_ns)]
    found: list[Boundary] = []
    for name, mark in measured.scheme.phases:
        seen = FINDERS[mark](measured)
        if mark is Mark.STOPPING and seen is None:
            return found + _given_up(measured)
        found += _begins(name, seen)
    return found


def _given_up(measured: Measured) -> list[Boundary]:
    """After a migration that ended before the guest was stopped."""
    over = given_up(measured)
    if over is None:
        return []
    gone = released(measured) if measured.scheme.vf == "replaced" else None
    if gone is None or gone.t_ns > over.t_ns:
        return _begins("after", over)
    attached = attached_since(measured, over.t_ns)
    return [*_begins("replug", over), *_begins("after", attached)]


def _begins(name: str, seen: Seen) -> list[Boundary]:
    return [] if seen is None else [Boundary(name, seen.t_ns, seen.uncertainty_ns, seen.gap_ns)]
