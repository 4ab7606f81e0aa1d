"""Outages: planted ones are found, within the error bar that stands beside them."""

from __future__ import annotations

from dataclasses import replace

import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from synthetic import ASKED_NS, MS, Cut, event, failover, flow, received_record, sent_record

from harness.analysis.measured import Direction, MeasuredFlow
from harness.analysis.migration import analyse
from harness.analysis.outages import largest_resolution_ns, outages
from harness.analysis.packets import packets
from harness.analysis.verdict import Limits


def found_in(measured: MeasuredFlow) -> pd.DataFrame:
    frame = packets(measured, asked_ns=ASKED_NS)
    return outages(frame, direction=measured.direction, interval_ns=measured.interval_ns)


def spans_ms(table: pd.DataFrame) -> list[tuple[float, float, int]]:
    return [
        (start / MS, end / MS, lost)
        for start, end, lost in zip(table["start_ns"], table["end_ns"], table["lost"], strict=True)
    ]


@pytest.mark.parametrize("direction", ["round-trip", "to-guest"])
def test_an_outage_lasts_from_the_last_that_arrived_to_the_first_that_arrives_again(
    direction: Direction,
) -> None:
    """Frames go out at 0, 5, 10 .. ms; those at 10, 15, 20 are lost: 5 to 25, not 15 or 10."""
    table = found_in(flow(direction=direction, cuts=[Cut(10, 25)]))
    assert spans_ms(table) == [(5, 25, 3)]


def test_several_outages_are_several_rows() -> None:
    """A sum or a merge of the two would be a number that no user felt."""
    table = found_in(flow(cuts=[Cut(10, 25), Cut(100, 105)]))
    assert spans_ms(table) == [(5, 25, 3), (95, 105, 1)]


def test_one_frame_between_two_losses_parts_them() -> None:
    """Loss, one answer, loss: two outages, each with the answer as an end."""
    assert spans_ms(found_in(flow(lost=[200, 202]))) == [(-5, 5, 1), (5, 15, 1)]


def test_no_loss_is_no_outage() -> None:
    """Duplicates, reordering and late answers are not outages."""
    calm = flow(duplicated=[5, 6], delayed_ms={50: 30.0}, jitter_ms=2.0)
    assert found_in(calm).empty


@pytest.mark.parametrize("direction", ["round-trip", "to-guest", "from-guest"])
def test_a_flow_that_never_comes_back_has_an_open_end(direction: Direction) -> None:
    """Other tools reported zero here, as no frame closed the gap."""
    table = found_in(flow(direction=direction, cuts=[Cut(8000, 9999)]))
    assert table["end_ns"].isna().tolist() == [True]
    assert table["lost"].tolist() == [200]
    assert table["start_ns"].iloc[0] / MS == pytest.approx(7998, abs=4)


@pytest.mark.parametrize("direction", ["round-trip", "to-guest", "from-guest"])
def test_a_flow_cut_off_from_the_start_has_that_outage_too(direction: Direction) -> None:
    """There is no last frame that arrived, and yet nothing did."""
    table = found_in(flow(direction=direction, cuts=[Cut(-9999, -900)]))
    assert table["lost"].tolist() == [20]
    start, end, _ = spans_ms(table)[0]
    assert start == pytest.approx(-1000, abs=2)
    assert end == pytest.approx(-900, abs=2)


def test_the_error_bar_is_the_interval_and_the_senders_lateness_there() -> None:
    """The frame at 25 ms, the first to come back, went out 3 ms late: 5 + 3 ms."""
    table = found_in(flow(cuts=[Cut(10, 25)], late_ms={205: 3.0, 900: 40.0}))
    assert table["resolution_ns"].tolist() == [8 * MS]


def test_without_an_outage_the_error_bar_is_what_one_could_have_hidden_in() -> None:
    """A sender that paused for 40 ms would not have seen a cut of 40 ms."""
    paused = flow(late_ms={900: 40.0})
    frame = packets(paused, asked_ns=ASKED_NS)
    table = outages(frame, direction="round-trip", interval_ns=paused.interval_ns)
    assert largest_resolution_ns(frame, table, interval_ns=paused.interval_ns) == 45 * MS


def test_a_silence_without_loss_is_an_outage_of_a_from_guest_flow() -> None:
    """A stopped guest sends nothing: nothing is lost, and yet its users wait."""
    stopped = dict.fromkeys(range(1000, 2000), 300.0)
    table = found_in(flow(direction="from-guest", late_ms=stopped))
    assert table["lost"].tolist() == [0]
    length = (table["end_ns"] - table["start_ns"]).iloc[0]
    assert length / MS == pytest.approx(300, abs=1)


def test_jitter_of_a_guest_is_not_an_outage() -> None:
    """Up to two intervals (10 ms) beyond the nominal one are a busy guest's own."""
    assert found_in(flow(direction="from-guest", delayed_ms={50: 9.0}, jitter_ms=4.0)).empty


