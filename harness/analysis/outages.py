"""Where a flow was cut off: one row per outage, with its error bar.  docs/method.md says why so."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pandas as pd

from harness.analysis.measured import Direction
from harness.analysis.packets import lateness_ns

RECENT = 20  # frames before an outage that say how long one is under way
SILENCE_INTERVALS = 2  # a from-guest silence up to this many intervals is jitter, not an outage

Times = npt.NDArray[np.int64]


def outages(
    packets: pd.DataFrame, *, direction: Direction, interval_ns: int, unsent_at_end: int = 0
) -> pd.DataFrame:
    """Find the outages of one flow; columns and units stand in the package's docstring.

    Round-trip and to-guest: between two consecutively numbered frames that arrived with at least
    one missing between them, on the sender's clock.  From-guest: a time between two arrivals
    that exceeds the nominal interval by more than SILENCE_INTERVALS intervals, whether or not
    anything was lost; counted from when the next frame was due.  *unsent_at_end* frames were due
    after the last that the guest could send: it was silent then too.
    """
    if direction == "from-guest":
        return _silences(packets, interval_ns, unsent_at_end)
    return _losses(packets, interval_ns, round_trip=direction == "round-trip")


def largest_resolution_ns(packets: pd.DataFrame, found: pd.DataFrame, *, interval_ns: int) -> int:
    """Give a flow's error bar: the worst of its outages', or what one could have hidden in."""
    if len(found):
        return int(found["resolution_ns"].max())
    return interval_ns + int(lateness_ns(packets).max())


def _losses(packets: pd.DataFrame, interval_ns: int, *, round_trip: bool) -> pd.DataFrame:
    arrived = packets["returned_ns"].notna().to_numpy()
    sent = packets["sent_ns"].to_numpy(dtype="int64")
    late = lateness_ns(packets)
    edges = np.diff(np.concatenate(([1], arrived.astype("int8"), [1])))
    first_missing = np.flatnonzero(edges == -1)
    again = np.flatnonzero(edges == 1)  # first that arrived again; len(sent) where none did
    is_open = again == len(sent)
    # Cut off from the start: known to be so since the first frame only.
    last_before = np.maximum(first_missing - 1, 0)
    back = np.minimum(again, len(sent) - 1)
    flight = _round_trips(packets)[last_before] if round_trip else 0
    return _table(
        start=sent[last_before],
        end=sent[back],
        is_open=is_open,
        lost=again - first_missing,
        resolution=interval_ns + np.maximum(late[first_missing], late[back]),
        earliest=sent[last_before],
        # A frame can be lost on the way back too, until one round trip after it was sent.
        latest=np.asarray(sent[first_missing] + flight, dtype=np.int64),
    )


def _silences(packets: pd.DataFrame, interval_ns: int, unsent_at_end: int) -> pd.DataFrame:
    rows, arrival = _arrivals(packets, interval_ns)
    lost_up_to = np.concatenate(([0], np.cumsum(packets["returned_ns"].isna())))[rows + 1]
    lost = np.maximum(np.diff(lost_up_to), 0)
    silent = np.flatnonzero(np.diff(arrival) - interval_ns > SILENCE_INTERVALS * interval_ns)
    lost_for_good = len(packets) - 1 - int(rows.max())
    if lost_for_good or unsent_at_end > SILENCE_INTERVALS:
        silent = np.append(silent, len(rows) - 1)
        lost = np.append(lost, lost_for_good)
    start = arrival[silent] + interval_ns
    return _table(
        start=start,
        end=arrival[np.minimum(silent + 1, len(rows) - 1)],
        is_open=silent == len(rows) - 1,
        lost=lost[silent],
        # Lateness after the silence may be the silence itself: the guest's sender was stopped.
        resolution=interval_ns + lateness_ns(packets)[np.maximum(rows[silent], 0)],
        earliest=start - interval_ns,
        # What was under way when the guest stopped is lost, or late like the latest before it.
        latest=start + _recent_delays(arrival, interval_ns)[silent],
    )


def _recent_delays(arrival: Times, interval_ns: int) -> Times:
    """By how much a gap between arrivals exceeded the interval: the most of RECENT before each.

    A gap that is an outage itself says nothing of that.
    """
    late = np.maximum(np.diff(arrival, prepend=arrival[:1]) - interval_ns, 0)
    late[late > SILENCE_INTERVALS * interval_ns] = 0
    return pd.Series(late).rolling(RECENT, min_periods=1).max().to_numpy().astype(np.int64)


def _arrivals(packets: pd.DataFrame, interval_ns: int) -> tuple[Times, Times]:
    """Row and time of each arrival, in the order of arrival.

    Where the first frames were lost, a row -1 stands for the frame before them, at the time it
    would have arrived: so a flow cut off from the start has its outage too.
    """
    rows = np.flatnonzero(packets["returned_ns"].notna())
    arrival = packets["returned_ns"].iloc[rows].to_numpy(dtype="int64")
    order = np.argsort(arrival, kind="stable")
    rows, arrival = rows[order], arrival[order]
    if lost_first := int(rows.min()):
        rows = np.insert(rows, 0, -1)
        arrival = np.insert(arrival, 0, arrival[0] - (lost_first + 1) * interval_ns)
    return rows, arrival


def _round_trips(packets: pd.DataFrame) -> Times:
    """How long a frame was under way at about the time of each: the median of RECENT before it."""
    each = (packets["returned_ns"] - packets["sent_ns"]).astype("float64")
    recent = each.rolling(RECENT, min_periods=1).median().fillna(each.median())
    return recent.to_numpy(dtype="float64").astype(np.int64)


def _table(
    *,
    start: Times,
    end: Times,
    is_open: npt.NDArray[np.bool_],
    lost: Times,
    resolution: Times,
    earliest: Times,
    latest: Times,
) -> pd.DataFrame:
    ends = pd.array(end, dtype="Int64")
    ends[is_open] = pd.NA
    return pd.DataFrame(
        {
            "start_ns": start.astype("int64"),
            "end_ns": ends,
            "lost": lost.astype("int64"),
            "resolution_ns": resolution.astype("int64"),
            "earliest_ns": earliest.astype("int64"),
            "latest_ns": latest.astype("int64"),
        }
    )
