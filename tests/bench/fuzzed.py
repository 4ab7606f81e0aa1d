"""Messages that are almost right, at the rate that one server answers: none may end the server."""

from __future__ import annotations

from collections.abc import Callable

from fuzz.counted import Counted

from bench.rows import Row

HOSTILE, SEED = 1_000_000, 1


def fuzzed(
    what: str, program: str, fuzz: Callable[..., Counted], say: Callable[[str], None]
) -> Row:
    """Send HOSTILE messages by *fuzz*, which is that of *program* in tests/fuzz."""
    say(f"{HOSTILE} hostile messages, {program}")
    counted = fuzz(messages=HOSTILE, seed=SEED)
    refused = sum(count for error, count in counted.replies.items() if error)
    return Row(
        f"hostile messages to {what}",
        f"{counted.messages}, {refused} refused in words of the protocol, no dead server; "
        f"{counted.messages / counted.seconds:.0f} a second",
        "1000000, no dead server",
        f"`tests/fuzz/{program}`, seed {SEED}; {counted.connections} clients, "
        f"{counted.dma_by_message} accesses by message, {counted.frames} frames and "
        f"{counted.lines} control lines meanwhile",
    )
