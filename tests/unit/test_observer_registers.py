"""The observer, where a topology describes registers: what it reads, when, and what it writes.

``test_observer`` has what stands for sysfs, and for the device that QEMU owns.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest
from observed_vf import ADDRESS, OFF, ON, Copy, Script, Vf, nothing
from observed_vf import sysfs as folder_for_sysfs

from harness.agent import bme, observer
from harness.agent.errors import AgentError
from harness.agent.registers import Registers

sysfs = folder_for_sysfs

STATUS = {"name": "status", "offset": 0x45, "length": 2}


class Described(Vf):
    """A VF with two bytes of registers at 0x45, among others that nobody described."""

    registers = b"\x01\x00"

    def set(self, command: int, registers: bytes | None = None) -> None:
        """Write COMMAND and the registers, in place."""
        self.registers = self.registers if registers is None else registers
        head = b"\x86\x80\xca\x10" + command.to_bytes(2, "little")
        rest = self.registers + b"\x5a" * 9
        self.config.write_bytes(head.ljust(0x45, b"\xa5") + rest)


def run(
    vf: Vf, *steps: Any, capabilities: Any = (STATUS,), **spec: Any
) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """Run the observer through a script: the summary, and the lines of registers."""
    path = vf.config.parent.parent / "bme.jsonl"
    whole = {"host": "alder", "vf": ADDRESS, "path": str(path), "capabilities": [*capabilities]}
    summary = observer.main({**whole, **spec}, Script(*steps))
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    assert [line["t_ns"] for line in lines] == sorted(line["t_ns"] for line in lines)
    return summary, [line for line in lines if "capability" in line]


def values(lines: list[dict[str, Any]]) -> list[str]:
    return [line["bytes"] for line in lines]


def test_what_was_seen_first_is_written_and_then_each_change(sysfs: Path) -> None:
    """Without the first nobody can say what a change was from; bytes beside them are no change."""
    vf = Described(sysfs)
    changed = lambda: vf.set(ON, b"\x01\x01")  # noqa: E731
    _, lines = run(vf, nothing, changed, nothing, lambda: vf.set(OFF, b"\x00\x01"))
    assert values(lines) == ["0100", "0101", "0001"]
    first, *later = lines
    assert (first["host"], first["vf"], first["capability"]) == ("alder", ADDRESS, "status")
    assert first["gap_ns"] == 0
    assert all(line["via"] == "sysfs" for line in lines)
    assert all(0 < line["gap_ns"] < 10**9 for line in later)


def test_a_gap_is_the_time_since_the_look_before(sysfs: Path) -> None:
    """Not since the last change: all looks in between found it as it was."""
    vf = Described(sysfs)
    _, lines = run(vf, *[nothing] * 50, lambda: vf.set(ON, b"\x02\x00"), nothing)
    assert lines[1]["t_ns"] - lines[0]["t_ns"] > lines[1]["gap_ns"]


def test_a_change_is_seen_where_command_stays(sysfs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Most samples find COMMAND as it was and look no further; the last is one as well."""
    monkeypatch.setattr(bme, "LOOK_EVERY_NS", 60_000_000_000)
    vf = Described(sysfs)
    steps = (nothing, lambda: vf.set(ON, b"\x02\x00"), nothing, lambda: vf.set(ON, b"\x03\x00"))
    summary, lines = run(vf, *steps)
    assert values(lines) == ["0100", "0200", "0300"]
    assert summary["samples"] == 6, "looking at registers is no sample of BME"


def test_they_are_read_the_way_that_command_is(sysfs: Path) -> None:
    """Through QEMU's descriptor while BME is set; then it is given back, and that keeps nothing."""
    vf = Described(sysfs)
    with vf.register() as register:
        assert register.read(0x45, 2) == (b"\x01\x00", "sysfs")
        register.sample()
        assert register.read(0x45, 2) == (b"\x01\x00", "vfio")
        vf.set(OFF)
        register.sample()
        assert register.read(0x45, 2) == (b"\x01\x00", "sysfs")
        assert vf.copies == 0


