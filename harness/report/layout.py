"""What one figure shows, decided without drawing: spans, dots, ticks and labels that fit.

All x values are seconds from when ``migrate`` was asked for.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pandas as pd

from harness.analysis.measured import CONFIG, DEVICE_WROTE, MIGRATE_REFUSED, REFUSED
from harness.report.results import Flow, Migration

COLUMNS = 800  # of time, a stroke in each: about as many as a screen shows
LABELS_SHOWN = 8  # of a flow's outages, the longest: random loss would write over everything
SPANS_SHOWN = 100  # outages of a flow; the others are still ticks, as every lost frame is

KEY_EVENTS = (
    "migrate asked",
    MIGRATE_REFUSED,
    "UNPLUG_PRIMARY",
    "DEVICE_DELETED",
    "vf released",
    DEVICE_WROTE,
    "STOP",
    "RESUME",
    "FAILOVER_NEGOTIATED",
    "vf attached",
    "SUSPEND",
    "WAKEUP",
    "MIGRATION completed",
    "MIGRATION cancelled",
    "MIGRATION failed",
    "kernel fault",
)

Seconds = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Dots:
    """Vertical strokes, one per column of time: lowest and highest value seen in it."""

    x: Seconds
    low_ms: npt.NDArray[np.float64]
    high_ms: npt.NDArray[np.float64]
    lost: Seconds  # columns in which at least one frame was lost


@dataclass(frozen=True, slots=True)
class Label:
    """A text at *x*, in *row* 0, 1, ..; to the left of x where *left*, so as to stay inside."""

    x: float
    row: int
    text: str
    left: bool = False


def extent(migration: Migration) -> tuple[float, float]:
    """Choose what the x axis shows: the migration and its outages, and a little around them.

    Of one that was refused, all: it has no length.
    """
    phases = migration.phases
    if migration.status == REFUSED:
        return phases[0].start_ms / 1e3, phases[-1].end_ms / 1e3
    ends = [phase.start_ms for phase in phases[1:]]
    ends += [o.end_ms or phases[-1].end_ms for flow in migration.flows for o in flow.outages]
    starts = [0.0, *(phase.start_ms for phase in phases[1:])]
    starts += [outage.start_ms for flow in migration.flows for outage in flow.outages]
    first, last = min(starts), max([*ends, 1.0])
    around = max(0.06 * (last - first), 100.0)
    return (
        max(phases[0].start_ms, first - around) / 1e3,
        min(max(phases[-1].end_ms, last), last + around) / 1e3,
    )


def dots(flow: Flow, packets: pd.DataFrame, shown: tuple[float, float]) -> Dots:
    """Reduce the packets of *flow* to what a screen can show.

    Round-trip: round-trip times by send time.  One-way flows: the time since the arrival
    before, by send time (to-guest) or arrival (from-guest), which needs no second clock.
    """
    x, value = _round_trips(packets) if flow.direction == "round-trip" else _gaps(flow, packets)
    inside = (x >= shown[0]) & (x <= shown[1])
    x, value = x[inside], value[inside]
    column = ((x - shown[0]) / (shown[1] - shown[0]) * COLUMNS).astype("int64")
    table = pd.DataFrame({"column": column, "x": x, "value": value, "lost": np.isnan(value)})
    by_column = table.groupby("column")
    reduced = by_column.agg(x=("x", "mean"), low=("value", "min"), high=("value", "max"))
    answered = reduced.dropna()
    return Dots(
        x=answered["x"].to_numpy(),
        low_ms=answered["low"].to_numpy(),
        high_ms=answered["high"].to_numpy(),
        lost=reduced["x"][by_column["lost"].any()].to_numpy(),
    )


def place(
    wanted: Iterable[tuple[float, str]],
    *,
    shown: tuple[float, float],
    width_of: float,
    rows: int,
) -> list[Label]:
    """Put texts at their x, in as few rows as keep them apart; what fits nowhere is left out.

    *width_of* is the width of one character in seconds.  Texts are placed in the order given:
    the most important first.
    """
    taken: list[list[tuple[float, float]]] = [[] for _ in range(rows)]
    labels = []
    for x, text in wanted:
        width = (len(text) + 2) * width_of
        left = x + width > shown[1]
        span = (x - width, x) if left else (x, x + width)
        row = next((r for r in range(rows) if _is_free(taken[r], span)), None)
        if row is not None:
            taken[row].append(span)
            labels.append(Label(x, row, text, left))
    return labels


def key_events(migration: Migration) -> list[tuple[float, str, str]]:
    """List (x, name, source) of the events worth a mark: those that matter most come first.

    Every hand-off step is one, and every migration state of a VF; after all others whatever the
    guest saw of its interfaces, and each change of a described register.
    """
    marked = [
        (event.t_ms / 1e3, event.name, event.source)
        for event in migration.events
        if event.name in KEY_EVENTS or event.source.startswith(("handoff:", "vfio:"))
    ]
    return marked + [
        (event.t_ms / 1e3, event.name, event.source)
        for event in migration.events
        if event.source == "guest"
        or (event.source.startswith(f"{CONFIG}:") and event.data.get("was") is not None)
    ]


def _round_trips(packets: pd.DataFrame) -> tuple[Seconds, Seconds]:
    value = (packets["returned_ns"] - packets["sent_ns"]).to_numpy("float64", na_value=np.nan)
    return packets["sent_ns"].to_numpy("float64") / 1e9, value / 1e6


def _gaps(flow: Flow, packets: pd.DataFrame) -> tuple[Seconds, Seconds]:
    arrival = packets["returned_ns"].to_numpy("float64", na_value=np.nan)
    order = np.argsort(arrival, kind="stable")
    gap = np.full(len(arrival), np.nan)
    gap[order[1:]] = np.diff(arrival[order])
    first = int(order[0])
    gap[first] = 1e9 / flow.rate_pps
    if flow.direction == "to-guest":
        return packets["sent_ns"].to_numpy("float64") / 1e9, gap / 1e6
    return _filled(packets["sequence"], arrival) / 1e9, gap / 1e6


def _filled(sequence: Sequence[int] | pd.Series[int], arrival: Seconds) -> Seconds:
    """Put each lost frame between the arrivals of its neighbours."""
    known = ~np.isnan(arrival)
    number = np.asarray(sequence, dtype="float64")
    filled: Seconds = np.interp(number, number[known], arrival[known])
    return filled


def _is_free(taken: Iterable[tuple[float, float]], span: tuple[float, float]) -> bool:
    return all(span[1] <= start or span[0] >= end for start, end in taken)
