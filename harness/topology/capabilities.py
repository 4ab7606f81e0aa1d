"""Capabilities of a VF's configuration space whose registers are watched, and what is wrong there.

A patched QEMU or driver may invent one to talk to the other; a topology says where its registers
are and what their values mean, and each change of one is put on the timeline of a migration.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Annotated, Literal

from pydantic import Field

from harness.topology.connection import Entry
from harness.topology.faults import Fault, Key
from harness.topology.places import dotted
from harness.topology.values import RegisterName
from harness.uapi.ixgbe_vf import FREE
from harness.uapi.pci_regs import Size

BYTES = int(Size.CFG_SPACE_EXP_SIZE)

_HEADER_BYTES = 2
"""Of a capability: its ID, and where the next one is."""

_Offset = Annotated[int, Field(strict=True, ge=0, lt=BYTES)]
_Value = Annotated[
    int,
    Field(
        strict=True,
        ge=0,
        lt=1 << 32,
        description="number that the field then has, as unsigned and little-endian",
        examples=[1],
    ),
]


class FieldEntry(Entry):
    """A register of a capability: ``[capabilities.<capability>.fields.<field>]``."""

    offset: _Offset = Field(
        description="where it begins, in bytes from that of the capability, 0x000 to 0xfff",
        examples=[6],
    )
    bytes: Literal[1, 2, 4] = Field(
        description="how long it is, 1, 2 or 4; little-endian", examples=[1]
    )
    values: dict[RegisterName, _Value] = Field(
        default_factory=dict,
        description="table of names for its values; another value is shown as a number",
        examples=["[capabilities.migration.fields.VF_STATUS.values]"],
    )

    @property
    def end(self) -> int:
        """The byte after it, from the beginning of the capability."""
        return self.offset + self.bytes

    def name_of(self, value: int) -> str:
        """The value's name; of one without, the number in all its hexadecimal digits."""
        number = f"{value:#0{2 + 2 * self.bytes}x}"
        return next((name for name, each in self.values.items() if each == value), number)


class CapabilityEntry(Entry):
    """A capability of the lab's VFs: ``[capabilities.<capability>]``."""

    offset: _Offset = Field(
        description="where it begins in the VF's configuration space, 0x000 to 0xfff, "
        "as `lspci -vv` shows in brackets",
        examples=[0x70],
    )
    fields: dict[RegisterName, FieldEntry] = Field(
        min_length=1,
        description="table for each of its registers that is watched",
        examples=["[capabilities.migration.fields.VF_STATUS]"],
    )
    twin_id: Annotated[int, Field(strict=True, ge=1, le=0xFF)] | None = Field(
        default=None,
        description="capability ID, 0x01 to 0xff, for twins to have it, with fields that the guest "
        "can write and that do nothing; without it they have what is there anyway",
        examples=[0x14],
    )

    @property
    def span(self) -> tuple[int, int]:
        """Where in configuration space its fields begin, and how many bytes it is to their end."""
        first = min(field.offset for field in self.fields.values())
        return self.offset + first, max(field.end for field in self.fields.values()) - first

    def written(self, field: str, value: str) -> tuple[int, bytes]:
        """Where in configuration space what has to be written for the *value* of that name."""
        entry = self.fields[field]
        return self.offset + entry.offset, entry.values[value].to_bytes(entry.bytes, "little")


Capabilities = Mapping[str, CapabilityEntry]


def faults_of_capabilities(found: Mapping[str, CapabilityEntry | None]) -> Iterator[Fault]:
    """Tell what does not fit together in the capabilities that are sound by themselves."""
    sound = {name: entry for name, entry in found.items() if entry is not None}
    taken: dict[int, Key] = {}
    for name, entry in sound.items():
        for field_name, field in entry.fields.items():
            key: Key = ("capabilities", name, "fields", field_name)
            yield from _place(key, entry, field, taken)
            yield from _values(key, field)
    yield from _offered(sound)


def _place(
    key: Key, entry: CapabilityEntry, field: FieldEntry, taken: dict[int, Key]
) -> Iterator[Fault]:
    """Each byte of configuration space is part of one field; *taken* has those of all before."""
    begin, end = entry.offset + field.offset, entry.offset + field.end
    if end > BYTES:
        yield Fault(
            (*key, "offset"),
            f"is {field.offset:#x}, so that it ends at {end:#x}",
            f"an end by {BYTES:#x}, where configuration space ends",
        )
    other = next((taken[at] for at in range(begin, end) if at in taken), None)
    if other is not None:
        yield Fault(
            (*key, "offset"),
            f"is {field.offset:#x}, so that it overlaps {dotted(other)}",
            "each byte in one field only; leave one of the two out",
        )
    for at in range(begin, end):
        taken.setdefault(at, key)


def _values(key: Key, field: FieldEntry) -> Iterator[Fault]:
    seen: dict[int, str] = {}
    for name, value in field.values.items():
        if value >= 1 << 8 * field.bytes:
            yield Fault(
                (*key, "values", name),
                f"is {value:#x}, more than the field's {field.bytes} bytes hold",
                "a number that fits, or a longer field",
            )
        if value in seen:
            yield Fault(
                (*key, "values", name), f"is {value:#x}, as {seen[value]} is", "one name a value"
            )
        seen.setdefault(value, name)


def _offered(sound: Capabilities) -> Iterator[Fault]:
    """Room for what twins are to have: among what they have anyway, and beside each other."""
    blocks: dict[str, range] = {}
    for name, entry in sound.items():
        if entry.twin_id is None:
            continue
        key = ("capabilities", name)
        block = range(entry.offset, sum(entry.span))
        if block.start % 4 or not any(block[0] in room and block[-1] in room for room in FREE):
            rooms = ", ".join(f"{room.start:#x} to {room[-1]:#x}" for room in FREE)
            yield Fault(
                (*key, "offset"),
                f"is {entry.offset:#x}, where twins have no room for {len(block)} bytes",
                f"a multiple of 4 in one of {rooms}, or no twin_id",
            )
        for field_name, field in entry.fields.items():
            if field.offset < _HEADER_BYTES:
                yield Fault(
                    (*key, "fields", field_name, "offset"),
                    f"is {field.offset:#x}, where a twin's capability has its ID and its link",
                    f"{_HEADER_BYTES} or more, or no twin_id",
                )
        for other, taken in blocks.items():
            if block.start < taken.stop and taken.start < block.stop:
                yield Fault(
                    (*key, "offset"),
                    f"is {entry.offset:#x}, within the twins' {other}",
                    f"{taken.stop + -taken.stop % 4:#x} or more",
                )
        blocks[name] = block
