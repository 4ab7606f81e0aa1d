"""What machines recorded in their own clocks, put on one timeline."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from timelines import (
    AHEAD_MS,
    ASKED_NS,
    BUS_MASTER,
    IDLE,
    MAC,
    MS,
    RESUME,
    RESUME_MS,
    STOP,
    STOP_MS,
    VF,
    Told,
    by,
    instance,
    link_line,
    observed,
    only,
    timeline,
    told,
    was,
)
from timelines import state as state

from harness.analysis.marks import ASKED, STOPPING
from harness.analysis.measured import ECHOES
from harness.migration import handoff
from harness.migration.handoff import HandOff, Order, Step
from harness.migration.outcome import Note
from harness.migration.watch import Seen

# --- QEMU -----------------------------------------------------------------------------------


def test_everything_counts_from_asking_in_the_peers_clock(state: Path) -> None:
    """Packets are stamped by the peer; a timeline in another clock fits no outage."""
    found = timeline(state)
    assert found.asked_ns == ASKED_NS + AHEAD_MS["peer"] * MS
    asked = only(found, ASKED)
    assert (asked.t_ns, asked.source, asked.uncertainty_ns) == (found.asked_ns, "conductor", 0)


def test_qemus_events_are_placed_by_their_hosts_wall_clocks(state: Path) -> None:
    """Two hosts' wall clocks are seconds apart here: RESUME would come before STOP."""
    found = timeline(
        state, source=[(10, "MIGRATION", {"status": "setup"}), STOP], successor=[RESUME]
    )
    assert told(found, "qmp:alder") == [(10, "MIGRATION setup"), (STOP_MS, "STOP")]
    assert told(found, "qmp:birch") == [(RESUME_MS, "RESUME")]
    assert only(found, "STOP").uncertainty_ns == 1 * MS
    assert only(found, "RESUME").uncertainty_ns == 2 * MS
    assert only(found, "MIGRATION setup").data == {"status": "setup"}


def test_events_of_an_earlier_migration_are_left_out(state: Path) -> None:
    """The source was the destination then; its RESUME and `completed` are not of this one."""
    earlier = [(-60_000, "RESUME", {}), (-59_900, "MIGRATION", {"status": "completed"})]
    found = timeline(state, source=[*earlier, STOP], since=len(earlier))
    assert told(found, "qmp:alder") == [(STOP_MS, "STOP")]


def test_the_stop_of_a_migration_that_failed_before_is_not_this_ones(state: Path) -> None:
    """By that stop every event of the guest would be `after`, and off by the length of this one."""
    link = Seen("guest", links=[was(), link_line("new", 200, running=False)])
    found = timeline(state, link, source=[(-30_000, "STOP", {}), STOP], since=1)
    assert told(found, "guest") == [(200, "eth2 link down")]


def test_stopping_begins_a_downtime_before_the_end(state: Path) -> None:
    """QEMU says STOP when the guest stands; its own figure counts from when it began to stop it."""
    completed: Told = (STOP_MS + 200, "MIGRATION", {"status": "completed"})
    begun = only(timeline(state, source=[STOP, completed], downtime_ms=224), STOPPING)
    assert (begun.t_ns - only(timeline(state), ASKED).t_ns) / MS == STOP_MS - 24
    assert begun.uncertainty_ns == 2 * MS, "that of the event, and what a whole number leaves out"


def test_stopping_does_not_begin_before_the_pass_ahead_of_it(state: Path) -> None:
    """A QEMU that reckons its downtime late gives one that is too long."""
    completed: Told = (STOP_MS + 200, "MIGRATION", {"status": "completed"})
    last: Told = (STOP_MS - 10, "MIGRATION_PASS", {})
    stopped: Told = (STOP_MS + 5, "MIGRATION_PASS", {})
    found = timeline(state, source=[last, STOP, stopped, completed], downtime_ms=300)
    assert (only(found, STOPPING).t_ns - found.asked_ns) / MS == STOP_MS - 10


def test_what_we_missed_is_on_the_timeline(state: Path) -> None:
    """A reader looks for what is not there; the note says who waited for it, and how long."""
    note = Note(ASKED_NS + 900 * MS, "gave up waiting", "alder: waited up to 9 s")
    found = timeline(state, notes=[note])
    assert (900, "gave up waiting") in told(found, "conductor")
    assert only(found, "gave up waiting").data == {"text": "alder: waited up to 9 s"}


@pytest.mark.parametrize(("ended", "downtime_ms"), [("failed", 224), ("completed", None)])
def test_without_an_end_or_a_figure_nothing_is_reckoned(
    state: Path, ended: str, downtime_ms: int | None
) -> None:
    """A cancelled migration has a STOP at times, and no downtime."""
    source: list[Told] = [STOP, (STOP_MS + 200, "MIGRATION", {"status": ended})]
    found = timeline(state, source=source, downtime_ms=downtime_ms)
    assert [event for event in found.events if event.name == STOPPING] == []


def test_events_are_in_order_of_time(state: Path) -> None:
    """Readers and programs go through them from top to bottom."""
    found = timeline(
        state,
        observed("alder", (262, IDLE), (-900, BUS_MASTER)),
        source=[STOP, (25, "UNPLUG_PRIMARY", {})],
    )
    times = [event.t_ns for event in found.events]
    assert times == sorted(times)
    assert [sample.command for sample in found.bme] == [BUS_MASTER, IDLE]


