"""One figure per migration: phases, events, what QEMU says and users felt, each flow, BME."""

from __future__ import annotations

from collections.abc import Mapping

import pandas as pd
from matplotlib.figure import Figure

from harness.report.lanes import (
    LEFT_IN,
    RIGHT_IN,
    WIDTH_IN,
    Lane,
    bme_lanes,
    down_lane,
    events_lane,
    flow_lane,
    phases_lane,
)
from harness.report.layout import extent
from harness.report.results import Migration
from harness.report.svg import DIM, GRID, INK, drawing, inline_svg
from harness.report.words import headline


def migration_figure(migration: Migration, packets: Mapping[str, pd.DataFrame], *, key: str) -> str:
    """Draw *migration* as inline SVG; *packets* by flow name, *key* unique within the page.

    A flow whose packets are not at hand has a lane with its outages only.
    """
    shown = extent(migration)
    lanes = [
        phases_lane(migration, shown),
        events_lane(migration, shown),
        down_lane(migration),
        *(flow_lane(flow, packets.get(flow.name), shown) for flow in migration.flows),
        *bme_lanes(migration, shown),
    ]
    with drawing(key):
        figure = _drawn(lanes, migration, shown)
        return inline_svg(
            figure,
            title=f"{migration.scheme} migration, {migration.source} to {migration.destination}",
            description=headline(migration),
        )


def _drawn(lanes: list[Lane], migration: Migration, shown: tuple[float, float]) -> Figure:
    gap, bottom, top = 0.07, 0.42, 0.04
    height = sum(lane.inches for lane in lanes) + gap * (len(lanes) - 1) + bottom + top
    figure = Figure(figsize=(WIDTH_IN, height), facecolor="none")
    y = height - top
    for lane in lanes:
        y -= lane.inches
        box = (LEFT_IN, y, WIDTH_IN - LEFT_IN - RIGHT_IN, lane.inches)
        axes = figure.add_axes(_fractions(box, height), facecolor="none")
        axes.set(xlim=shown, ylim=(0, 1), yticks=[])
        axes.tick_params(axis="x", bottom=False, labelbottom=False, colors=DIM)
        for spine in axes.spines.values():
            spine.set(color=GRID)
        _title(figure, lane, (y + lane.inches - 0.02) / height)
        for phase in migration.phases[1:]:
            axes.axvline(phase.start_ms / 1e3, color=GRID, linewidth=0.7, zorder=0.5)
        lane.draw(axes)
        y -= gap
    axes.tick_params(axis="x", bottom=True, labelbottom=True, colors=DIM)
    axes.set_xlabel("seconds from when migrate was asked for", color=DIM)
    return figure


def _fractions(
    box: tuple[float, float, float, float], height: float
) -> tuple[float, float, float, float]:
    left, low, wide, high = box
    return left / WIDTH_IN, low / height, wide / WIDTH_IN, high / height


def _title(figure: Figure, lane: Lane, y: float) -> None:
    x = 0.04 / WIDTH_IN
    figure.text(x, y, lane.title, color=INK, weight="bold", va="top")
    below = y - 0.155 / figure.get_figheight()
    figure.text(x, below, lane.detail, color=DIM, size=7.5, va="top", linespacing=1.35)
