"""What machines recorded in their own clocks, put on one timeline."""

from __future__ import annotations

from collections.abc import Sequence
from ipaddress import IPv4Interface
from pathlib import Path
from typing import Any

import pytest
from made_up_host import ENTRY, Machine, made_up_host, vf_address

from harness.analysis.measured import ECHOES, Event
from harness.analysis.phases import ASKED, ATTACHED, RELEASED, STOPPING
from harness.clock import Relation
from harness.guest.instance import Instance
from harness.guest.qmp import Qmp, QmpEvent
from harness.guest.spec import GuestSpec, Place
from harness.host.port import find_port
from harness.host.sriov import VirtualFunction
from harness.migration import handoff
from harness.migration.clocks import Clocks, SharedClock
from harness.migration.handoff import HandOff, Step
from harness.migration.registers import changes
from harness.migration.scheme import Note, Outcome
from harness.migration.timeline import Timeline, build
from harness.migration.watch import Seen
from harness.topology import CapabilityEntry, FieldEntry, MacAddress, PciAddress

MS = 1_000_000
ASKED_NS = 500_000 * MS
"""When `migrate` was sent, by our clock."""

AHEAD_MS = {"peer": 10_000, "alder": 20_000, "birch": 30_000, "guest": 40_000}
"""How far each machine's monotonic clock is ahead of ours."""

WALL_MS = {"alder": 1_700_000_000_000, "birch": 1_700_000_005_000}
KNOWN_TO_MS = {"peer": 0, "alder": 1, "birch": 2, "guest": 3}
STOP_MS, RESUME_MS = 4500, 6400
MAC = MacAddress("52:54:00:12:34:56")
VF = PciAddress(vf_address(0))
BUS_MASTER, IDLE, GONE = 0x0506, 0x0102, 0xFFFF


Told = tuple[float, str, dict[str, Any]]
"""An event of QEMU: ms from `migrate asked`, name, data."""


class Heard(Qmp):
    """What a connection has collected, and nothing else of it."""

    def __init__(self, host: str, events: Sequence[Told]) -> None:
        self.name = host
        self.events = [
            QmpEvent(name, data, ASKED_NS + round((t_ms + WALL_MS[host]) * MS))
            for t_ms, name, data in events
        ]


@pytest.fixture
def state(tmp_path: Path) -> Path:
    return tmp_path


def instance(host: str, state: Path, *events: Told) -> Instance:
    """QEMU on *host*, which announced *events*; their times are ms from `migrate asked`."""
    spec = GuestSpec(
        memory_mib=256, cpus=1, mac=MAC, address=IPv4Interface("198.18.0.2/24"), mtu=9000
    )
    place = Place(
        qemu="q", accelerator="tcg", kernel="k", initramfs="i", folder="/f", tap="t",
        vf={"host": VF}, incoming=False,
    )  # fmt: skip
    owner = made_up_host(Machine(state / host), host)
    vf = VirtualFunction(find_port(owner, "p0", ENTRY.ports["p0"]), 0, VF)
    return Instance(spec, vf, place, owner, 1, Heard(host, events))


def clock() -> SharedClock:
    """Relate all clocks; the guest's was behind by its stop when it was read again."""

    def relations(later_ms: int) -> dict[str, Clocks]:
        found = {}
        for name, ahead_ms in AHEAD_MS.items():
            stopped_ms = RESUME_MS - STOP_MS if name == "guest" and later_ms else 0
            at_ns, known_ns = ASKED_NS + later_ms * MS, KNOWN_TO_MS[name] * MS
            monotonic = Relation(at_ns, (ahead_ms - stopped_ms) * MS, known_ns)
            wall = Relation(at_ns, WALL_MS.get(name, 0) * MS, known_ns)
            found[name] = Clocks(monotonic, wall)
        return found

    return SharedClock(relations(0), relations(10_000), "peer")


def by(machine: str, t_ms: float) -> int:
    """Give that moment by the machine's own monotonic clock, in ns."""
    stopped_ms = RESUME_MS - STOP_MS if machine == "guest" and t_ms > STOP_MS else 0
    return ASKED_NS + round((t_ms + AHEAD_MS[machine] - stopped_ms) * MS)


STOP: Told = (STOP_MS, "STOP", {})
RESUME: Told = (RESUME_MS, "RESUME", {})


