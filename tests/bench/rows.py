"""The table: one row for each figure, from one run on one machine."""

from __future__ import annotations

import os
import platform
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import harness

PAGE = Path(__file__).parents[2] / "docs" / "benchmarks.md"

HEAD = """\
# Benchmarks

Written by `make bench`, all in one run on one machine: {cores} cores, {memory_gib} GiB of memory,
{accelerator}, Linux {kernel}, Python {python}, harness {version}, {day}. Times are that machine's;
ratios and the errors of measuring can be expected elsewhere too.

"""
COLUMNS = "| what | figure | to reach | how it was measured |\n|---|---|---|---|\n"


@dataclass(frozen=True, slots=True)
class Row:
    """One figure: *what* was measured, the *figure* with its unit, what it *should* be, *how*."""

    what: str
    figure: str
    should: str
    how: str


def write_page(tables: dict[str, list[Row]], accelerator: str) -> Path:
    """Write docs/benchmarks.md; *tables* by their headings."""
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    text = HEAD.format(
        cores=os.cpu_count(),
        memory_gib=round(memory),
        accelerator=accelerator,
        kernel=platform.release().partition("-")[0],
        python=platform.python_version(),
        version=harness.__version__,
        day=f"{datetime.now(UTC):%Y-%m-%d}",
    )
    for heading, rows in tables.items():
        text += f"## {heading}\n\n{COLUMNS}"
        for row in rows:
            text += f"| {row.what} | {row.figure} | {row.should} | {row.how} |\n"
        text += "\n"
    PAGE.write_text(text.rstrip() + "\n")
    return PAGE
