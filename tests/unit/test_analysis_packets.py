"""Raw records to one row per frame."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest
from synthetic import ASKED_NS, MS, flow, received_record, sent_record

from harness.analysis.packets import lateness_ns, packets, read_packets, strays, write_packets
from harness.errors import MeasurementError


def frame_of(**planted: object) -> pd.DataFrame:
    return packets(flow(**planted), asked_ns=ASKED_NS)  # type: ignore[arg-type]


def test_each_frame_sent_has_one_row_with_the_promised_types() -> None:
    """Everything after this relies on these types; a lost frame must be NA, never 0 or -1."""
    frame = frame_of(lost=[3, 4])
    assert {name: str(dtype) for name, dtype in frame.dtypes.items()} == {
        "sequence": "uint32",
        "scheduled_ns": "int64",
        "sent_ns": "int64",
        "returned_ns": "Int64",
        "copies": "int64",
        "corrupted": "bool",
        "short": "bool",
        "reordered": "bool",
    }
    assert len(frame) == 2000
    assert frame.index[frame["returned_ns"].isna()].tolist() == [3, 4]
    assert frame.loc[[3, 4], "copies"].tolist() == [0, 0]


def test_times_count_from_when_migrate_was_asked() -> None:
    """A frame left in the machine's own clock would lie hours beside its figure."""
    frame = frame_of(starts_ms=-1000)
    assert frame["sent_ns"].iloc[0] == -1000 * MS
    assert frame["returned_ns"].iloc[0] == pytest.approx(-999 * MS, abs=MS)


def test_of_several_copies_the_first_arrival_counts() -> None:
    """With the last copy instead, a late duplicate would look like a slow round trip."""
    sent = sent_record([0, 1], [0, 10], [0, 10])
    received = received_record([0, 1, 0], [0, 0, 0], [0, 10, 0], [5, 15, 99])
    frame = packets(replace(flow(), sent=sent, received=received), asked_ns=0)
    assert frame["returned_ns"].tolist() == [5, 15]
    assert frame["copies"].tolist() == [2, 1]


def test_a_frame_overtaken_by_a_later_one_is_reordered() -> None:
    """Only the overtaken frame is marked (RFC 4737), not the one that overtook it."""
    frame = frame_of(delayed_ms={10: 12.0})  # interval 5 ms: 11 and 12 arrive before it
    assert frame.index[frame["reordered"]].tolist() == [10]


def test_a_late_second_copy_is_not_reordering() -> None:
    """Its first copy came in order; the second is counted as a duplicate and nothing else."""
    sent = sent_record([0, 1, 2], [0, 10, 20], [0, 10, 20])
    received = received_record([0, 1, 2, 0], [0] * 4, [0, 10, 20, 0], [5, 15, 25, 35])
    frame = packets(replace(flow(), sent=sent, received=received), asked_ns=0)
    assert not frame["reordered"].any()


def test_corruption_in_any_copy_is_seen() -> None:
    """A first good copy must not hide a second, changed one."""
    sent = sent_record([0, 1], [0, 10], [0, 10])
    received = received_record([0, 1, 0, 1], [0, 0, 1, 2], [0, 10, 0, 10], [5, 15, 25, 26])
    frame = packets(replace(flow(), sent=sent, received=received), asked_ns=0)
    assert frame["corrupted"].tolist() == [True, False]
    assert frame["short"].tolist() == [False, True]


def test_a_frame_whose_number_was_corrupted_is_a_stray() -> None:
    """It fits no row, and must be counted rather than dropped."""
    sent = sent_record([0, 1], [0, 10], [0, 10])
    received = received_record([0, 900], [0, 1], [0, 10], [5, 15])
    corrupted = replace(flow(), sent=sent, received=received)
    assert strays(corrupted) == 1
    assert packets(corrupted, asked_ns=0)["copies"].tolist() == [1, 0]


def test_a_sound_frame_that_was_never_sent_is_an_error() -> None:
    """The record of another run, joined by accident, would look like a flow without loss."""
    received = received_record([900], [0], [10], [15])
    with pytest.raises(MeasurementError, match="frame 900 arrived and was never sent"):
        packets(replace(flow(ends_ms=-900), received=received), asked_ns=0)


def test_nothing_sent_is_an_error() -> None:
    """An empty record has no lost frame; as a figure it would be a perfect migration."""
    with pytest.raises(MeasurementError, match="nothing was sent"):
        packets(replace(flow(), sent=b""), asked_ns=0)


def test_nothing_ever_arrived_is_an_error() -> None:
    """A flow that never worked says nothing about the migration, so it may not be a figure."""
    with pytest.raises(MeasurementError, match="none of 2000 frames arrived"):
        packets(replace(flow(), received=b""), asked_ns=0)


@pytest.mark.parametrize("which", ["sent", "received"])
def test_a_torn_record_is_an_error(which: str) -> None:
    """A recorder that was killed leaves half an entry; reading on would shift every field."""
    whole = flow()
    torn = replace(whole, **{which: getattr(whole, which)[:-3]})
    with pytest.raises(MeasurementError, match=f"the {which} record ends in the middle"):
        packets(torn, asked_ns=0)


def test_numbers_that_do_not_rise_are_an_error() -> None:
    """Two senders in one file would pair frames with the wrong arrivals."""
    with pytest.raises(MeasurementError, match="do not rise"):
        packets(replace(flow(), sent=sent_record([0, 0], [0, 1], [0, 1])), asked_ns=0)


def test_parquet_gives_back_the_same_frame(tmp_path: Path) -> None:
    """Int64 with NA turns into float64 in a careless round trip, and ns lose their last digits."""
    frame = frame_of(lost=[3], duplicated=[7])
    write_packets(tmp_path / "packets.parquet", frame, about={"flow": "jumbo"})
    pd.testing.assert_frame_equal(read_packets(tmp_path / "packets.parquet"), frame)


def test_the_guests_clock_is_left_alone() -> None:
    """Subtracting the peer's time from it would give a number that means nothing."""
    here = flow(direction="to-guest")
    assert packets(here, asked_ns=ASKED_NS)["returned_ns"].iloc[0] > ASKED_NS - 1000 * MS


def test_lateness_is_never_negative() -> None:
    """A sender that runs early by rounding must not shrink the error bar."""
    sent = sent_record([0, 1], [5, 10], [0, 17])
    received = received_record([0], [0], [0], [5])
    frame = packets(replace(flow(), sent=sent, received=received), asked_ns=0)
    assert lateness_ns(frame).tolist() == [0, 7]
