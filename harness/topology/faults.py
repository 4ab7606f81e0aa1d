"""One thing wrong in a topology, as every check tells it."""

from __future__ import annotations

from dataclasses import dataclass

from harness.topology.places import dotted

Key = tuple[str | int, ...]


@dataclass(frozen=True, slots=True)
class Fault:
    """One thing wrong in a topology: under which key, what is there, what was expected."""

    key: Key
    wrong: str
    expected: str

    def __str__(self) -> str:
        return f"{dotted(self.key)} {self.wrong}; expected: {self.expected}"
