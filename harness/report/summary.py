"""The table at the end of a run: what QEMU calls downtime beside what users felt, by phase."""

from __future__ import annotations

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from harness.analysis.phases import NAMES
from harness.report.audit import audit_rows
from harness.report.inplace import inplace_rows
from harness.report.results import Migration, Results
from harness.report.tables import Summary, summaries
from harness.report.words import duration, felt_in, in_all, refusal

PIPE_WIDTH = 140  # characters; a log has no edge, but rich would assume 80
STYLES = {"pass": "green", "fail": "bold red", "invalid": "yellow", "skipped": "dim"}


def summary(results: Results, console: Console) -> None:
    """Print one row per migration, then why each that did not pass did not, as expected or not.

    A run without a migration prints one line saying so.  A table each follows of guests that kept
    their VF, and of ways to stop one.  Nothing but plain text goes to a pipe.
    """
    rows = summaries(results)
    if not console.is_terminal:
        console = Console(file=console.file, width=PIPE_WIDTH)
    if rows:
        console.print(_table(rows))
    else:
        console.print("No test measured a migration.")
    for row in rows:
        for reason in row.why:
            line = Text.assemble((row.verdict, STYLES[row.word]), f" {_name(row)}: {reason}")
            console.print(line, soft_wrap=True)
    _print_inplace(results, console)
    _print_audits(results, console)


def _print_audits(results: Results, console: Console) -> None:
    """Print what each way to stop a VF did to it, if any was tried."""
    rows = audit_rows(results)
    if not rows:
        return
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, padding=(0, 2, 0, 0), show_edge=False)
    for column in ("VF stopped by", "BME", "frames still in", "ring memory changed", "VF back"):
        table.add_column(column, overflow="fold")
    for row in rows:
        style = "" if row.silent else "bold"
        seen = (Text(row.frames, style), Text(row.rings, style))
        table.add_row(row.stopped, row.bme, *seen, row.back)
    console.print(table)
    for fault in (fault for row in rows for fault in row.faults):
        console.print(Text.assemble(("fail", STYLES["fail"]), f" {fault}"), soft_wrap=True)


def _print_inplace(results: Results, console: Console) -> None:
    """Print what each order of stopping, marking and copying lost, if guests kept their VFs."""
    rows = inplace_rows(results, {})
    if not rows:
        return
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, padding=(0, 2, 0, 0), show_edge=False)
    for column in ("DMA stopped by", "when", "marked"):
        table.add_column(column, overflow="fold")
    for column in ("pages lost", "frames lost"):
        table.add_column(column, justify="right", no_wrap=True)
    table.add_column("BME", no_wrap=True)
    table.add_column("VF afterwards", overflow="fold")
    for row in rows:
        lost = Text("0", STYLES["pass"]) if row.all_kept else Text(row.lost_pages, STYLES["fail"])
        frames = str(row.lost_frames)
        table.add_row(row.stopped, row.when, row.marked, lost, frames, row.bme, row.afterwards)
    console.print(table)


def _table(rows: list[Summary]) -> Table:
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, padding=(0, 2, 0, 0), show_edge=False)
    table.add_column("verdict", no_wrap=True)
    table.add_column("migration", overflow="fold")
    table.add_column("frame", justify="right")
    table.add_column("QEMU says", justify="right", no_wrap=True)
    table.add_column("users felt", justify="right", no_wrap=True)
    table.add_column("lost", justify="right", no_wrap=True)
    for row in rows:
        table.add_row(
            Text(row.verdict.replace(", ", ",\n"), STYLES[row.word]),
            Text.assemble(_name(row), (_by_phase(row.migration), "dim")),
            row.frames,
            _qemu(row.migration),
            row.felt + (f" ({row.ratio})" if row.ratio else ""),
            str(row.lost),
        )
    return table


def _by_phase(migration: Migration) -> str:
    """Write the longest outage of each phase that had one, and the largest sum of a flow.

    Where QEMU refused, why comes first.
    """
    found = [(phase, felt_in(migration, phase)) for phase in NAMES]
    sums = [flow.total_outage_ms for flow in migration.flows]
    several = any(len(flow.outages) > 1 for flow in migration.flows)
    if several and None not in sums:
        worst = max(migration.flows, key=lambda flow: flow.total_outage_ms or 0)
        found.append(("in all", in_all(worst)))
    told = [f"{phase} {length}".replace(" ", "\u00a0") for phase, length in found if length]
    lines = [refusal(migration), ", ".join(told)]
    return "".join(f"\n{line}" for line in lines if line)


def _name(row: Summary) -> str:
    test = row.case.nodeid.split("::")[-1]
    which = f" #{row.number}" if len(row.case.migrations) > 1 else ""
    return f"{test}{which} ({row.migration.scheme})"


def _qemu(migration: Migration) -> str:
    downtime_ms = migration.qemu.downtime_ms
    return "-" if downtime_ms is None else duration(downtime_ms)
