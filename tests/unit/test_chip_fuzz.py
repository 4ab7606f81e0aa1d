"""A short run of tests/fuzz/chip_server.py asserts and counts by itself."""

from __future__ import annotations

from errno import EINVAL, ENOSYS
from pathlib import Path

import pytest


def test_random_messages_over_port_and_vfs_do_no_harm(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(Path(__file__).parents[1])
    from fuzz.chip_server import fuzz

    counted = fuzz(messages=8_000, seed=82599)
    assert counted.messages >= 8_000
    assert {0, EINVAL, ENOSYS} <= set(counted.replies)
    assert counted.frames
    assert counted.dma_by_message
