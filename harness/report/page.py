"""report.html: one file that opens offline, from a run's folder."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from pathlib import Path

import pandas as pd
from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from harness.analysis.packets import read_packets
from harness.report import tables, words
from harness.report.audit import audit_rows
from harness.report.entry import packets_path
from harness.report.figure import migration_figure
from harness.report.inplace import inplace_rows
from harness.report.reading import read_results
from harness.report.results import CaseResult, Results
from harness.report.tables import Summary

FILE = "report.html"


def write_page(folder: Path) -> Path:
    """Write report.html into a run's *folder* from its results.json and packets; returns its path.

    Raises UsageError if the folder holds no results.json that `read_results` reads.
    """
    results = read_results(folder)
    rows = tables.summaries(results)
    figures = {row.key: _figure(folder, row) for row in rows}
    files = {case.nodeid: _files(folder, case) for case in results.tests}
    path = folder / FILE
    new = path.with_suffix(".html.new")
    new.write_text(render(results, figures=figures, files=files), encoding="utf-8")
    return new.replace(path)


def render(results: Results, *, figures: Mapping[str, str], files: Mapping[str, list[str]]) -> str:
    """Lay out the page: *figures* by a summary's key, *files* (relative paths) by node id."""
    environment = Environment(
        loader=PackageLoader("harness.report"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["breakable"] = _breakable
    template = environment.get_template("report.html.j2")
    rows = tables.summaries(results)
    return template.render(
        results=results,
        rows=rows,
        inplace=inplace_rows(results, {id(row.migration): row.key for row in rows}),
        audits=audit_rows(results),
        others=[(case, tables.word_of(case)) for case in results.tests if not case.migrations],
        counts=_counts(results),
        figures={key: Markup(svg) for key, svg in figures.items()},  # our own SVG, escaped there
        files=files,
        tables=tables,
        words=words,
    )


def _breakable(name: str) -> Markup:
    """Return the name of a test as markup that may be broken after each underscore."""
    return Markup("_<wbr>").join(name.split("_"))


def _counts(results: Results) -> list[tuple[str, int]]:
    """Count tests by how they ended, in the order in which a reader cares."""
    counted = Counter(tables.word_of(case) for case in results.tests)
    return [(w, counted[w]) for w in ("fail", "invalid", "pass", "skipped") if counted[w]]


def _figure(folder: Path, row: Summary) -> str:
    packets: dict[str, pd.DataFrame] = {}
    for flow in row.migration.flows:
        path = packets_path(folder / row.case.artifacts, flow.name, number=row.number)
        if path.exists():
            packets[flow.name] = read_packets(path)
    return migration_figure(row.migration, packets, key=row.key)


def _files(folder: Path, case: CaseResult) -> list[str]:
    """List the raw files of a test, as links from the page."""
    found = sorted(path for path in (folder / case.artifacts).glob("*") if path.is_file())
    return [path.relative_to(folder).as_posix() for path in found]
