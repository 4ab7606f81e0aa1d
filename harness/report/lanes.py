"""The lanes of a migration's figure, one strip each; who puts them together is ``figure``.

In every lane x is seconds from when ``migrate`` was asked for, and y runs from 0 to 1.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from itertools import groupby

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.patches import PathPatch
from matplotlib.path import Path

from harness.report.layout import LABELS_SHOWN, SPANS_SHOWN, Dots, Seconds, dots, key_events, place
from harness.report.results import Bme, Flow, Migration, Phase
from harness.report.svg import CUT, CUT_TEXT, DIM, DOT, GRID, INK, MASTERS
from harness.report.words import DIRECTIONS, duration, longest_outage
from harness.uapi.pci_regs import NO_ANSWER

WIDTH_IN, LEFT_IN, RIGHT_IN = 11.0, 1.9, 0.15
POINTS_PER_CHARACTER = 4.5  # at 8 points, a little generous
# Okabe and Ito's palette, which people of all colour visions can tell apart; its vermilion is
# kept for outages.
PHASE_COLOURS = {
    "before": "#d9dde2",
    "quiesce": "#f4b183",
    "unplug": "#e69f00",
    "pre-copy": "#8cc8ee",
    "stop": "#dc95bd",
    "resume": "#4dbf9f",
    "replug": "#f0e442",
    "after": "#d9dde2",
}
ON_COLOUR = "#14181c"


@dataclass(frozen=True, slots=True)
class Lane:
    """One strip of the figure: its height, the texts at its left, and who draws it."""

    inches: float
    title: str
    detail: str
    draw: Callable[[Axes], None]


def _per_character(shown: tuple[float, float]) -> float:
    points = (WIDTH_IN - LEFT_IN - RIGHT_IN) * 72
    return (shown[1] - shown[0]) / points * POINTS_PER_CHARACTER


def phases_lane(migration: Migration, shown: tuple[float, float]) -> Lane:
    """Coloured spans with their names; a name that does not fit stands above its span."""
    return Lane(0.62, "Phases", "", lambda axes: _draw_phases(axes, migration.phases, shown))


def down_lane(migration: Migration) -> Lane:
    """Two bars on one scale: what QEMU calls downtime, and the longest that users waited."""
    detail = "QEMU's own figure\nlongest users felt"
    return Lane(0.5, "Down time", detail, lambda axes: _draw_down(axes, migration))


def _draw_phases(axes: Axes, phases: list[Phase], shown: tuple[float, float]) -> None:
    outside = []
    for phase in phases:
        start = max(phase.start_ms / 1e3, shown[0])
        length = min(phase.end_ms / 1e3, shown[1]) - start
        axes.broken_barh([(start, length)], (0, 0.5), facecolors=PHASE_COLOURS[phase.name])
        at_edge = phase.name in ("before", "after")
        took = phase.end_ms - phase.start_ms
        text = phase.name if at_edge else f"{phase.name} {duration(took)}"
        if length > (len(text) + 1) * _per_character(shown):
            axes.text(start + length / 2, 0.24, text, color=ON_COLOUR, ha="center", va="center")
        elif not at_edge:
            outside.append((start + length / 2, text))
    for label in place(outside, shown=shown, width_of=_per_character(shown), rows=2):
        y = 0.62 + 0.26 * label.row
        axes.plot([label.x, label.x], [0.5, y + 0.1], color=DIM, linewidth=0.6)
        side = "right" if label.left else "left"
        axes.annotate(
            label.text,
            (label.x, y + 0.02),
            xytext=(-2 if label.left else 2, 0),
            textcoords="offset points",
            color=INK,
            ha=side,
            va="center",
        )
    axes.set_frame_on(False)


def events_lane(migration: Migration, shown: tuple[float, float]) -> Lane:
    """Key events, each text at its moment, in as many rows as keep them apart."""
    wanted = []
    for x, name, source in key_events(migration):
        kind, _, host = source.partition(":")
        who = {"handoff": "hand-off: ", "guest": "guest: "}.get(kind, "")
        wanted.append((x, f"{who}{name}" + (f" ({host})" if host else "")))
    inside = [(x, text) for x, text in wanted if shown[0] <= x <= shown[1]]
    labels = place(inside, shown=shown, width_of=_per_character(shown), rows=9)
    rows = max((label.row for label in labels), default=0) + 1

    def draw(axes: Axes) -> None:
        axes.set_ylim(rows, 0)
        for label in labels:
            axes.plot([label.x, label.x], [label.row + 0.5, rows], color=GRID, linewidth=0.8)
            axes.plot([label.x], [label.row + 0.5], "o", color=INK, markersize=2.5)
            axes.annotate(
                label.text,
                (label.x, label.row + 0.5),
                xytext=(-4 if label.left else 4, 0),
                textcoords="offset points",
                color=INK,
                ha="right" if label.left else "left",
                va="center",
            )

    detail = "" if len(labels) == len(inside) else f"{len(inside) - len(labels)} more in the table"
    return Lane(max(0.165 * rows, 0.35), "Events", detail, draw)


def _draw_down(axes: Axes, migration: Migration) -> None:
    stop = next((p for p in migration.phases if p.name == "stop"), None)
    if stop is not None and migration.qemu.downtime_ms is not None:
        start, length = stop.start_ms / 1e3, migration.qemu.downtime_ms / 1e3
        _bar(axes, start, length, 0.56, DIM, f"QEMU: {duration(length * 1e3)}", INK)
    found = longest_outage(migration)
    if found is None:
        axes.text(0.01, 0.22, "no outage", color=INK, transform=axes.transAxes, va="center")
        return
    flow, outage = found
    start, end = outage.start_ms / 1e3, axes.get_xlim()[1]
    text = f"users: never back ({flow.name})"
    if outage.length_ms is not None:
        end = start + outage.length_ms / 1e3
        text = f"users: {duration(outage.length_ms)} ({flow.name})"
    _bar(axes, start, end - start, 0.08, CUT, text, CUT_TEXT)


def _bar(
    axes: Axes, start: float, length: float, y: float, colour: str, text: str, ink: str
) -> None:
    axes.broken_barh([(start, length)], (y, 0.34), facecolors=colour, edgecolors=colour)
    low, high = axes.get_xlim()
    needed = (len(text) + 3) * _per_character((low, high)) * 1.1
    if length > needed:
        x, shift, side, ink = start, 4, "left", ON_COLOUR
    elif start + length + needed > high:
        x, shift, side = start, -4, "right"
    else:
        x, shift, side = start + length, 4, "left"
    axes.annotate(
        text,
        (x, y + 0.16),
        xytext=(shift, 0),
        textcoords="offset points",
        color=ink,
        weight="bold",
        ha=side,
        va="center",
    )


def flow_lane(flow: Flow, packets: pd.DataFrame | None, shown: tuple[float, float]) -> Lane:
    """One flow: its outages shaded, with their lengths; its packets, where they are at hand."""
    reduced = None if packets is None else dots(flow, packets, shown)

    def draw(axes: Axes) -> None:
        _outages(axes, flow, shown)
        if reduced is not None:
            _packets(axes, reduced)
            axes.annotate(
                "round-trip time" if flow.direction == "round-trip" else "between arrivals",
                (shown[0], 0.7),
                xytext=(-4, 0),
                textcoords="offset points",
                color=DIM,
                size=6.5,
                ha="right",
                va="center",
            )

    detail = (
        f"{DIRECTIONS[flow.direction]}\n"
        f"{flow.frame_bytes} bytes, {flow.rate_pps:g}/s\n"
        f"{flow.lost} of {flow.sent} lost"
    )
    return Lane(1.3, flow.name, detail, draw)


def _outages(axes: Axes, flow: Flow, shown: tuple[float, float]) -> None:
    longest_first = sorted(flow.outages, key=lambda o: -(o.length_ms or np.inf))[:SPANS_SHOWN]
    spans = [
        (o.start_ms / 1e3, shown[1] if o.end_ms is None else o.end_ms / 1e3) for o in longest_first
    ]
    # One path for all: a hundred rectangles of their own are most of a page.
    corners = [[(a, 0), (a, 1), (b, 1), (b, 0), (a, 0)] for a, b in spans]
    shades = Path.make_compound_path(*(Path(four, closed=True) for four in corners))
    axes.add_patch(PathPatch(shades, facecolor=CUT, alpha=0.2, linewidth=0))
    _strokes(axes, [a for a, _ in spans], 0, 1, CUT, 0.6)
    wanted = [
        (a, "never came back" if o.length_ms is None else duration(o.length_ms))
        for (a, _), o in zip(spans, longest_first, strict=True)
    ]
    for label in place(
        wanted[:LABELS_SHOWN], shown=shown, width_of=_per_character(shown) * 1.1, rows=3
    ):
        axes.annotate(
            label.text,
            (label.x, 0.93 - 0.125 * label.row),
            xytext=(-2 if label.left else 2, 0),
            textcoords="offset points",
            color=CUT_TEXT,
            weight="bold",
            ha="right" if label.left else "left",
            va="center",
        )


def _packets(axes: Axes, reduced: Dots) -> None:
    """Draw round trips (or gaps) as strokes on a logarithmic scale, losses as ticks below."""
    low = float(np.floor(np.log10(max(reduced.low_ms.min(initial=np.inf), 0.01))))
    high = float(np.ceil(np.log10(max(reduced.high_ms.max(initial=0.0), 0.02))))
    low, high = (low, high) if high > low else (low, low + 1)

    def height(ms: Seconds) -> Seconds:
        placed: Seconds = 0.16 + 0.44 * (np.log10(np.maximum(ms, 10**low)) - low) / (high - low)
        return placed

    decades = 10 ** np.arange(low, high + 1)
    names = [f"{ms:g} ms" if ms < 1e3 else f"{ms / 1e3:g} s" for ms in decades]
    axes.set_yticks(height(decades), names)
    axes.tick_params(axis="y", length=2, colors=DIM, labelsize=6.5)
    _strokes(axes, reduced.x, height(reduced.low_ms), height(reduced.high_ms), DOT, 1.5)
    _strokes(axes, reduced.lost, 0.02, 0.1, CUT, 0.8)


def _strokes(
    axes: Axes,
    x: Seconds | list[float],
    low: Seconds | float,
    high: Seconds | float,
    colour: str,
    width: float,
) -> None:
    """Draw vertical strokes as one path, with round ends: one without length is a dot."""
    points = np.full((len(x), 3, 2), np.nan)
    points[:, :2, 0] = np.asarray(x)[:, None]
    points[:, 0, 1], points[:, 1, 1] = low, high
    flat = points.reshape(-1, 2)
    axes.plot(flat[:, 0], flat[:, 1], color=colour, linewidth=width, solid_capstyle="round")


def bme_lanes(migration: Migration, shown: tuple[float, float]) -> list[Lane]:
    """One lane per VF watched, the source's first: Bus Master Enable as 0, 1, or gone."""
    ordered = sorted(migration.bme, key=lambda s: (s.host != migration.source, s.host, s.vf))
    lanes = []
    for (host, vf), group in groupby(ordered, key=lambda s: (s.host, s.vf)):
        samples = sorted(group, key=lambda sample: sample.t_ms)
        lanes.append(Lane(0.34, f"BME {host}", vf, _bme_drawer(samples, shown)))
    return lanes


