"""The tables of docs/benchmarks.md: a row for each figure, a table for each part of a run."""

from __future__ import annotations

import os
import platform
import re
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import harness
from harness.lab.accelerator import ANSWER

PAGE = Path(__file__).parents[2] / "docs" / "benchmarks.md"

HEAD = """\
# Benchmarks

Written by `make bench`; the figures of one table come from one run on one machine, which its first
line names. Times are that machine's; ratios and the errors of measuring can be expected elsewhere
too.
"""
MACHINE = """\
{cores} cores, {memory_gib} GiB of memory, {accelerator}, Linux {kernel}, Python {python},
harness {version}, {day}.
"""
COLUMNS = "| what | figure | to reach | how it was measured |\n|---|---|---|---|\n"


@dataclass(frozen=True, slots=True)
class Row:
    """One figure: *what* was measured, the *figure* with its unit, what it *should* be, *how*."""

    what: str
    figure: str
    should: str
    how: str


def write_table(heading: str, rows: list[Row]) -> None:
    """Put the table into docs/benchmarks.md, in the place of its forerunner; the rest stays."""
    _, *blocks = re.split(r"^## ", PAGE.read_text(), flags=re.MULTILINE)
    tables = {block.partition("\n")[0]: block.partition("\n")[2].strip("\n") for block in blocks}
    tables[heading] = _machine() + "\n" + COLUMNS + "\n".join(map(_line, rows))
    parts = [HEAD, *(f"## {name}\n\n{text}\n" for name, text in tables.items())]
    PAGE.write_text("\n".join(parts))


def _line(row: Row) -> str:
    return f"| {row.what} | {row.figure} | {row.should} | {row.how} |"


def _machine() -> str:
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    return MACHINE.format(
        cores=os.cpu_count(),
        memory_gib=round(memory),
        accelerator=ANSWER.read_text(),
        kernel=platform.release().partition("-")[0],
        python=platform.python_version(),
        version=harness.__version__,
        day=f"{datetime.now(UTC):%Y-%m-%d}",
    )
