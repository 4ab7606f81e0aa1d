"""A lab that a run has started ends with the run, unless the run keeps it."""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest

from harness.lab import use
from harness.topology import find, load


@pytest.mark.parametrize(
    ("keeps", "told"),
    [
        (None, ["up, ends with us", "used", "down"]),
        (lambda: False, ["up, outlives us", "used", "down"]),
        (lambda: True, ["up, outlives us", "used"]),
    ],
)
def test_a_started_lab_is_ended_unless_it_is_kept(
    keeps: Callable[[], bool] | None, told: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """One that is left up by mistake has the machine's memory until somebody notices."""
    done: list[str] = []

    def up(topology: Any, _: object, *, dies_with_us: bool) -> Any:
        done.append("up, ends with us" if dies_with_us else "up, outlives us")
        return topology

    made_up = SimpleNamespace(
        status=lambda _: SimpleNamespace(is_up=False),
        up=up,
        running_image=lambda _: None,
        down=lambda _: done.append("down"),
    )
    monkeypatch.setattr(use, "emulated", made_up)
    monkeypatch.setattr(use, "check_root", lambda: None)
    monkeypatch.setattr(use, "_guest_of", lambda *_: None)
    with use.ready(load(find("emulated")), print, keeps=keeps):
        done.append("used")
    assert done == told
