"""A few lines of a timeline, for a person who wants to see what a sentence is about."""

from __future__ import annotations

from collections.abc import Iterable

from harness.analysis.measured import Measured

BESIDE = 2
"""How many entries are shown before and after each moment."""

LEFT_OUT = "    ..."


def excerpt(measured: Measured, moments_ns: Iterable[int]) -> tuple[str, ...]:
    """Lines of the timeline around *moments_ns* (the peer's clock), in order of time.

    Times count from when the migration was asked for, each give or take its uncertainty; what is
    left out between two of them is a line of its own.
    """
    entries = [(e.t_ns, e.uncertainty_ns, e.source, e.name) for e in measured.events]
    entries += [
        (s.t_ns, s.uncertainty_ns, f"bme:{s.host}", f"{s.vf} COMMAND {s.command:#06x}, by {s.via}")
        for s in measured.bme
    ]
    entries.sort()
    shown: set[int] = set()
    for moment_ns in moments_ns:
        earlier = sum(t_ns < moment_ns for t_ns, *_ in entries)
        at = sum(t_ns == moment_ns for t_ns, *_ in entries)
        shown.update(range(max(earlier - BESIDE, 0), earlier + at + BESIDE))
    lines, previous = [], None
    for number in sorted(shown & set(range(len(entries)))):
        if previous is not None and number != previous + 1:
            lines.append(LEFT_OUT)
        t_ns, uncertainty_ns, source, name = entries[number]
        at_ms = (t_ns - measured.asked_ns) / 1e6
        lines.append(f"{at_ms:+12.1f} ms ±{uncertainty_ns / 1e6:<5.1f} {source:16} {name}")
        previous = number
    return tuple(lines)
