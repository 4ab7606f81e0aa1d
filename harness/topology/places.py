"""Where a key stands in a TOML file: the standard library's reader does not say."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

_BARE = re.compile(r"[A-Za-z0-9_-]+")
_HEADER = re.compile(r"\s*(\[\[?)([^\[\]]+)\]\]?\s*(?:#.*)?$")
_KEY = re.compile(r"""\s*((?:[A-Za-z0-9_.\s-]|"[^"]*"|'[^']*')+?)\s*=""")
_PART = re.compile(r""""([^"]*)"|'([^']*)'|([A-Za-z0-9_-]+)""")

Key = Sequence[str | int]


def dotted(key: Key) -> str:
    """Write a key as it is spoken of: ``hosts.alder.ports.p0.pci``, ``links[0].ends``."""
    return "".join(map(_spoken, key)).removeprefix(".")


def _spoken(part: str | int) -> str:
    if isinstance(part, int):
        return f"[{part}]"
    return f".{part}" if _BARE.fullmatch(part) else f'."{part}"'


@dataclass(frozen=True, slots=True)
class Places:
    """The line of each key of one file.

    The file is read line by line, not parsed: a key inside a multi-line string would be taken for
    a key.  A line is a help to the reader and decides nothing.
    """

    file: str
    lines: dict[tuple[str, ...], int]

    @classmethod
    def of(cls, file: str, text: str) -> Places:
        lines: dict[tuple[str, ...], int] = {}
        table: tuple[str, ...] = ()
        repeats: Counter[tuple[str, ...]] = Counter()
        for number, line in enumerate(text.splitlines(), start=1):
            key = table
            if header := _HEADER.match(line):
                key = table = _parts(header[2])
                if header[1] == "[[":
                    repeats[table] += 1
                    key = table = (*table, str(repeats[table] - 1))
            elif assigned := _KEY.match(line):
                key = (*table, *_parts(assigned[1]))
            for end in range(1, len(key) + 1):
                lines.setdefault(key[:end], number)
        return cls(file, lines)

    def line(self, key: Key) -> int | None:
        """Give the line of *key*, or else of the innermost table around it, if there is one."""
        names = tuple(str(part) for part in key)
        for end in range(len(names), 0, -1):
            if names[:end] in self.lines:
                return self.lines[names[:end]]
        return None

    def place(self, key: Key) -> str:
        """Write ``file:line``, or the file alone where no line is known."""
        line = self.line(key)
        return self.file if line is None else f"{self.file}:{line}"


def _parts(text: str) -> tuple[str, ...]:
    return tuple(match[1] or match[2] or match[3] or "" for match in _PART.finditer(text))