def test_the_end_of_a_late_sender_does_not_widen_a_silence() -> None:
    """The lateness after a silence is the silence itself; as an error bar it would hide it."""
    stopped = dict.fromkeys(range(1000, 2000), 300.0)
    table = found_in(flow(direction="from-guest", late_ms=stopped))
    assert table["resolution_ns"].iloc[0] == 5 * MS


@st.composite
def cuts_apart(draw: st.DrawFn) -> list[Cut]:
    """Cuts of 12 to 900 ms (interval 5 ms, lateness up to 3), far enough apart to stay two."""
    edges = draw(st.lists(st.integers(12, 900), min_size=2, max_size=8))
    cuts, at = [], 0.0
    for before, length in zip(edges[::2], edges[1::2], strict=False):
        start = at + before + draw(st.floats(0, 4.999))
        cuts.append(Cut(start, start + length))
        at = start + length + 12
    return cuts


@settings(max_examples=60)
@given(cuts=cuts_apart(), seed=st.integers(0, 999), rate=st.sampled_from([200, 500, 1000]))
def test_each_planted_outage_is_found_within_its_error_bar(
    cuts: list[Cut], seed: int, rate: int
) -> None:
    """The claim of the method: both ends of each cut lie within resolution of the row's ends."""
    planted = flow(cuts=cuts, rate_pps=rate, jitter_ms=0.5 * 1000 / rate, seed=seed)
    table = found_in(planted)
    assert len(table) == len(cuts)
    for cut, row in zip(cuts, table.to_dict(orient="records"), strict=True):
        bar_ms = row["resolution_ns"] / MS
        start, end = row["start_ns"] / MS, row["end_ns"] / MS
        assert start <= cut.start_ms <= start + bar_ms
        assert end - bar_ms <= cut.end_ms <= end
        assert row["earliest_ns"] / MS <= cut.start_ms <= row["latest_ns"] / MS


@settings(max_examples=60)
@given(
    lost=st.sets(st.integers(0, 398), max_size=300),
    duplicated=st.sets(st.integers(0, 399), max_size=20),
    delays=st.dictionaries(st.integers(0, 399), st.floats(0, 200), max_size=20),
)
def test_random_loss_with_duplicates_and_reordering_is_counted_exactly(
    lost: set[int], duplicated: set[int], delays: dict[int, float]
) -> None:
    """Checked against the definition, written as a plain loop over the numbers."""
    noisy = flow(
        ends_ms=1000,
        lost=lost,
        duplicated=duplicated - lost,
        delayed_ms=delays,
    )
    rows, since, missing = [], 0, 0
    for number in range(400):
        if number in lost:
            missing += 1
            continue
        if missing:
            rows.append((since * 5 - 1000, number * 5 - 1000, missing))
        since, missing = number, 0
    assert spans_ms(found_in(noisy)) == rows


@settings(max_examples=40)
@given(at=st.integers(50, 1500), length=st.floats(25, 900), seed=st.integers(0, 99))
def test_a_planted_silence_is_found_within_its_error_bar(at: int, length: float, seed: int) -> None:
    """The guest's clock stands still for *length*: each end within interval plus jitter."""
    late = dict.fromkeys(range(at, 2000), length)
    stopped = flow(direction="from-guest", late_ms=late, jitter_ms=1.0, seed=seed)
    table = found_in(stopped)
    assert table["lost"].tolist() == [0]
    start, end, _ = spans_ms(table)[0]
    bar_ms = table["resolution_ns"].iloc[0] / MS + 1.4  # jitter of sending and of the way
    due_ms = -1000 + at * 5 + 1.0
    assert start == pytest.approx(due_ms, abs=bar_ms)
    assert end == pytest.approx(due_ms + length, abs=bar_ms)


def test_loss_of_a_from_guest_flow_is_counted_in_its_silence() -> None:
    """Frames that the guest sent while its link was away belong to that silence."""
    table = found_in(flow(direction="from-guest", cuts=[Cut(100, 200)]))
    assert table["lost"].tolist() == [20]


def test_the_worked_example_of_the_method_holds() -> None:
    """docs/method.md walks through these four frames; its figures must be what the code says."""
    due = [n * 5 for n in range(100)]
    sent = [t + 2 if n == 58 else t for n, t in enumerate(due)]
    back = [n for n in range(100) if n not in (56, 57)]
    record = sent_record(range(100), [ns(t) for t in due], [ns(t) for t in sent])
    received = received_record(back, [0] * 98, [0] * 98, [ns(sent[n] + 1.1) for n in back])
    example = replace(flow(), sent=record, received=received)
    released = event(281, "conductor", "vf released", 0.4)
    measured = failover(flows=[example], events=[released], bme=())
    row = analyse(measured, Limits()).flows[0].outages.iloc[0]
    assert (row["start_ns"], row["end_ns"], row["lost"]) == (275 * MS, 292 * MS, 2)
    assert row["resolution_ns"] == 7 * MS
    assert row["latest_ns"] == 281.1 * MS
    assert (row["phase"], row["candidates"]) == ("unplug", ("unplug", "pre-copy"))


def ns(t_ms: float) -> int:
    return ASKED_NS + round(t_ms * MS)
