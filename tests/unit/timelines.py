"""Timelines of a migration, made of what machines recorded in clocks of their own."""

from __future__ import annotations

from collections.abc import Sequence
from ipaddress import IPv4Interface
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, cast

import pytest
from made_up_host import ENTRY, Machine, made_up_host, vf_address

from harness.analysis.measured import Event
from harness.clock import Relation
from harness.guest.instance import Instance
from harness.guest.qmp import Qmp, QmpEvent
from harness.guest.spec import GuestSpec, Place
from harness.host.port import find_port
from harness.host.virtual_function import VirtualFunction
from harness.migration.clocks import Clocks, SharedClock
from harness.migration.handoff import HandOff
from harness.migration.move import Move
from harness.migration.outcome import Note, Outcome
from harness.migration.timeline import Timeline, build
from harness.migration.watch import Seen
from harness.topology import MacAddress, PciAddress

if TYPE_CHECKING:
    from harness.guest.machine import GuestMachine

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
        Move(
            instance("alder", state, *source),
            instance("birch", state, *successor),
            ("", 0),
            cast("GuestMachine", SimpleNamespace(name="guest")),
            hand_off,
        ),
        seen,
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
