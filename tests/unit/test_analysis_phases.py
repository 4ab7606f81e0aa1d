"""Phases out of a timeline, and the phase in which an outage began."""

from __future__ import annotations

from dataclasses import replace

import pandas as pd
import pytest
from synthetic import (
    ASKED_NS,
    FAILOVER_BME,
    FAILOVER_CUTS,
    FAILOVER_EVENTS,
    MS,
    Cut,
    bme,
    event,
    failover,
    flow,
    refused,
)

from harness.analysis.measured import Event, Measured
from harness.analysis.migration import analyse
from harness.analysis.phases import attribute, phases
from harness.analysis.scheme import Mark, SchemeRecord
from harness.analysis.verdict import Limits


def divided(measured: Measured) -> list[tuple[str, float]]:
    table = phases(measured, starts_ns=ASKED_NS - 1000 * MS, ends_ns=ASKED_NS + 9000 * MS)
    assert (table["end_ns"].iloc[:-1].to_numpy() == table["start_ns"].iloc[1:].to_numpy()).all()
    return [(n, t / MS) for n, t in zip(table["name"], table["start_ns"], strict=True)]


def without(*names: str) -> tuple[Event, ...]:
    return tuple(e for e in FAILOVER_EVENTS if e.name not in names)


def test_a_failover_migration_has_all_seven_phases() -> None:
    """Each boundary comes from another source: conductor, both QEMUs, and the observer."""
    assert divided(failover()) == [
        ("before", -1000),
        ("unplug", 0),
        ("pre-copy", 280),
        ("stop", 4523),
        ("resume", 6418),
        ("replug", 6702),
        ("after", 6980),
    ]


def test_without_the_conductors_word_qemu_says_when_the_vf_was_gone() -> None:
    """QEMU leaves wait-unplug only when the guest has ejected the primary."""
    assert dict(divided(failover(events=without("vf released"))))["pre-copy"] == 297


def test_plain_has_neither_unplug_nor_replug() -> None:
    """The baseline has no VF; its outages must not be blamed on one."""
    plain = failover(scheme="plain", events=without("vf released", "vf attached"), bme=())
    assert [name for name, _ in divided(plain)] == ["before", "pre-copy", "stop", "resume", "after"]


def test_a_cancelled_migration_goes_from_unplug_to_replug_on_the_source() -> None:
    """There is no STOP; the VF comes back where it was."""
    cancelled = failover(
        status="cancelled",
        events=[
            *without("STOP", "RESUME", "MIGRATION completed", "vf attached"),
            event(2000, "qmp:alder", "MIGRATION cancelled"),
            event(2600, "conductor", "vf attached"),
        ],
        bme=[bme(-900, "alder", 0x0507), bme(274, "alder", 0x0103), bme(2400, "alder", 0x0507)],
    )
    assert divided(cancelled)[2:] == [("pre-copy", 280), ("replug", 2000), ("after", 2600)]


def test_a_migration_cancelled_before_the_vf_was_let_go_has_no_replug() -> None:
    """Nothing was unplugged, so nothing comes back."""
    cancelled = failover(
        status="cancelled",
        events=[
            event(0, "conductor", "migrate asked"),
            event(40, "qmp:alder", "MIGRATION cancelled"),
        ],
        bme=(),
    )
    assert divided(cancelled)[1:] == [("unplug", 0), ("after", 40)]


def test_a_migration_that_was_refused_is_over_when_it_was_asked_for() -> None:
    """No memory was copied: seconds of pre-copy would say that QEMU tried."""
    assert divided(refused()) == [("before", -1000), ("after", 0)]


