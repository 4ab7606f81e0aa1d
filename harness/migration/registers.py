"""Changes of a capability's registers, from the bytes that were recorded of it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

from harness.topology import Capabilities, CapabilityEntry


@dataclass(frozen=True, slots=True)
class RegisterChange:
    """A register that was found with another value, or the first time (*was* is None).

    *t_ns* and *gap_ns* are the observer's; *name* is the event's, *offset* in configuration space.
    """

    t_ns: int
    gap_ns: int
    vf: str
    name: str
    offset: int
    was: int | None
    now: int
    via: str


def changes(
    capabilities: Capabilities, lines: Iterable[dict[str, Any]]
) -> Iterator[RegisterChange]:
    """What an observer's *lines* (see ``agent.registers``) say of each register, in their order.

    A VF that is gone has no registers; one that comes back is seen for the first time.
    """
    seen: dict[str, bytes] = {}
    for line in lines:
        name, now = line["capability"], bytes.fromhex(line["bytes"])
        yield from _changed(name, capabilities[name], line, seen.get(name, b""), now)
        seen[name] = now


def _changed(
    capability: str, entry: CapabilityEntry, line: dict[str, Any], before: bytes, after: bytes
) -> Iterator[RegisterChange]:
    begin, _ = entry.span
    for name, field in entry.fields.items() if after else ():
        offset = entry.offset + field.offset
        part = slice(offset - begin, offset - begin + field.bytes)
        was, now = (int.from_bytes(each[part], "little") for each in (before, after))
        if was != now or not before:
            yield RegisterChange(
                line["t_ns"], line["gap_ns"], line["vf"], f"{capability}.{name} = "
                f"{field.name_of(now)}", offset, was if before else None, now, line["via"],
            )  # fmt: skip