# --- the guest's links ----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("lines", "names"),
    [
        ([was()], []),
        ([was(), link_line("new", 100, running=True)], []),
        ([was(), link_line("new", 100, running=False)], ["link down"]),
        ([was(running=False), link_line("new", 100, running=True)], ["link up"]),
        ([link_line("new", 100, running=False)], ["there"]),
        ([link_line("new", 100, running=True)], ["there with link"]),
        ([was(), link_line("del", 100, running=False)], ["gone"]),
        (
            [was(), link_line("new", 100, running=False), link_line("del", 110, running=False)],
            ["link down", "gone"],
        ),
        (
            [was(), link_line("del", 100, running=False), link_line("new", 200, running=True)],
            ["gone", "there with link"],
        ),
        (
            [was(), link_line("del", 100, running=False), link_line("new", 200, running=False)],
            ["gone", "there"],
        ),
    ],
    ids=lambda value: "-".join(value) or "nothing" if value and isinstance(value[0], str) else "",
)
def test_a_change_of_a_link_is_named(
    state: Path, lines: list[dict[str, Any]], names: list[str]
) -> None:
    """What was there before is no event; what changes something else of a link is none either."""
    found = timeline(state, Seen("guest", links=lines))
    assert [name for _, name in told(found, "guest")] == [f"eth2 {name}" for name in names]


def test_links_are_told_apart(state: Path) -> None:
    """The standby's state must not be compared with the VF's."""
    lines = [
        was(index=3), was(index=4, running=False), link_line("new", 100, running=False, index=3),
        link_line("new", 120, running=True, index=4),
    ]  # fmt: skip
    found = timeline(state, Seen("guest", links=lines))
    assert told(found, "guest") == [(100, "eth2 link down"), (120, "eth3 link up")]


def test_the_guests_events_are_placed_on_either_side_of_its_stop(state: Path) -> None:
    """Its clock stands while it is stopped: what comes after would come before RESUME."""
    lines = [
        was(), link_line("del", 280, running=False), link_line("new", 6640, running=False, index=4),
        link_line("new", 6980, running=True, index=4),
    ]  # fmt: skip
    found = timeline(state, Seen("guest", links=lines))
    assert told(found, "guest") == [
        (280, "eth2 gone"), (6640, "eth3 there"), (6980, "eth3 link up"),
    ]  # fmt: skip
    assert only(found, "eth3 link up").uncertainty_ns == 3 * MS
    assert only(found, "eth3 link up").data == {"address": MAC, "slave": True}


def test_what_the_guest_counted_is_an_event_of_its_own(state: Path) -> None:
    """It was asked for over SSH, so the moment is the asker's; a guest that is lost has none."""
    counted = {"requests": 1700, "replies": 1650}
    asked = Seen("guest", echoes=counted, echoes_ns=ASKED_NS + 9000 * MS)
    assert only(timeline(state, asked), ECHOES).data == counted
    assert ECHOES not in [event.name for event in timeline(state, Seen("guest")).events]


# --- hand-off and kernels -------------------------------------------------------------------


def test_both_steps_of_the_hand_off_are_shown_where_they_were_done(state: Path) -> None:
    """The source's by its observer's clock, the destination's by ours, within what it took."""
    line = {"t_ns": by("alder", 301), "name": handoff.CLEARED, "data": {"vf_index": 0}}
    vfs = [instance(host, state).vf for host in ("alder", "birch")]
    assert vfs[0] is not None
    assert vfs[1] is not None
    hand_off = HandOff(vfs[0], vfs[1], MAC, Order.AFTER_RESUME)
    done = Step(ASKED_NS + 6390 * MS, 8 * MS, "birch", handoff.SET, {"mac": MAC})
    hand_off.steps.append(done)

    found = timeline(state, Seen("alder", handoff=[line]), hand_off=hand_off)
    assert told(found, "handoff:alder") == [(301, handoff.CLEARED)]
    assert told(found, "handoff:birch") == [(6386, handoff.SET)]
    assert only(found, handoff.CLEARED).uncertainty_ns == 1 * MS
    assert only(found, handoff.SET).uncertainty_ns == only(found, handoff.SET).gap_ns == 4 * MS
    assert only(found, handoff.CLEARED).data == {"vf_index": 0}


def test_a_step_that_was_refused_does_not_look_like_one_that_was_done(state: Path) -> None:
    """The filter still leads to a VF that nobody reads: the outage that follows is ours."""
    refused = {"t_ns": by("alder", 301), "name": handoff.CLEARED, "data": {"error": "EPERM"}}
    found = timeline(state, Seen("alder", handoff=[refused]))
    assert told(found, "handoff:alder") == [(301, f"{handoff.CLEARED}: refused")]


def test_a_vfs_migration_state_is_as_uncertain_as_its_clock_and_the_sample_before(
    state: Path,
) -> None:
    """QEMU's own events come from another process: only the error bars say which came first."""
    data = {"vf": VF, "was": "RUNNING", "gap_ns": 3 * MS}
    line = {"t_ns": by("alder", 4510), "name": "vfio state STOP_COPY", "data": data}
    found = timeline(state, Seen("alder", states=[line]))
    assert told(found, "vfio:alder") == [(4510, "vfio state STOP_COPY")]
    event = only(found, "vfio state STOP_COPY")
    assert (event.uncertainty_ns, event.gap_ns, event.data) == (4 * MS, 3 * MS, data)


def test_a_fault_of_a_hosts_kernel_is_shown_with_its_words(state: Path) -> None:
    """A DMA fault of the IOMMU in the middle of a migration is what one looks for."""
    fault = {"t_ns": by("birch", 5000), "text": "DMAR: [DMA Write] Request device [01:10.0]"}
    seen = Seen("birch", kernel={"faults": [fault]})
    found = timeline(state, seen, Seen("alder", kernel={}))
    assert told(found, "kernel:birch") == [(5000, "kernel fault")]
    assert only(found, "kernel fault").data == {"text": fault["text"]}
