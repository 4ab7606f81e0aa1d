"""Both memories of a guest that was stopped: compared, and each difference held against its cause.

Source, destination and harness are on one machine where twins are, so one clock serves them all.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import pandas as pd

from harness.analysis.copies import read_copies
from harness.analysis.memory import (
    DIGEST_BYTES,
    Lent,
    all_zero,
    differing,
    explained,
    written_pages,
)
from harness.errors import MeasurementError
from harness.guest.command_line import MEMORY, MEMORY_ID, TRACE
from harness.guest.instance import Instance
from harness.guest.qmp import QmpEvent


@dataclass(frozen=True, slots=True)
class Digests:
    """A digest of each page at the source, *here*, and at the destination; made in *took_ms*."""

    here: bytes
    there: bytes
    took_ms: float

    @property
    def pages(self) -> int:
        """How many pages the memory has."""
        return len(self.here) // DIGEST_BYTES


def trace_copies(source: Instance) -> None:
    """Have QEMU note from now on when it copies which page."""
    source.qmp.execute("trace-event-set-state", {"name": "ram_save_page", "enable": True})


def digests(source: Instance, successor: Instance) -> Digests:
    """Digest both memories, side by side, while both stand still; the guest waits for that."""
    began = time.monotonic()
    with ThreadPoolExecutor() as pool:
        here, there = pool.map(_digest, (source, successor))
    return Digests(here, there, took_ms=(time.monotonic() - began) * 1e3)


def _digest(of: Instance) -> bytes:
    return of.host.digest_memory(of.pid, MEMORY)


def pages_explained(
    source: Instance, both: Digests, log: pd.DataFrame, lent: Sequence[Lent], *, since: int
) -> pd.DataFrame:
    """The pages frame of ``analysis.memory``, from the device's *log* and from QEMU's trace.

    *since* is the number of the source's first event of this migration.  Raises MeasurementError
    for a trace that cannot be read.
    """
    events = source.qmp.events[since:]
    completed = next(each for each in reversed(events) if each.title == "MIGRATION completed")
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
        differing(both.here, both.there),
        written_pages(log, lent),
        copies,
        zeroes=all_zero(both.here),
        passes_ns=[said_ns(each) for each in events if each.title in _PASS_BEGINS],
    )


def summary(
    both: Digests, pages: pd.DataFrame, log: pd.DataFrame, last_pass_ns: int
) -> dict[str, Any]:
    """The data of MEMORY_COMPARED; *last_pass_ns* is when QEMU went on to its last pass."""
    lost = pages[pages["differs"]]
    return {
        "pages": both.pages,
        "differ": len(lost),
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
