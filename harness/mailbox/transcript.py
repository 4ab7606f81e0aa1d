"""A transcript has an entry for each step of a sequence: the replies to it, and what it changed.

An entry is an object of JSON::

    {"step": "say SET_VLAN info=1 0x5", "reply": "a4010004 5", "changed": {"vlans": [0, 5]}}

*reply* is the port's reply: the words of the mailbox in hexadecimal, without the zeros at their
end, or ``none`` if no reply came.  *after* is the word that the port says after the VF has
acknowledged the reply.  *told* is the first word of a message that the VF did not ask for.
*refused* is the error that the administrator got.  *changed* is the part of the state that
differs from the state after the step before; the entry of `BEGINNING` has the whole state.
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
"""A transcript has this word in place of the ten words of the port's key of RSS.

The driver chooses another key each time that the driver is started.
"""

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
    """Return *reply* as a transcript writes it, with RSS_KEY in place of the words of *key*."""
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
        """Add the entry of *step*; a value of *came* that is None is left out of the entry."""
        entry: Entry = {"step": step}
        entry.update({name: value for name, value in came.items() if value is not None})
        changed = {name: value for name, value in state.items() if self._state.get(name) != value}
        if changed:
            entry["changed"] = changed
        self._state = state
        self.entries.append(entry)


def differences(real: Sequence[Entry], ours: Sequence[Entry]) -> Iterator[str]:
    """Yield a sentence for each difference between the driver's entries and the model's.

    *real* are the driver's entries and *ours* the model's, each in the order of the steps.
    """
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
