"""Raw records of a flow to one frame, one row per frame sent; Parquet there and back."""

from __future__ import annotations

import struct
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from harness.agent import records
from harness.agent.payload import CORRUPTED, SHORT
from harness.analysis.measured import MeasuredFlow
from harness.errors import MeasurementError

NUMPY_OF_STRUCT = {"I": "<u4", "Q": "<u8"}


def record_type(layout: struct.Struct, fields: Sequence[str]) -> np.dtype[Any]:
    """Give numpy's type for records that the agent packs by *layout*."""
    codes = layout.format.removeprefix("<")
    return np.dtype([(f, NUMPY_OF_STRUCT[c]) for f, c in zip(fields, codes, strict=True)])


SENT = record_type(records.SENT, records.SENT_FIELDS)
RECEIVED = record_type(records.RECEIVED, records.RECEIVED_FIELDS)

Records = npt.NDArray[Any]
Rows = npt.NDArray[np.intp]


def packets(flow: MeasuredFlow, *, asked_ns: int) -> pd.DataFrame:
    """Join a flow's records, a row per frame; columns and units: the package's docstring.

    Raises MeasurementError when nothing was sent, when nothing at all arrived, and when the
    records are torn or contradict each other: none of these says anything about a migration.
    """
    sent, received = _records(flow)
    at, known = _places(flow.name, sent, received)
    received, at = received[known], at[known]
    if not len(received):
        raise MeasurementError(
            f"flow {flow.name}: none of {len(sent)} frames arrived",
            because="it did not work before the migration either, so nothing is known of it",
            fix="look at the guest's address, its link and the MTU of every hop",
        )
    order = np.argsort(received["received_ns"], kind="stable")
    received, at = received[order], at[order]
    rows, first, copies = np.unique(at, return_index=True, return_counts=True)
    frame = pd.DataFrame(
        {
            "sequence": sent["sequence"].astype("uint32"),
            "scheduled_ns": sent["scheduled_ns"].astype("int64"),
            "sent_ns": sent["sent_ns"].astype("int64"),
            "returned_ns": pd.array([pd.NA] * len(sent), dtype="Int64"),
            "copies": np.zeros(len(sent), dtype="int64"),
            "corrupted": _flagged(len(sent), at, received["flags"], CORRUPTED),
            "short": _flagged(len(sent), at, received["flags"], SHORT),
            "reordered": np.zeros(len(sent), dtype=bool),
        }
    )
    frame.loc[rows, "returned_ns"] = received["received_ns"][first].astype("int64")
    frame.loc[rows, "copies"] = copies
    arrival_order = np.sort(first)
    by_arrival = at[arrival_order]
    late = by_arrival < np.maximum.accumulate(by_arrival)
    frame.loc[by_arrival[late], "reordered"] = True
    return _from_asked(frame, flow, asked_ns)


def unsent(packets: pd.DataFrame) -> int:
    """Count the frames before the last one sent, numbered from 0, that could not be sent."""
    return int(packets["sequence"].iloc[-1]) + 1 - len(packets)


def strays(flow: MeasuredFlow) -> int:
    """Count what arrived with a number never sent: its header was corrupted on the way."""
    sent, received = _records(flow)
    _, known = _places(flow.name, sent, received)
    return int((~known).sum())


def arrivals(flow: MeasuredFlow) -> npt.NDArray[np.int64]:
    """When anything of it arrived, copies and strays included: ns of the receiver's clock."""
    received = _parse(flow.name, "received", flow.received, RECEIVED)
    return np.sort(received["received_ns"].astype("int64"))


def lateness_ns(frame: pd.DataFrame) -> npt.NDArray[np.int64]:
    """How late each frame was sent; the sender is never early."""
    late = frame["sent_ns"] - frame["scheduled_ns"]
    return late.clip(lower=0).to_numpy(dtype="int64")


def write_packets(path: Path, frame: pd.DataFrame, *, about: Mapping[str, str]) -> None:
    """Write *frame* as Parquet; *about* is kept beside the columns for whoever opens the file."""
    table = pa.Table.from_pandas(frame, preserve_index=False)
    kept = {**(table.schema.metadata or {}), **{f"vf-harness.{k}": v for k, v in about.items()}}
    pq.write_table(table.replace_schema_metadata(kept), path, compression="zstd")


def read_packets(path: Path) -> pd.DataFrame:
    """Read the frame that ``write_packets`` wrote, with the same dtypes."""
    frame: pd.DataFrame = pq.read_table(path).to_pandas()
    return frame


def _records(flow: MeasuredFlow) -> tuple[Records, Records]:
    sent = _parse(flow.name, "sent", flow.sent, SENT)
    received = _parse(flow.name, "received", flow.received, RECEIVED)
    if not len(sent):
        raise MeasurementError(
            f"flow {flow.name}: nothing was sent",
            because="without frames there is no measurement, good or bad",
            fix="read the sender's summary and commands.log in the test's folder",
        )
    if (np.diff(sent["sequence"].astype("int64")) <= 0).any():
        raise MeasurementError(
            f"flow {flow.name}: the numbers in the sent record do not rise",
            because="two senders wrote the same file, or the record is damaged",
            fix="run the test again; keep the record if it happens twice",
        )
    return sent, received


def _parse(flow: str, which: str, data: bytes, dtype: np.dtype[Any]) -> Records:
    if len(data) % dtype.itemsize:
        raise MeasurementError(
            f"flow {flow}: the {which} record ends in the middle of an entry",
            because=f"{len(data)} bytes are no multiple of {dtype.itemsize}: the recorder was cut",
            fix="look in commands.log for how the recorder ended, and run the test again",
        )
    return np.frombuffer(data, dtype=dtype)


def _places(flow: str, sent: Records, received: Records) -> tuple[Rows, npt.NDArray[np.bool_]]:
    """Find the row in *sent* of each received entry, and whether it has one.

    One without a row must be flagged as corrupted: its number is then what was corrupted.
    """
    rows = np.minimum(np.searchsorted(sent["sequence"], received["sequence"]), len(sent) - 1)
    known: npt.NDArray[np.bool_] = sent["sequence"][rows] == received["sequence"]
    foreign = received["sequence"][~known & (received["flags"] & CORRUPTED == 0)]
    if len(foreign):
        raise MeasurementError(
            f"flow {flow}: frame {foreign[0]} arrived and was never sent ({len(foreign)} such)",
            because="the sent and the received record do not belong together",
            fix="give each flow of a run its own number, and end old senders",
        )
    return rows, known


def _flagged(count: int, at: Rows, flags: npt.NDArray[Any], mask: int) -> npt.NDArray[np.bool_]:
    flagged = np.zeros(count, dtype=bool)
    flagged[at[(flags & mask) != 0]] = True
    return flagged


def _from_asked(frame: pd.DataFrame, flow: MeasuredFlow, asked_ns: int) -> pd.DataFrame:
    """Count the peer's times from *asked_ns* on; the guest's stay as they are."""
    peers = {
        "round-trip": ("scheduled_ns", "sent_ns", "returned_ns"),
        "to-guest": ("scheduled_ns", "sent_ns"),
        "from-guest": ("returned_ns",),
    }[flow.direction]
    for column in peers:
        frame[column] = frame[column] - asked_ns
    return frame
