"""A fuzzing run counts what it sent, and a program of one prints the numbers."""

from __future__ import annotations

import argparse
import errno
import sys
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field


@dataclass
class Counted:
    """The numbers of one run; *replies* are by errno, with 0 for those without an error."""

    messages: int = 0
    connections: int = 0
    dma_by_message: int = 0
    frames: int = 0
    lines: int = 0
    seconds: float = 0.0
    replies: Counter[int] = field(default_factory=Counter)


def main(fuzz: Callable[..., Counted], description: str | None) -> int:
    """Call *fuzz* as the command line says, and print its numbers; the program's exit status."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--messages", type=int, default=1_000_000)
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    counted = fuzz(messages=options.messages, seed=options.seed)
    names = {0: "done", **errno.errorcode}
    replies = ", ".join(
        f"{names.get(error, error)} {count}" for error, count in counted.replies.most_common()
    )
    with suppress(BrokenPipeError):
        sys.stdout.write(
            f"{counted.messages} messages in {counted.seconds:.1f} s, "
            f"{counted.messages / counted.seconds:.0f} messages/s\n"
            f"{counted.connections} connections, {counted.dma_by_message} DMA by message, "
            f"{counted.frames} frames, {counted.lines} control lines\n"
            f"replies: {replies}\n"
        )
    return 0
