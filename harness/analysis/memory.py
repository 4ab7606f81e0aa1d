"""Guest memory on both sides, page by page; which pages had to be lost, by log and by trace.

Frames:

* log: ``t_ns`` (int64, the host's monotonic clock), ``address`` (uint64, the guest's), ``length``
  (uint32, bytes), ``kind`` (see ``harness.twin.dma_log.Kind``), ``queue``, ``writes`` (bool),
  ``misbehaved`` (bool: a write that the device had no right to make); in the order in which the
  accesses were made.
* pages: one row for each page that differs or was written by the device meanwhile, by ``page``
  (its number in the memory's file): ``differs``; ``written_ns``, its last write by the device, and
  ``copied_ns``, when QEMU began its last copy of it (0 for none), each with the pass over the
  memory in which that was (``written_pass``, ``copied_pass``; 0 is before the first);
  ``may_differ`` and ``must_differ``, what follows from the two.  Where both are the same for all
  pages, the losses are predicted page for page.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from harness.agent.memory_digest import DIGESTS
from harness.analysis.copies import PAGE
from harness.errors import MeasurementError
from harness.twin.dma_log import HEAD, MISBEHAVED, RECORD, WRITES

DOUBT_NS = 2_000_000
"""How far the times of a write and of a copy may be off.

A write is logged just before it is made, one by message just after the client's answer.
"""

_RECORD = np.dtype(
    [("t_ns", "<u8"), ("address", "<u8"), ("length", "<u4"), ("kind", "<u2"), ("queue", "<u2")]
)


@dataclass(frozen=True, slots=True)
class Lent:
    """A stretch of the guest's memory: where the guest has it, and where it is in its file."""

    address: int
    size: int
    offset: int


def read_log(data: bytes) -> pd.DataFrame:
    """The records of a DMA log's file; ``attrs["dropped"]`` is how many accesses are not there.

    ``attrs["first"]`` is the number of the access that the first record is of.

    *kind* is one of ``dma_log.Kind``, *writes* whether it is a write, *misbehaved* whether that was
    none of the device's to make.
    """
    count, dropped, _, first = HEAD.unpack_from(data)
    assert _RECORD.itemsize == RECORD.size
    count = min(count, (len(data) - HEAD.size) // RECORD.size)  # it grew while it was read
    records = np.frombuffer(data, _RECORD, count, HEAD.size)
    log = pd.DataFrame({name: records[name] for name in _RECORD.names or ()})
    log["t_ns"] = log["t_ns"].astype("int64")
    log["misbehaved"] = (log["kind"] & MISBEHAVED) != 0
    log["kind"] &= ~MISBEHAVED & 0xFFFF
    log["writes"] = log["kind"] >= WRITES
    log.attrs |= {"dropped": dropped, "first": first}
    return log


def since(log: pd.DataFrame, number: int) -> pd.DataFrame:
    """Those records of *log* that are of access *number* and later ones.

    ``attrs["missed"]`` is how many of these accesses the log does not have.
    """
    total = len(log) + log.attrs["dropped"]
    records = log.iloc[max(0, number - log.attrs["first"]) :]
    records.attrs["missed"] = total - number - len(records)
    return records


def differing(here: bytes, there: bytes, digest: str, pages: int) -> np.ndarray:
    """Numbers of the *pages* whose digests differ; *digest* is how they were made.

    Raises MeasurementError if one side has not just so many.
    """
    size = pages * _numbers_of(digest).itemsize
    if (len(here), len(there)) != (size, size):
        raise MeasurementError(
            f"{len(here)} and {len(there)} bytes of digests, not {size}: of {pages} pages each",
            because="page by page all would be equal, up to where the smaller one ends",
            fix="see the guest's memory in the command lines of both hosts",
        )
    first, second = (np.frombuffer(each, _numbers_of(digest)) for each in (here, there))
    return np.flatnonzero(first != second)


def all_zero(digests: bytes, digest: str) -> np.ndarray:
    """Numbers of the pages in which every byte is zero, by their digests."""
    zero = DIGESTS[digest].digest_of(memoryview(bytes(PAGE)))
    return np.flatnonzero(np.frombuffer(digests, _numbers_of(digest)) == zero)


def _numbers_of(digest: str) -> np.dtype:
    return np.dtype(DIGESTS[digest].code).newbyteorder("<")


def written_pages(log: pd.DataFrame, memory: Sequence[Lent]) -> pd.Series:
    """The last write of each page by the device: ``t_ns`` by page number in the memory's file."""
    writes = log[log["writes"]]
    spans = (writes["address"] % PAGE + writes["length"] + PAGE - 1) // PAGE
    rows = writes.loc[writes.index.repeat(spans)]
    nth = rows.groupby(level=0).cumcount()
    address = (rows["address"].astype("int64") // PAGE + nth) * PAGE
    values = address.to_numpy()
    if not memory:
        return pd.Series(dtype="int64")
    lent = sorted(memory, key=lambda each: each.address)
    starts = np.array([each.address for each in lent])
    ends = np.array([each.address + each.size for each in lent])
    offsets = np.array([each.offset for each in lent])
    which = np.searchsorted(starts, values, side="right") - 1
    inside = (which >= 0) & (values < ends[which])
    which, values = which[inside], values[inside]
    pages = (values - starts[which] + offsets[which]) // PAGE
    return pd.Series(rows["t_ns"].to_numpy()[inside], index=pages).groupby(level=0).max()


def explained(
    differs: np.ndarray,
    written: pd.Series,
    copies: pd.DataFrame,
    *,
    zeroes: np.ndarray,
    passes_ns: Sequence[int],
    digested_ns: int,
) -> pd.DataFrame:
    """The pages frame: those that differ, and those that the device wrote during the migration.

    *copies* are those that QEMU made (see `read_copies`), *passes_ns* when each of its passes
    began, *zeroes* the numbers of the pages that are all zeroes at the end: these were copied, if
    they were, without a trace.  What the device wrote after *digested_ns*, when digests began to be
    made, may not be in them.  All times are of one clock.
    """
    pages = np.union1d(differs, written.index[written > passes_ns[0]])
    last = written.reindex(pages).fillna(0).astype("int64").to_numpy()
    copy = copies.groupby("page").last().reindex(pages).fillna(0).astype("int64")
    meanwhile, about = last > passes_ns[0], last > passes_ns[0] - DOUBT_NS
    begun, done = copy["t_ns"].to_numpy(), copy["done_ns"].to_numpy()
    surely = (last > done + DOUBT_NS) & (last < digested_ns - DOUBT_NS)
    return pd.DataFrame(
        {
            "page": pages,
            "differs": np.isin(pages, differs),
            "written_ns": last,
            "written_pass": np.searchsorted(passes_ns, last, side="right"),
            "copied_ns": begun,
            "copied_pass": np.searchsorted(passes_ns, begun, side="right"),
            "may_differ": about & (last > begun - DOUBT_NS),
            "must_differ": meanwhile & surely & ~np.isin(pages, zeroes),
        }
    )