def test_a_migration_that_fails_after_stop_resumes_on_the_source() -> None:
    """The guest runs again on alder, so alder's BME and not birch's begins the replug."""
    failed = failover(
        status="failed",
        events=[
            *without("RESUME", "MIGRATION completed", "vf attached"),
            event(4900, "qmp:alder", "MIGRATION failed"),
            event(4950, "qmp:alder", "RESUME"),
            event(5900, "conductor", "vf attached"),
        ],
        bme=[bme(-900, "alder", 0x0507), bme(274, "alder", 0x0103), bme(5500, "alder", 0x0507)],
    )
    assert divided(failed)[3:] == [
        ("stop", 4523),
        ("resume", 4950),
        ("replug", 5500),
        ("after", 5900),
    ]


def test_a_guest_that_never_resumes_stays_in_stop() -> None:
    """The last phase seen lasts to the end of the data; none is made up."""
    assert divided(failover(events=without("RESUME", "vf attached")))[-1] == ("stop", 4523)


def test_a_vf_that_never_returns_stays_in_replug() -> None:
    """Calling that "after" would say that the migration was over."""
    assert divided(failover(events=without("vf attached")))[-1] == ("replug", 6702)


def test_a_vf_that_masters_already_at_resume_is_replugged_then() -> None:
    """In place the VF's BME comes with its state; the next sample says 1 only at the very end."""
    early = [bme(-900, "alder", 0x0507), bme(6000, "birch", 0x0406), bme(8800, "birch", 0x0406)]
    found = dict(divided(failover(bme=early)))
    assert found["replug"] == 6418
    assert "resume" not in found


def test_a_scheme_says_which_phases_there_are() -> None:
    """A scheme that is added brings its phases along, and nothing here knows its name."""
    short = SchemeRecord("short", None, "replaced", (("unplug", Mark.ASKED), ("after", Mark.RUNS)))
    bounds = divided(replace(failover(), scheme=short))
    assert bounds == [("before", -1000), ("unplug", 0), ("after", 6418)]


def test_a_boundary_that_two_clocks_put_before_its_cause_has_no_length() -> None:
    """RESUME cannot precede STOP: with clocks this far apart the phases stay in order."""
    mixed = [*without("RESUME"), event(4522.8, "qmp:birch", "RESUME", 0.4)]
    times = [t for _, t in divided(failover(events=mixed))]
    assert times == sorted(times)


@pytest.mark.parametrize("name", sorted({e.name for e in FAILOVER_EVENTS}))
def test_any_event_may_be_missing(name: str) -> None:
    """Recorders lose entries; the phases then are fewer, and still in order."""
    names = [n for n, _ in divided(failover(events=without(name)))]
    order = ["before", "unplug", "pre-copy", "stop", "resume", "replug", "after"]
    assert names == [n for n in order if n in names]


def test_each_planted_outage_is_given_the_phase_that_broke_it() -> None:
    """The first begins as the VF goes, the last as it returns: both belong to that act."""
    found = analyse(failover(), Limits()).flows[0].outages
    assert found["phase"].tolist() == ["unplug", "stop", "replug", "replug", "replug"]


def test_the_phases_of_a_long_silence_is_the_one_in_which_it_began() -> None:
    """The lab's first run: one silence from the unplug to the VF's return."""
    silent = failover(flows=[flow(cuts=[Cut(120, 6800)])])
    assert analyse(silent, Limits()).flows[0].outages["phase"].tolist() == ["unplug"]


def one_outage(earliest_ms: float, latest_ms: float) -> pd.DataFrame:
    return pd.DataFrame({"earliest_ns": [earliest_ms * MS], "latest_ns": [latest_ms * MS]})


TWO_PHASES = pd.DataFrame(
    {
        "name": ["before", "pre-copy", "stop", "resume"],
        "start_ns": [-1000 * MS, 0, 100 * MS, 103 * MS],
        "end_ns": [0, 100 * MS, 103 * MS, 900 * MS],
        "uncertainty_ns": [0, 0, 2 * MS, 2 * MS],
    }
)


