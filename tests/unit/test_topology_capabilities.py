"""Capabilities that a topology describes: what is refused, and what is made of the others."""

from __future__ import annotations

from pathlib import Path

import pytest
from test_topology import line_of, refusal, spoilt

from harness.topology import TOPOLOGIES, CapabilityEntry, FieldEntry, find, load

OFFSET = "offset = 2\nbytes = 2"
VALUES = "values = { OFF = 0x0002, ON = 0x8002, MASKED = 0xc002 }"
CONTROL = "capabilities.msix.fields.CONTROL"


def another(*lines: str, offset: int, name: str = "other") -> str:
    """What follows VALUES if there is a second capability, whose only field is there."""
    field = f"[capabilities.{name}.fields.X]\noffset = {offset} # X\nbytes = 1"
    return "\n".join([f"{VALUES}\n\n[capabilities.{name}] # {name}", *lines, field])


SLIPS = [
    # (what is replaced, by what, text on the line that is told, key, what the message must say)
    ("offset = 0x70", "offset = 0x1000", "0x1000", "capabilities.msix.offset", "0x000 to 0xfff"),
    ("offset = 0x70", "offset = 0xffd", "offset = 2", f"{CONTROL}.offset", "an end by 0x1000"),
    (OFFSET, "offset = 2\nbytes = 3", "bytes = 3", f"{CONTROL}.bytes", "1, 2 or 4"),
    (f"2\n{VALUES}", "1\nvalues = { ON = 0x100 }", "0x100", f"{CONTROL}.values.ON",
     "a longer field"),
    (VALUES, "values = { A = 1, B = 1 }", "A = 1", f"{CONTROL}.values.B", "one name a value"),
    (VALUES, "values = { A = -1 }", "A = -1", f"{CONTROL}.values.A", "number that the field"),
    (VALUES, 'values = { "1A" = 1 }', "1A", f"{CONTROL}.values.1A", "such as VF_STATUS"),
    (VALUES, "size = 2", "size = 2", f"{CONTROL}.size", "bytes, offset, values"),
    (f"[{CONTROL}]\n{OFFSET}\n{VALUES}", "fields = {}", "fields =", "capabilities.msix.fields",
     "table for each of its registers"),
    (VALUES, another("offset = 0x72", offset=1), "1 # X", "capabilities.other.fields.X.offset",
     "each byte in one field only"),
    (VALUES, another("offset = 0x72", "twin_id = 20", offset=2), "0x72",
     "capabilities.other.offset", "a multiple of 4 in one of 0x40 to 0x6f, 0x7c to 0x9f"),
    (VALUES, another("offset = 0x40", "twin_id = 0x100", offset=2), "0x100",
     "capabilities.other.twin_id", "0xff"),
    (VALUES, another("offset = 0x9c", "twin_id = 20", offset=4), "0x9c",
     "capabilities.other.offset", "a multiple of 4 in one of"),
    (VALUES, another("offset = 0x42", "twin_id = 20", offset=4), "0x42",
     "capabilities.other.offset", "a multiple of 4"),
    (VALUES, another("offset = 0x100", "twin_id = 20", offset=4), "0x100",
     "capabilities.other.offset", "or no twin_id"),
    (VALUES, another("offset = 0x40", "twin_id = 20", offset=1), "1 # X",
     "capabilities.other.fields.X.offset", "2 or more"),
    (VALUES, another("offset = 0x40", "twin_id = 20", offset=8)
     + another("offset = 0x44", "twin_id = 21", offset=8, name="third").removeprefix(VALUES),
     "0x44", "capabilities.third.offset", "0x4c or more"),
]  # fmt: skip


@pytest.mark.parametrize(
    ("old", "new", "at", "key", "expected"), SLIPS, ids=[f"{slip[3]}-{slip[4]}" for slip in SLIPS]
)
def test_a_fault_is_told_with_its_line_key_and_what_was_expected(
    tmp_path: Path, old: str, new: str, at: str, key: str, expected: str
) -> None:
    """A register that is read in the wrong place looks like one that never changes."""
    path = spoilt(tmp_path, (old, new))
    told = refusal(path)
    assert f": 1 fault in this topology\n    {path}:{line_of(at, path.read_text())}: {key} " in told
    assert expected in told


@pytest.mark.parametrize("twice", [f"[{CONTROL}]", "[capabilities.msix]"])
def test_a_name_is_given_once(tmp_path: Path, twice: str) -> None:
    """TOML itself does not let a table be there twice."""
    path = spoilt(tmp_path, (VALUES, f"{VALUES}\n{twice} # again"))
    assert f"{path}:{line_of('# again', path.read_text())}: is not TOML" in refusal(path)


def test_the_same_name_for_two_values_is_refused_too(tmp_path: Path) -> None:
    path = spoilt(tmp_path, (VALUES, "values = { A = 1, A = 2 }"))
    assert f"{path}:{line_of('A = 1', path.read_text())}: is not TOML" in refusal(path)


def test_registers_may_lie_anywhere_where_no_twin_has_to_have_them(tmp_path: Path) -> None:
    """The igb VF of 2026 has an extended capability (DVSEC) at 0x160."""
    described = another("offset = 0x160", offset=0x14).replace("bytes = 1", "bytes = 4")
    lab = load(spoilt(tmp_path, (VALUES, described)))
    assert lab.capabilities["other"].span == (0x174, 4)
    assert lab.capabilities["msix"].span == (0x72, 2)


def test_what_is_read_at_once_is_from_the_first_field_to_the_last() -> None:
    """In whatever order they are described; nothing before or after is touched."""
    fields = {"B": FieldEntry(offset=8, bytes=4), "A": FieldEntry(offset=5, bytes=1)}
    assert CapabilityEntry(offset=0x40, fields=fields).span == (0x45, 7)


def test_a_value_is_written_as_its_name_or_as_wide_as_its_field() -> None:
    migration = load(find("twin")).capabilities["migration"]
    status = migration.fields["VF_STATUS"]
    assert [status.name_of(value) for value in (0, 1, 2)] == [
        "WAIT_FOR_MIGRATION", "READY_FOR_MIGRATION", "0x02",
    ]  # fmt: skip
    assert migration.written("VF_STATUS", "READY_FOR_MIGRATION") == (0x46, b"\x01")
    assert FieldEntry(offset=0, bytes=4).name_of(0xABC) == "0x00000abc"


def test_the_worked_example_is_in_every_file_of_ours() -> None:
    """A test that reads the register on one kind of lab only says nothing of the other."""
    described = [load(path).capabilities["msix"] for path in sorted(TOPOLOGIES.glob("*.toml"))]
    assert len(described) >= 3
    assert all(each == described[0] for each in described)
