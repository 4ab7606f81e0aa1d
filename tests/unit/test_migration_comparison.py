"""What is told of a comparison that could not be made: the guest runs on, and nobody says equal."""

from __future__ import annotations

from array import array
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import cast

import numpy as np
import pytest
from made_up_host import Machine, made_up_host
from qmp_server import Arguments
from two_ends import End, move_between
from two_ends import ends as ends

from harness.analysis.measured import DIGESTED, MEMORY_COMPARED, NOT_COMPARED
from harness.guest.machine import GuestMachine
from harness.migration.comparison import Comparison
from harness.migration.outcome import Outcome
from harness.uapi.kvm_para import Msr


def tells(asked: Arguments) -> str:
    """Say where memory is, for a guest that has all of it at its beginning."""
    address = str(asked["command-line"]).split()[1]
    return "No memory is mapped" if address != "0x0" else "(ram) is 0x7f0c5be00000"


def outcome_of(status: str) -> Outcome:
    return Outcome(0, status, None, {}, "postmigrate", "running")


def test_a_guest_whose_memory_cannot_be_digested_runs_on(ends: tuple[End, End]) -> None:
    """Its migration is measured all the same; that its memory is not known is noted."""
    for end in ends:
        end.monitor.reacts["human-monitor-command"] = lambda _: "unknown command: 'gpa2hva'"
    ends[1].monitor.paused = True
    comparison = Comparison()
    outcome = comparison.conclude(move_between(ends, comparison=comparison).go())
    assert (outcome.status, outcome.destination_state) == ("completed", "running")
    (note,) = outcome.notes
    assert note.name == NOT_COMPARED
    assert "unknown command: 'gpa2hva'" in note.text


def test_digests_that_cannot_be_fetched_are_noted(ends: tuple[End, End]) -> None:
    """These hosts say that they wrote them: what was measured is not lost with the files."""
    for end in ends:
        end.monitor.reacts["human-monitor-command"] = tells
    comparison = Comparison()
    comparison.digest(ends[0].instance, ends[1].instance)
    outcome = comparison.conclude(outcome_of("completed"))
    assert [note.name for note in outcome.notes] == [DIGESTED, NOT_COMPARED]


def test_a_page_of_kvm_is_excused_and_its_neighbour_is_lost(
    ends: tuple[End, End], tmp_path: Path
) -> None:
    """Both differ: the one where the guest's register has its wall clock, and the one after it."""
    for end, changed in zip(ends, ((), (0x1234, 0x1235)), strict=True):
        end.monitor.reacts["human-monitor-command"] = tells
        pages = array("I", (page in changed for page in range(65_536)))
        path = Path(end.instance.host.scratch("memory-1.digests"))
        path.parent.mkdir()
        path.write_bytes(pages.tobytes())
    guest = Machine(tmp_path / "guest")
    guest.msrs[Msr.WALL_CLOCK_NEW] = 0x1234_0A0
    comparison = Comparison()
    comparison.prepare(
        ends[0].instance, ends[1].instance,
        cast("GuestMachine", SimpleNamespace(host=made_up_host(guest, "guest"))),
    )  # fmt: skip
    comparison.digest(ends[0].instance, ends[1].instance)
    compared = comparison.conclude(outcome_of("completed")).notes[-1]
    owner = "kvmclock's wall clock of processor 0"
    assert compared.name == MEMORY_COMPARED
    assert compared.data["owned"] == {"0x1234": owner}
    assert (compared.data["differ"], compared.data["page_frames"]) == (1, [0x1235])
    table = comparison.tables["memory"]
    assert table["page_frame"].tolist() == [0x1234, 0x1235]
    assert table["owner"].tolist() == [owner, ""]


def test_a_page_above_the_hole_is_named_by_the_guests_own_number(ends: tuple[End, End]) -> None:
    """Its place in the file would name another page, or none."""
    for end, changed in zip(ends, (0, 1), strict=True):
        end.instance.spec = replace(end.instance.spec, memory_mib=4096)
        end.monitor.reacts["human-monitor-command"] = tells_split
        pages = np.zeros(4096 << 20 >> 12, dtype="<u4")
        pages[0xC0001] = changed
        path = Path(end.instance.host.scratch("memory-1.digests"))
        path.parent.mkdir()
        path.write_bytes(pages.tobytes())
    comparison = prepared(Comparison(), ends)
    compared = comparison.conclude(outcome_of("completed")).notes[-1]
    assert compared.data["page_frames"] == [0x100001]


def tells_split(asked: Arguments) -> str:
    """Say where memory is, for a guest that has 3 GiB of it below 4 GiB."""
    address = str(asked["command-line"]).split()[1]
    return f"(ram) is {0x7F0C5BE00000 + (0 if address == '0x0' else 3 << 30):#x}"


def prepared(comparison: Comparison, ends: tuple[End, End]) -> Comparison:
    """One that has digested, of a guest without KVM."""
    guest = made_up_host(Machine(Path(ends[0].instance.host.scratch("guest"))), "guest")
    comparison.prepare(
        ends[0].instance, ends[1].instance, cast("GuestMachine", SimpleNamespace(host=guest))
    )
    comparison.digest(ends[0].instance, ends[1].instance)
    return comparison


def test_the_digest_and_its_speed_are_those_of_the_slower_host(ends: tuple[End, End]) -> None:
    """Both have to make the same one; the source alone would choose the other."""
    ends[1].machine.speeds = {"crc32": 0.5e9, "blake2b": 0.8e9}
    ends[1].machine.digest_seconds = 2.0
    for end in ends:
        end.monitor.reacts["human-monitor-command"] = tells
        path = Path(end.instance.host.scratch("memory-1.digests"))
        path.parent.mkdir()
        path.write_bytes(bytes(8 * 65_536))
    compared = prepared(Comparison(), ends).conclude(outcome_of("completed")).notes[-1]
    assert (compared.data["digest"], compared.data["bytes_per_s"]) == ("blake2b", 128 << 20)


@pytest.mark.parametrize(("status", "told"), [("completed", [NOT_COMPARED]), ("refused", [])])
def test_a_migration_that_never_stood_still_was_not_compared(status: str, told: list[str]) -> None:
    """One that QEMU did not begin has no second memory to be looked at."""
    assert [note.name for note in Comparison().conclude(outcome_of(status)).notes] == told
