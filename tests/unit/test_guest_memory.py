"""Where a guest's memory is, and whose pages are in it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import pytest
from two_ends import SPEC, End

from harness.agent import msr
from harness.errors import MigrationError
from harness.guest.instance import Instance
from harness.guest.machine import GuestMachine
from harness.guest.memory import ABOVE, PAGE, GuestMemory, hypervisor_pages
from harness.uapi.kvm_para import Msr

HERE = 0x7F0C5BE00000
BELOW = 3 << 30


@pytest.fixture
def end(tmp_path: Path) -> Iterator[End]:
    with ExitStack() as stack:
        yield End("alder", "paused", tmp_path, stack)


def tells(end: End, *, memory_mib: int, high: bool = False) -> Instance:
    """A QEMU whose guest has so much memory, if *high* split at BELOW as a q35's is."""
    end.instance.spec = replace(SPEC, memory_mib=memory_mib)

    def answer(asked: Any) -> str:
        address = int(asked["command-line"].split()[1], 16)
        if address and not high:
            return f"No memory is mapped at address {address:#x}"
        at = HERE + (BELOW if address == ABOVE else 0)
        return f"Host virtual address for {address:#x} (ram) is {at:#x}\r\n"

    end.monitor.reacts["human-monitor-command"] = answer
    return end.instance


def test_small_memory_is_one_stretch(end: End) -> None:
    memory = GuestMemory.of(tells(end, memory_mib=256))
    assert (memory.address, memory.pages) == (HERE, 65_536)
    assert memory.page_frame(0x1234) == 0x1234
    assert memory.host_address(0x1234) == HERE + 0x1234 * PAGE


@pytest.mark.parametrize(
    ("page", "frame"),
    [(0, 0), (BELOW // PAGE - 1, BELOW // PAGE - 1), (BELOW // PAGE, ABOVE // PAGE)],
)
def test_large_memory_goes_on_at_four_gibibytes(end: End, page: int, frame: int) -> None:
    """Between them is the hole for PCI: a page named by its place in the file would be another."""
    memory = GuestMemory.of(tells(end, memory_mib=4096, high=True))
    assert memory.page_frame(page) == frame
    assert memory.has(frame)
    assert not memory.has(BELOW // PAGE)
    assert not memory.has((ABOVE + (1 << 30)) // PAGE)
    assert memory.host_address(frame) == HERE + page * PAGE


def test_large_memory_without_a_hole_is_one_stretch(end: End) -> None:
    memory = GuestMemory.of(tells(end, memory_mib=2560))
    assert memory.page_frame(memory.pages - 1) == memory.pages - 1


def test_a_qemu_that_does_not_tell_is_quoted(end: End) -> None:
    end.monitor.reacts["human-monitor-command"] = lambda _: "unknown command: 'gpa2hva'"
    with pytest.raises(MigrationError, match="alder: QEMU does not tell") as silent:
        GuestMemory.of(end.instance)
    assert "unknown command: 'gpa2hva'" in silent.value.because


class Guest:
    """Whose processors have these registers."""

    def __init__(self, **registers: list[int | None]) -> None:
        self.registers = registers
        self.host = self

    def ask(self, verb: str, register: int) -> list[int | None]:
        assert verb == "msr.read"
        return self.registers.get(Msr(register).name, [None])


def test_pages_that_kvm_writes_are_told_by_their_registers() -> None:
    """An address with its lowest bit set; two things of one page are both told.

    The wall clock's has no such bit.
    """
    guest = Guest(
        WALL_CLOCK_NEW=[0x1E600000, 0],
        SYSTEM_TIME_NEW=[0x1E601001, 0x1E601041],
        STEAL_TIME=[0xFC32081, 0xFCB2080],
        PV_EOI_EN=[0x1E601081],
        ASYNC_PF_EN=[0x1E700080, None],
    )
    assert hypervisor_pages(cast("GuestMachine", guest)) == {
        0x1E600: "kvmclock's wall clock of processor 0",
        0x1E601: "kvmclock of processor 0, kvmclock of processor 1, end of interrupt of processor"
        " 0",
        0xFC32: "steal time of processor 0",
    }


def test_a_guest_without_kvm_lends_no_page() -> None:
    assert hypervisor_pages(cast("GuestMachine", Guest())) == {}


def test_a_register_that_is_not_there_is_none(tmp_path: Path, monkeypatch: Any) -> None:
    """And a kernel that gives none away has an empty list."""
    monkeypatch.setattr(msr, "_FOLDER", tmp_path)
    assert msr.read(Msr.STEAL_TIME) == []
    for processor in ("0", "10", "2"):
        (tmp_path / processor).mkdir()
        (tmp_path / processor / "msr").write_bytes(bytes(8) + bytes([int(processor)] * 8))
    assert msr.read(8) == [0, int.from_bytes([2] * 8, "little"), int.from_bytes([10] * 8, "little")]
