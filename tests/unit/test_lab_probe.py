"""A lab tries QEMU's ways once, and keeps the result for every later start."""

from __future__ import annotations

from pathlib import Path

import pytest

from harness.lab.probe import SECOND, keep_ways, kept_ways


def test_what_was_kept_is_found(tmp_path: Path) -> None:
    assert kept_ways(tmp_path) is None
    keep_ways(tmp_path, SECOND)
    assert kept_ways(tmp_path) == SECOND


def test_what_was_half_written_is_not_found(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A start that is killed while it writes the file must not spoil all later starts."""

    def cut_off(path: Path, text: str) -> None:
        path.write_bytes(text.encode()[:5])
        raise KeyboardInterrupt

    monkeypatch.setattr(Path, "write_text", cut_off)
    with pytest.raises(KeyboardInterrupt):
        keep_ways(tmp_path, SECOND)
    assert kept_ways(tmp_path) is None
