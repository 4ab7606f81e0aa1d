"""What a twin says to those who run it: lines on its stderr, which its host keeps."""

from __future__ import annotations

import sys


def say(text: str) -> None:
    """Write one line."""
    sys.stderr.write(f"twin: {text}\n")
