"""A clock whose time passes when a test says so: a busy machine does not change what is seen."""

from __future__ import annotations

from types import ModuleType
from typing import Self

import pytest


class HandClock:
    """Stands for the module ``time`` in the modules that it is given to."""

    def __init__(self) -> None:
        self._now_ns = 10**12
        self.wall_ahead_ns = 10**18

    @classmethod
    def of(cls, monkeypatch: pytest.MonkeyPatch, *modules: ModuleType) -> Self:
        """Make one that *modules* go by until the test ends."""
        clock = cls()
        for module in modules:
            monkeypatch.setattr(module, "time", clock)
        return clock

    def monotonic_ns(self) -> int:
        return self._now_ns

    def monotonic(self) -> float:
        return self._now_ns / 1e9

    def time_ns(self) -> int:
        return self._now_ns + self.wall_ahead_ns

    def go_on(self, seconds: float) -> None:
        """Let so much time pass, and a nanosecond for what the fraction loses."""
        self._now_ns += int(seconds * 1e9) + 1
