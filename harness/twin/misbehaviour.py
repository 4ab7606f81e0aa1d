"""What a twin can be told to do wrong: each is a fault that some check has to find."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Protocol

from harness.twin.dma_log import MISBEHAVED


class Mastering(Protocol):
    """A configuration space, as far as an access asks it."""

    @property
    def masters_bus(self) -> bool:
        """Whether Bus Master Enable is set."""


@dataclass
class Misbehaviour:
    """The faults of DMA; a twin that was told nothing has none.

    *ignores_bme*: the device goes on with its DMA while Bus Master Enable is clear.  *late_ns*:
    frames get into memory so much later, whatever has become of BME and the ring since.
    *corrupts*: so many of the next frames have one wrong byte.
    """

    config: Mastering
    ignores_bme: bool = False
    late_ns: int = 0
    corrupts: int = 0
    _is_overdue: bool = False
    _is_stale: bool = False

    @property
    def is_open(self) -> bool:
        """Whether the device takes the bus for its own."""
        return self.config.masters_bus or self.ignores_bme or self._is_overdue

    @contextmanager
    def overdue(self, *, stale: bool) -> Iterator[None]:
        """Take the bus for writes that should have been made before; *stale*: the ring has gone."""
        self._is_overdue, self._is_stale = True, stale
        try:
            yield
        finally:
            self._is_overdue = self._is_stale = False

    @property
    def misbehaved(self) -> int:
        """See ``memory.Gate``."""
        return 0 if self.config.masters_bus and not self._is_stale else MISBEHAVED

    def frame(self, frame: memoryview) -> memoryview:
        """The frame as it gets into memory."""
        if not self.corrupts:
            return frame
        self.corrupts -= 1
        wrong = bytearray(frame)
        wrong[-1] ^= 0xFF
        return memoryview(wrong)
