"""The VF on the timeline: let go and taken up again, and its registers."""

from __future__ import annotations

from pathlib import Path

import pytest
from timelines import (
    BUS_MASTER,
    GONE,
    IDLE,
    MS,
    VF,
    by,
    link_line,
    observed,
    only,
    timeline,
    told,
    was,
)
from timelines import state as state

from harness.analysis.marks import ASKED, ATTACHED, RELEASED
from harness.migration.registers import changes
from harness.migration.watch import Seen
from harness.topology import CapabilityEntry, FieldEntry

# --- the VF let go and taken up again -------------------------------------------------------


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