def timeline(
    state: Path,
    *seen: Seen,
    source: Sequence[Told] = (STOP,),
    successor: Sequence[Told] = (RESUME,),
    hand_off: HandOff | None = None,
    since: int = 0,
    downtime_ms: int | None = None,
    notes: Sequence[Note] = (),
) -> Timeline:
    figures = {} if downtime_ms is None else {"downtime": downtime_ms}
    return build(
        clock(),
        Outcome(ASKED_NS, "completed", None, figures, "postmigrate", "running", tuple(notes)),
        instance("alder", state, *source),
        instance("birch", state, *successor),
        seen,
        hand_off,
        "guest",
        since=since,
    )


def told(found: Timeline, source: str) -> list[tuple[float, str]]:
    """List the events of *source*: ms from `migrate asked`, and the name."""
    return [
        ((event.t_ns - found.asked_ns) / MS, event.name)
        for event in found.events
        if event.source == source
    ]


def only(found: Timeline, name: str) -> Event:
    (event,) = (event for event in found.events if event.name == name)
    return event


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


def link_line(
    event: str, t_ms: float, *, running: bool, index: int = 3, slave: bool = True
) -> dict[str, Any]:
    """Write a line as the recorder ``links`` does."""
    return {
        "t_ns": by("guest", t_ms), "event": event, "index": index, "ifname": f"eth{index - 1}",
        "address": MAC, "operstate": "up" if running else "down", "carrier": running,
        "running": running, "master": 2 if slave else None, "mtu": 9000,
    }  # fmt: skip


def was(*, running: bool = True, index: int = 3) -> dict[str, Any]:
    return link_line("was", -800, running=running, index=index)


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


# --- the VF let go and taken up again -------------------------------------------------------


def observed(host: str, *samples: tuple[float, int], gap_ms: int = 4) -> Seen:
    """What the observer on *host* wrote: (ms, command register), *gap_ms* after another sample."""
    return Seen(
        host,
        bme=[
            {"t_ns": by(host, t_ms), "host": host, "vf": VF, "command": command,
             "bme": bool(command & 4), "via": "vfio", "gap_ns": gap_ms * MS}
            for t_ms, command in samples
        ],
    )  # fmt: skip


def test_a_sample_is_as_uncertain_as_its_clock_and_the_time_since_the_one_before(
    state: Path,
) -> None:
    """BME fell at any moment since then; the clock alone would claim too much."""
    found = timeline(state, observed("alder", (-900, BUS_MASTER), (262, IDLE), gap_ms=100))
    assert [sample.uncertainty_ns for sample in found.bme] == [101 * MS, 101 * MS]
    assert [sample.gap_ns for sample in found.bme] == [100 * MS, 100 * MS]
    assert [(sample.t_ns - found.asked_ns) / MS for sample in found.bme] == [-900, 262]


@pytest.mark.parametrize("command", [IDLE, GONE])
def test_the_vf_is_released_when_it_can_do_no_dma_any_more(state: Path, command: int) -> None:
    """A VF that has gone reads as all ones, in which Bus Master Enable is set."""
    found = timeline(state, observed("alder", (-900, BUS_MASTER), (262, command), (430, GONE)))
    released = only(found, RELEASED)
    assert ((released.t_ns - found.asked_ns) / MS, released.uncertainty_ns) == (262, 5 * MS)
    assert released.gap_ns == 4 * MS
    assert released.data == {"vf": VF, "command": command, "via": "vfio"}


@pytest.mark.parametrize(
    "seen",
    [
        observed("alder", (-900, BUS_MASTER), (8000, BUS_MASTER)),
        observed("alder", (-900, IDLE), (-100, BUS_MASTER)),
        observed("birch", (-900, IDLE), (5100, IDLE)),
    ],
    ids=["it never fell", "before it was asked for", "at the destination"],
)
def test_the_vf_is_not_released_by(state: Path, seen: Seen) -> None:
    """The claim under test is that DMA stopped, on the source, because it was asked for."""
    assert RELEASED not in [event.name for event in timeline(state, seen).events]


def replugged(*links: tuple[float, bool], slave: bool = True) -> Seen:
    """The guest's VF gone at 280 ms, a new one at 6640 ms, whose link then was as *links* say."""
    lines = [
        was(), link_line("del", 280, running=False), link_line("new", 6640, running=False, index=4),
    ]  # fmt: skip
    lines += [link_line("new", t_ms, running=up, index=4, slave=slave) for t_ms, up in links]
    return Seen("guest", links=lines)


def test_the_vf_is_attached_when_it_has_the_link_that_lasts(state: Path) -> None:
    """A link flickers while a driver starts: the first one carries nothing for long."""
    found = timeline(state, replugged((6980, True), (7100, False), (9000, True)))
    attached = only(found, ATTACHED)
    assert ((attached.t_ns - found.asked_ns) / MS, attached.uncertainty_ns) == (9000, 3 * MS)


