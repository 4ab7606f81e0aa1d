"""What came of sequences that were played: replies and states, step by step, as JSON can hold them.

::

    {"step": "say SET_VLAN info=1 0x5", "reply": "a4010004 5", "changed": {"vlans": [0, 5]}}

*reply* has the words that the mailbox holds, in hex, without the zeros at their end; ``none`` where
nothing was said.  *after* is the word that the port said to the VF's acknowledgement, *told* what
it said unasked, *refused* what an administrator was told.  *changed* is what of the state is not as
it was a step before; it is the whole state after `BEGINNING`.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import zip_longest
from pathlib import Path
from typing import Any

from harness.mailbox.state import State
from harness.uapi.ixgbe_vf import RSS_KEY_BYTES

Entry = dict[str, Any]
RSS_KEY = "RSS-KEY"
"""Stands for the ten words of the port's key, which is another each time it is started."""

_KEY_WORDS = RSS_KEY_BYTES // 4


@dataclass(frozen=True, slots=True)
class Transcript:
    """Answers of one driver to the first VF of a port.

    *driver* says whose they are, and *vfs* how many VFs the port has.  *played* has the entries of
    each sequence by its name.
    """

    driver: str
    vfs: int
    played: Mapping[str, Sequence[Entry]]

    @classmethod
    def read(cls, path: Path) -> Transcript:
        content = json.loads(path.read_text())
        return cls(content["driver"], content["vfs"], content["sequences"])

    def write(self, path: Path) -> None:
        """Write it, an entry to a line."""
        sequences = ",\n".join(
            f" {json.dumps(name)}: [\n"
            + ",\n".join(f"  {json.dumps(entry)}" for entry in entries)
            + "\n ]"
            for name, entries in self.played.items()
        )
        head = f'"driver": {json.dumps(self.driver)}, "vfs": {self.vfs}'
        path.write_text(f'{{{head}, "sequences": {{\n{sequences}\n}}}}\n')


def words(reply: Sequence[int] | None, key: Sequence[int]) -> str:
    """Return a reply as it is written; where the whole *key* of RSS stands, its name does."""
    if reply is None:
        return "none"
    if any(key) and list(reply[1 : 1 + _KEY_WORDS]) == list(key):
        rest = [f"{word:x}" for word in reply[1 + _KEY_WORDS :]]
        shown = [f"{reply[0]:x}", RSS_KEY, *rest]
    else:
        shown = [f"{word:x}" for word in reply]
    while len(shown) > 1 and shown[-1] == "0":
        shown.pop()
    return " ".join(shown)


class Writer:
    """Collects the entries of one sequence; says of each state only what changed."""

    def __init__(self) -> None:
        self.entries: list[Entry] = []
        self._state: State = {}

    def add(self, step: str, state: State, **came: Any) -> None:
        """Add an entry; what *came* is left out where it is None."""
        entry: Entry = {"step": step}
        entry.update({name: value for name, value in came.items() if value is not None})
        changed = {name: value for name, value in state.items() if self._state.get(name) != value}
        if changed:
            entry["changed"] = changed
        self._state = state
        self.entries.append(entry)


def differences(real: Sequence[Entry], ours: Sequence[Entry]) -> Iterator[str]:
    """Yield in words where *ours* is another than *real*, step by step; nothing where it is not."""
    state: tuple[State, State] = {}, {}
    nothing: Entry = {}
    for number, (theirs, mine) in enumerate(zip_longest(real, ours, fillvalue=nothing)):
        step = theirs.get("step", mine.get("step"))
        for name in ("step", "reply", "after", "told", "refused"):
            if theirs.get(name) != mine.get(name):
                yield (
                    f"{number}. {step}: {name} is {theirs.get(name)!r} of the driver, "
                    f"{mine.get(name)!r} of the model"
                )
        for each, entry in zip(state, (theirs, mine), strict=True):
            each.update(entry.get("changed", {}))
        touched = {*theirs.get("changed", {}), *mine.get("changed", {})}
        for name in sorted(touched):
            if state[0].get(name) != state[1].get(name):
                yield (
                    f"{number}. {step}: {name} is {state[0].get(name)!r} at the driver's port, "
                    f"{state[1].get(name)!r} at the model's"
                )
