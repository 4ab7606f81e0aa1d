"""A matplotlib figure as inline SVG that follows the page's colours and stays small."""

from __future__ import annotations

import io
import re
from contextlib import AbstractContextManager
from html import escape

import matplotlib
from matplotlib.figure import Figure

# A colour that matplotlib writes, the page's variable that takes its place, and what is used
# where the page sets none.  The odd values are keys: nothing else is drawn in them.
INK, DIM, GRID = "#010101", "#020202", "#030303"
DOT, CUT, CUT_TEXT, MASTERS = "#040404", "#050505", "#060606", "#070707"
VARIABLES = {
    INK: "var(--ink, #1d2733)",
    DIM: "var(--dim, #5b6773)",
    GRID: "var(--rule, #d5dbe1)",
    DOT: "var(--dot, #0072b2)",
    CUT: "var(--cut, #d55e00)",
    CUT_TEXT: "var(--cut-text, #a84300)",
    MASTERS: "var(--masters, #0072b2)",
}


def drawing(key: str) -> AbstractContextManager[None]:
    """Draw and render within this; *key* goes into the ids, which must be unique in a page."""
    return matplotlib.rc_context(
        {
            "svg.fonttype": "none",  # text stays text: smaller, searchable, in the page's font
            "svg.hashsalt": key,
            "path.simplify": False,  # a dot is a stroke without length, which simplifying drops
            "font.size": 8,
            "axes.linewidth": 0.6,
        }
    )


def inline_svg(figure: Figure, *, title: str, description: str) -> str:
    """Render *figure* as an ``<svg>`` element; *title* and *description* are for screen readers."""
    out = io.StringIO()
    figure.savefig(out, format="svg", metadata={"Date": None, "Creator": None})
    svg = out.getvalue()
    svg = svg[svg.index("<svg") :]
    svg = re.sub(r"<metadata>.*?</metadata>", "", svg, flags=re.DOTALL)
    svg = re.sub(r"<!--.*?-->", "", svg, flags=re.DOTALL)
    svg = svg.replace("xlink:href", "href")
    svg = re.sub(r'(<g) id="[^"]*"', r"\1", svg)
    svg = re.sub(r' (d|x|y|transform)="[^"]*"', _coarse, svg)
    svg = re.sub(r"('DejaVu Sans'[^;\"]*)", "var(--sans, sans-serif)", svg)
    svg = re.sub(r' transform="rotate\(-0 [^"]*"', "", svg)
    for colour, variable in VARIABLES.items():
        svg = svg.replace(colour, variable)
    svg = re.sub(r"\s*\n\s*(<g/>)?", "\n", svg)
    head, body = svg.split(">", 1)
    view = re.search(r'viewBox="[^"]*"', head)
    assert view is not None, "matplotlib writes a viewBox"
    labels = f"<title>{escape(title)}</title><desc>{escape(description)}</desc>"
    return f'<svg xmlns="http://www.w3.org/2000/svg" {view[0]} role="img">{labels}{body}'


def _coarse(attribute: re.Match[str]) -> str:
    """Write coordinates to a tenth of a point: nobody sees more, and the page is a third."""
    short = re.sub(r"\d+\.\d{2,}", lambda number: f"{float(number[0]):.1f}", attribute[0])
    if attribute[1] != "d":
        return short
    path = re.sub(r"\s*([MLz])\s*", r"\1", short)
    return re.sub(r"M([\d.]+) ([\d.]+)L\1 ([\d.]+)", r"M\1 \2V\3", path)  # vertical strokes
