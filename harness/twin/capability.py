"""What a twin is told of a capability that its topology describes."""

from __future__ import annotations

import json
from dataclasses import dataclass


@dataclass(frozen=True)
class Capability:
    """A capability whose *length* bytes of registers, from *offset* on, are noted as they change.

    Those of an invented one, which a VF has only since it was described, can be written and do
    nothing: *id* is what the list of capabilities calls it, *at* where it begins, and *writable*
    says (offset, bytes) of each register.  All offsets are those of configuration space.
    """

    name: str
    offset: int
    length: int
    id: int = 0
    at: int = 0
    writable: tuple[tuple[int, int], ...] = ()

    @classmethod
    def parse(cls, text: str) -> Capability:
        """Read one from JSON, its attributes by their names.  Raises ValueError or TypeError."""
        return cls(**json.loads(text))
