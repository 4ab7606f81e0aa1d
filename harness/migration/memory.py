"""Pages that a guest lost with its twin: each held against the device's own log, and QEMU's.

Source, destination and harness are on one machine where twins are, so one clock serves them all.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd

from harness.analysis.copies import read_copies
from harness.analysis.memory import (
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


class LoggedComparison(Comparison):
    """The comparison of a guest whose VF is the twin *device*, which logs what it writes.

    After `conclude`, *tables* has that log (``dma``) and what became of each page (``memory``); see
    ``analysis.memory``.
    """

    def __init__(self, device: Twin) -> None:
        super().__init__()
        self._device = device
        self._since = 0

    def trace_copies(self, source: Instance) -> None:
        """Have QEMU note from now on when it copies which page."""
        self._since = len(source.qmp.events)
        source.qmp.execute("trace-event-set-state", {"name": "ram_save_page", "enable": True})

    def _explained(self, memory: GuestMemory, both: Digests, lost: np.ndarray) -> dict[str, Any]:
        """Look each page up in the device's log, and in QEMU's trace of its copies."""
        source = memory.instance
        log = read_log(self._device.dma_log())
        lent = [Lent(**each) for each in self._device.control.ask("status")["memory"]]
        events = source.qmp.events[self._since :]
        pages = pages_explained(source, both, lost, log, lent, events)
        self.tables |= {"dma": log, "memory": pages}
        return summary(pages, log, said_ns(last_said(events, "MIGRATION device")))


def pages_explained(
    source: Instance,
    both: Digests,
    lost: np.ndarray,
    log: pd.DataFrame,
    lent: Sequence[Lent],
    events: Sequence[QmpEvent],
) -> pd.DataFrame:
    """The pages frame of ``analysis.memory``, from the device's *log* and from QEMU's trace.

    *events* are the source's of this migration.  Raises MeasurementError for a trace that cannot
    be read.
    """
    completed = last_said(events, "MIGRATION completed")
    trace = source.host.fetch(f"{source.place.folder}/{TRACE}")
    copies = read_copies(trace, MEMORY_ID, end_ns=completed.realtime_ns)
    if copies.empty:
        raise MeasurementError(
            f"{source.host.name}: QEMU's trace has no copy of the guest's memory",
            because="without it nobody knows which pages had to be lost",
            fix=f"see {TRACE} in the guest's folder there: this reads what QEMU 11.1 writes",
        )
    copies[["t_ns", "done_ns"]] += _monotonic_ns(0)
    return explained(
        lost,
        written_pages(log, lent),
        copies,
        zeroes=all_zero(both.here, both.name),
        passes_ns=[said_ns(each) for each in events if each.title in _PASS_BEGINS],
    )


def last_said(events: Sequence[QmpEvent], title: str) -> QmpEvent:
    """The last of *events* that is called so.  Raises MeasurementError without one."""
    for event in reversed(events):
        if event.title == title:
            return event
    raise MeasurementError(
        f"QEMU did not say {title!r}",
        because="without it nobody knows when its last pages were copied",
        fix="see the source's QMP log among the artifacts",
    )


def summary(pages: pd.DataFrame, log: pd.DataFrame, last_pass_ns: int) -> dict[str, Any]:
    """What log and trace say, for MEMORY_COMPARED; the last pass began at *last_pass_ns*."""
    lost = pages[pages["differs"]]
    return {
        "may_differ": int(pages["may_differ"].sum()),
        "must_differ": int(pages["must_differ"].sum()),
        "not_lost": int((pages["must_differ"] & ~pages["differs"]).sum()),
        "unexplained": [int(page) for page in lost[~lost["may_differ"]]["page"]],
        "late_writes": int((log["writes"] & (log["t_ns"] > last_pass_ns)).sum()),
        "misbehaved": int(log["misbehaved"].sum()),
        "not_logged": log.attrs["dropped"],
    }


def said_ns(event: QmpEvent) -> int:
    """When QEMU said that, by this machine's monotonic clock."""
    return _monotonic_ns(event.realtime_ns)


_PASS_BEGINS = {"MIGRATION setup", "MIGRATION_PASS"}
"""The first pass is not announced by itself.  Ref: QEMU, migration/ram.c, migration_bitmap_sync():
it tells of one only when it goes on to the next.
"""


def _monotonic_ns(realtime_ns: int) -> int:
    return realtime_ns - time.time_ns() + time.monotonic_ns()