@pytest.mark.parametrize(
    ("earliest", "latest", "phase", "candidates"),
    [
        (50, 55, "pre-copy", "pre-copy"),
        (96, 101, "stop", "pre-copy or stop or resume"),
        (92, 97, "pre-copy", "pre-copy"),
        (93, 98.5, "stop", "pre-copy or stop"),
        (101, 101.5, "stop", "pre-copy or stop or resume"),
        (200, 205, "resume", "resume"),
        (-5, 5, "pre-copy", "before or pre-copy"),
        (-2000, -1990, "before", "before"),
    ],
)
def test_a_boundary_within_the_error_bar_is_taken_as_the_cause(
    earliest: float, latest: float, phase: str, candidates: str
) -> None:
    """The last answer was sent 4 ms before STOP and the first lost frame after it: that is STOP.

    Judged by the start alone, every such outage would be charged to the phase before.
    """
    row = attribute(one_outage(earliest, latest), TWO_PHASES).iloc[0]
    assert (row["phase"], " or ".join(row["candidates"])) == (phase, candidates)


def test_a_frame_lost_on_its_way_back_is_charged_to_what_happened_meanwhile() -> None:
    """With a round trip of 30 ms, STOP 20 ms after the first lost frame was sent is its cause."""
    slow = flow(delay_ms=30, cuts=[Cut(4505, 4700)])
    assert analyse(failover(flows=[slow]), Limits()).flows[0].outages["phase"].tolist() == ["stop"]


@pytest.mark.parametrize(
    ("begun_ms", "stop_ms"),
    [(4480, 4480), (4530, 4523)],  # the second is a figure in whole ms that does not fit
)
def test_the_guest_is_stopped_from_when_qemu_begins_to(begun_ms: float, stop_ms: float) -> None:
    """An emulated host takes tens of ms from there to STOP: its users wait already."""
    begun = event(begun_ms, "conductor", "guest stopping", 1.0)
    measured = failover(events=[*FAILOVER_EVENTS, begun], flows=[flow(cuts=[Cut(4481, 6418)])])
    assert dict(divided(measured))["stop"] == stop_ms
    phase = "stop" if begun_ms < 4500 else "pre-copy"
    assert analyse(measured, Limits()).flows[0].outages["phase"].tolist() == [phase]


@pytest.mark.parametrize(("late_ms", "phase"), [(0.0, "pre-copy"), (8.0, "stop")])
def test_what_a_guest_had_under_way_is_lost_to_what_stops_it(late_ms: float, phase: str) -> None:
    """Of frames that arrive up to 8 ms late, the one that never does may have left long before."""
    late = {1090: late_ms, 1091: late_ms / 2}
    silent = flow(direction="from-guest", delayed_ms=late, cuts=[Cut(4514, 6418)])
    found = analyse(failover(flows=[silent]), Limits()).flows[0].outages
    assert found["phase"].tolist() == [phase]


def test_no_outage_has_no_phase() -> None:
    """An empty table keeps its columns, so that nothing after it needs a special case."""
    calm = analyse(failover(flows=[flow()]), Limits()).flows[0].outages
    assert calm.empty
    assert {"phase", "candidates"} <= set(calm.columns)


def test_samples_of_the_other_host_do_not_begin_the_replug() -> None:
    """The source's VF goes to another guest, whose BME is not ours."""
    other = [*FAILOVER_BME, bme(6500, "alder", 0x0406)]
    assert dict(divided(failover(bme=other)))["replug"] == 6702


def test_a_gone_vf_is_no_bus_master_although_it_reads_all_ones() -> None:
    """0xffff has the bit of BME set; it means that no function answered."""
    gone = [*FAILOVER_BME, replace(bme(6430, "birch", 0xFFFF), bme=True)]
    assert dict(divided(failover(bme=gone)))["replug"] == 6702


def test_the_cuts_of_the_synthetic_migration_are_all_found() -> None:
    """The planted migration is what the report's tests look at."""
    assert len(analyse(failover(), Limits()).flows[0].outages) == len(FAILOVER_CUTS)
