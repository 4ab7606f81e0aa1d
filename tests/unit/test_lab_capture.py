"""A capture says how many frames the kernel dropped, or that nobody knows."""

from __future__ import annotations

from pathlib import Path

import pytest

from harness.errors import LabError
from harness.lab import capture

ENDED = """\
1 packet captured
2 packets received by filter
{} dropped by kernel
"""


@pytest.mark.parametrize(("words", "dropped"), [("0 packets", 0), ("1 packet", 1)])
def test_dropped_frames_are_counted(words: str, dropped: int, tmp_path: Path) -> None:
    """A capture that lacks frames proves nothing of a sender that claims them."""
    log = tmp_path / "wire.log"
    log.write_text(ENDED.format(words))
    assert capture._dropped(log) == dropped


def test_a_tcpdump_that_was_killed_is_an_error_in_words(tmp_path: Path) -> None:
    log = tmp_path / "wire.log"
    log.write_text("listening on wire\n")
    with pytest.raises(LabError, match="how many frames its kernel dropped") as killed:
        capture._dropped(log)
    assert "listening on wire" in killed.value.because