@pytest.mark.parametrize(
    "seen",
    [
        Seen("guest", links=[was(), link_line("new", 300, running=True, index=4)]),
        replugged(),
        replugged((6980, True), (7100, False)),
        replugged((6980, True), slave=False),
    ],
    ids=["before the stop", "without a link", "with a link that went", "not of the pair"],
)
def test_the_vf_is_not_attached_by(state: Path, seen: Seen) -> None:
    """Until it is back, its users are on the standby, and the phase is `replug`."""
    assert ATTACHED not in [event.name for event in timeline(state, seen).events]


def test_a_guest_that_was_not_stopped_has_no_vf_attached(state: Path) -> None:
    """A migration that failed in its first pass gave the VF back; nothing was replugged there."""
    lines = [was(running=False), link_line("new", 300, running=True)]
    found = timeline(state, Seen("guest", links=lines), source=[], successor=[])
    assert [name for _, name in told(found, "conductor")] == [ASKED]


# --- described registers --------------------------------------------------------------------


def recorded(*values: tuple[float, str], gap_ms: int = 0, host: str = "alder") -> Seen:
    """What an observer wrote of two registers, the second of two bytes: (ms, bytes in hex)."""
    fields = {
        "VF_STATUS": FieldEntry(offset=6, bytes=1, values={"WAIT": 0, "READY": 1}),
        "COUNT": FieldEntry(offset=8, bytes=2),
    }
    described = {"migration": CapabilityEntry(offset=0x40, fields=fields)}
    lines = [
        {"t_ns": by(host, t_ms), "host": host, "vf": VF, "capability": "migration",
         "bytes": bytes_, "via": "vfio", "gap_ns": gap_ms * MS}
        for t_ms, bytes_ in values
    ]  # fmt: skip
    return Seen(host, registers=list(changes(described, lines)))


def test_each_register_that_changed_is_an_event_of_its_own(state: Path) -> None:
    """They are read at once; what is not described, as the byte between them, is none."""
    found = timeline(state, recorded((-900, "00000500"), (100, "01ff0500"), (200, "01000612")))
    assert told(found, "config:alder") == [
        (-900, "migration.VF_STATUS = WAIT"),
        (-900, "migration.COUNT = 0x0005"),
        (100, "migration.VF_STATUS = READY"),
        (200, "migration.COUNT = 0x1206"),
    ]
    assert only(found, "migration.VF_STATUS = WAIT").data == {
        "vf": VF, "offset": 0x46, "was": None, "now": 0, "via": "vfio",
    }  # fmt: skip
    assert only(found, "migration.COUNT = 0x1206").data == {
        "vf": VF, "offset": 0x48, "was": 5, "now": 0x1206, "via": "vfio",
    }  # fmt: skip


def test_a_register_is_as_uncertain_as_its_clock_and_the_time_since_it_was_read_before(
    state: Path,
) -> None:
    """As BME is: the guest may have written it at any moment since."""
    found = timeline(state, recorded((100, "01000500"), gap_ms=7, host="birch"))
    ready = only(found, "migration.VF_STATUS = READY")
    assert (ready.uncertainty_ns, ready.gap_ns) == (9 * MS, 7 * MS)
    assert ready.source == "config:birch"


def test_a_vf_that_comes_back_has_its_registers_for_the_first_time(state: Path) -> None:
    """What the old one had says nothing of the new one, and a VF that is gone has no values."""
    found = timeline(state, recorded((-900, "01000500"), (100, ""), (200, "01000500")))
    assert told(found, "config:alder")[2:] == [
        (200, "migration.VF_STATUS = READY"), (200, "migration.COUNT = 0x0005"),
    ]  # fmt: skip
    assert [e.data["was"] for e in found.events if e.source == "config:alder"] == [None] * 4


# --- hand-off and kernels -------------------------------------------------------------------


def test_both_steps_of_the_hand_off_are_shown_where_they_were_done(state: Path) -> None:
    """The source's by its observer's clock, the destination's by ours, within what it took."""
    line = {"t_ns": by("alder", 301), "name": handoff.CLEARED, "data": {"vf_index": 0}}
    vfs = [instance(host, state).vf for host in ("alder", "birch")]
    assert vfs[0] is not None
    assert vfs[1] is not None
    hand_off = HandOff(vfs[0], vfs[1], MAC)
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