def _bme_drawer(samples: list[Bme], shown: tuple[float, float]) -> Callable[[Axes], None]:
    def draw(axes: Axes) -> None:
        ends = [s.t_ms for s in samples[1:]]
        # What is gone stays so; of anything else nothing is known after the last sample.
        ends.append(shown[1] * 1e3 if samples[-1].command == NO_ANSWER else samples[-1].t_ms)
        for sample, end_ms in zip(samples, ends, strict=True):
            start, end = max(sample.t_ms / 1e3, shown[0]), min(end_ms / 1e3, shown[1])
            if end <= start:
                continue
            if sample.command == NO_ANSWER:
                axes.plot([start, end], [0.5, 0.5], color=DIM, linewidth=0.8, linestyle=(0, (2, 3)))
                axes.text(start, 0.72, " gone", color=DIM, size=7, va="center")
            elif sample.bme:
                axes.broken_barh(
                    [(start, end - start)], (0.06, 0.82), facecolors=MASTERS, alpha=0.75
                )
            else:
                axes.plot([start, end], [0.06, 0.06], color=MASTERS, linewidth=1.6)
        axes.set_yticks([0.06, 0.88], ["0", "1"])
        axes.tick_params(axis="y", length=2, colors=DIM, labelsize=6.5)

    return draw
