"""A twin and a chip write lines to stderr, which their host keeps in a log."""

from __future__ import annotations

import sys

_speaker = "twin"


def speak_as(name: str) -> None:
    """Begin every line of this process with *name* from now on."""
    global _speaker
    _speaker = name


def say(text: str) -> None:
    """Write one line."""
    sys.stderr.write(f"{_speaker}: {text}\n")