@pytest.mark.parametrize("gone", [b"", b"\xff" * 0x50], ids=["no file", "all ones"])
def test_a_vf_that_is_gone_has_no_registers(sysfs: Path, gone: bytes) -> None:
    """All ones are no value; and what it has when it comes back is seen for the first time."""
    vf = Described(sysfs)
    _, lines = run(vf, lambda: vf.config.write_bytes(gone), nothing, lambda: vf.set(ON))
    assert values(lines) == ["0100", "", "0100"]


@pytest.mark.parametrize("gone", [b"", b"\xff" * 4], ids=["no file", "all ones"])
def test_a_vf_that_goes_between_two_reads_has_its_command_looked_at(
    sysfs: Path, monkeypatch: pytest.MonkeyPatch, gone: bytes
) -> None:
    """Its file is closed by then, and another one may have the descriptor: here it does."""
    monkeypatch.setattr(bme, "LOOK_EVERY_NS", 60_000_000_000)
    vf = Described(sysfs, open_by_qemu=False)
    other = sysfs / "other"
    other.write_bytes(vf.config.read_bytes())
    with vf.register() as register:
        register.sample()
        assert register.unchanged_ns()
        vf.config.write_bytes(gone)
        assert register.read(0x45, 2) == (b"", "sysfs")
        with other.open("rb"):
            assert register.unchanged_ns() == 0


def test_registers_that_are_all_ones_are_a_value_of_a_vf_that_is_there(sysfs: Path) -> None:
    vf = Described(sysfs)
    _, lines = run(vf, lambda: vf.set(ON, b"\xff\xff"))
    assert values(lines) == ["0100", "ffff"]


def test_a_descriptor_that_does_not_answer_ends_nothing(
    sysfs: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It goes between two looks at COMMAND: the next one tells what became of the VF."""
    vf = Described(sysfs)

    def refuse(*_: object) -> bytes:
        raise AgentError("gone", because="it was unplugged", fix="none")

    with vf.register() as register:
        register.sample()
        monkeypatch.setattr(Copy, "config_read", refuse)
        assert register.read(0x45, 2) == (b"", "vfio")


def test_all_fields_of_a_capability_are_one_access(
    sysfs: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On an emulated host an access costs as much as everything else; without any there is none."""
    vf, asked = Described(sysfs), []
    pread = os.pread

    def counted(descriptor: int, length: int, offset: int) -> bytes:
        asked.append((offset, length))
        return pread(descriptor, length, offset)

    monkeypatch.setattr(os, "pread", counted)
    for capabilities, expected in ([STATUS], {(4, 2), (0x45, 2)}), ([], {(4, 2)}):
        asked.clear()
        summary, _ = run(vf, *[nothing] * 10, capabilities=capabilities)
        assert set(asked) == expected
        described = [each for each in asked if each == (0x45, 2)]
        assert len(described) == summary["samples"] * len(capabilities)


def test_registers_beyond_the_end_are_told_before_it_starts(sysfs: Path) -> None:
    """They would look like those of a VF that is gone, for ever."""
    vf, beyond = Described(sysfs), {"name": "status", "offset": 0x4F, "length": 2}
    with pytest.raises(AgentError, match="capability status: its registers, 2 bytes at 0x4f"):
        run(vf, capabilities=[beyond])


def test_what_a_change_of_bme_sets_off_does_not_wait_for_registers(
    sysfs: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A filter that is moved later loses frames meanwhile."""
    vf, order = Described(sysfs), []

    def noted(owner: type, method: str) -> None:
        real = getattr(owner, method)

        def note(*args: object) -> None:
            order.append(method)
            real(*args)

        monkeypatch.setattr(owner, method, note)

    noted(observer.Trigger, "see")
    noted(Registers, "look")
    run(vf, lambda: vf.set(OFF))
    assert order == ["look", "see", "look", "see", "look"]
