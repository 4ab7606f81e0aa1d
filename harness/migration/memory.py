"""Pages that a guest lost with its twin: each held against the device's own log, and QEMU's.

A lab's twins are on this machine, and so are their hosts: one monotonic clock serves all.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pandas as pd

from harness.analysis.copies import read_copies
from harness.analysis.memory import (
    DOUBT_NS,
    Lent,
    all_zero,
    explained,
    read_log,
    written_pages,
)
from harness.errors import MeasurementError
from harness.guest.command_line import MEMORY_ID, TRACE
from harness.guest.instance import Instance
from harness.guest.memory import GuestMemory
from harness.guest.qmp import QmpEvent
from harness.host.twin import Twin
from harness.migration.comparison import Comparison, Digests
from harness.remote import Host


class LoggedComparison(Comparison):
    """The comparison of a guest whose VF is the twin *device*, which logs what it writes.

    After `conclude`, *tables* has that log (``dma``) and what became of each page (``memory``); see
    ``analysis.memory``.  The second has ``owner``, too, as in any comparison.
    """

    def __init__(self, device: Twin) -> None:
        super().__init__()
        self._device = device
        self._since = self._ahead_ns = 0  # `trace_copies` sets both

    def trace_copies(self, source: Instance) -> None:
        """Have QEMU note from now on when it copies which page."""
        self._since = len(source.qmp.events)
        self._ahead_ns = source.host.realtime_minus_monotonic_ns()
        source.qmp.execute("trace-event-set-state", {"name": "ram_save_page", "enable": True})

    def _explained(
        self, memory: GuestMemory, both: Digests, differ: pd.DataFrame
    ) -> dict[str, Any]:
        """Look each page up in the device's log, and in QEMU's trace of its copies."""
        source = memory.instance
        self.tables["dma"] = log = read_log(self._device.dma_log())
        check_unmoved(source.host, self._ahead_ns)
        lent = [Lent(**each) for each in self._device.control.ask("lent")]
        events = source.qmp.events[self._since :]
        pages = pages_explained(source, both, differ, log, lent, events, self._ahead_ns)
        self.tables["memory"] = pages
        stopped_pass = last_said(source.host, events, "MIGRATION device")
        return summary(pages, log, stopped_pass.realtime_ns - self._ahead_ns)


def check_unmoved(host: Host, ahead_ns: int) -> None:
    """Raise MeasurementError if *host*'s wall clock is not *ahead_ns* ahead of its monotonic one.

    QEMU stamps by the one, and the device by the other.
    """
    moved_ns = host.realtime_minus_monotonic_ns() - ahead_ns
    if abs(moved_ns) > DOUBT_NS:
        raise MeasurementError(
            f"{host.name}: its wall clock was moved by {moved_ns / 1e6:.3g} ms meanwhile",
            because="what QEMU did is known by that clock, and what the device did by another",
            fix="see what sets the time there, and let it be during a run",
        )


def pages_explained(
    source: Instance,
    both: Digests,
    differ: pd.DataFrame,
    log: pd.DataFrame,
    lent: Sequence[Lent],
    events: Sequence[QmpEvent],
    ahead_ns: int,
) -> pd.DataFrame:
    """The pages frame of ``analysis.memory``, from the device's *log* and from QEMU's trace.

    *differ* are the pages that do, each with its ``owner``.  *events* are the source's of this
    migration, whose wall clock was *ahead_ns* ahead of its monotonic one.  Raises MeasurementError
    for a trace that cannot be read.
    """
    completed = last_said(source.host, events, "MIGRATION completed")
    last_said(source.host, events, "MIGRATION setup")  # without it no pass has a beginning
    trace = source.host.fetch(f"{source.place.folder}/{TRACE}")
    copies = read_copies(trace, MEMORY_ID, end_ns=completed.realtime_ns)
    if copies.empty:
        raise MeasurementError(
            f"{source.host.name}: QEMU's trace has no copy of the guest's memory",
            because="without it nobody knows which pages had to be lost",
            fix=f"see {TRACE} in the guest's folder there: this reads what QEMU 11.1 writes",
        )
    copies[["t_ns", "done_ns"]] -= ahead_ns
    pages = explained(
        differ["page"].to_numpy(),
        written_pages(log, lent),
        copies,
        zeroes=all_zero(both.here, both.name),
        passes_ns=[e.realtime_ns - ahead_ns for e in events if e.title in _PASS_BEGINS],
        digested_ns=both.began_ns,
    )
    owners = dict(zip(differ["page"], differ["owner"], strict=True))
    return pages.assign(owner=[owners.get(page, "") for page in pages["page"]])


def last_said(host: Host, events: Sequence[QmpEvent], title: str) -> QmpEvent:
    """The last of the *events* of *host* that is called so.

    Raises MeasurementError without one.
    """
    for event in reversed(events):
        if event.title == title:
            return event
    raise MeasurementError(
        f"{host.name}: QEMU did not say {title!r}",
        because="without it nobody knows when it copied which pages",
        fix="see the source's QMP log among the artifacts",
    )


def summary(pages: pd.DataFrame, log: pd.DataFrame, stopped_pass_ns: int) -> dict[str, Any]:
    """What log and trace say, for MEMORY_COMPARED; the stopped pass began at *stopped_pass_ns*."""
    lost = pages[pages["differs"] & (pages["owner"] == "")]
    after_ns = log["t_ns"][log["writes"]] - stopped_pass_ns
    return {
        "may_differ": int(pages["may_differ"].sum()),
        "must_differ": int(pages["must_differ"].sum()),
        "not_lost": int((pages["must_differ"] & ~pages["differs"]).sum()),
        "unexplained": [int(page) for page in lost[~lost["may_differ"]]["page"]],
        "writes": len(after_ns),
        "late_writes": int((after_ns > DOUBT_NS).sum()),
        "close_writes": int((after_ns.abs() <= DOUBT_NS).sum()),
    }


_PASS_BEGINS = {"MIGRATION setup", "MIGRATION_PASS"}
"""The first pass is not announced by itself.  Ref: QEMU, migration/ram.c, migration_bitmap_sync():
it tells of one only when it goes on to the next.
"""
