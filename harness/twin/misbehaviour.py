"""What a twin can be told to do wrong: each is a fault that some check has to find."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from harness.twin.config_space import ConfigSpace


@dataclass
class Misbehaviour:
    """The faults of DMA; a twin that was told nothing has none.

    *ignores_bme*: the device goes on with its DMA while Bus Master Enable is clear.  *late_ns*:
    frames get into memory so much later, whatever has become of BME and the ring since.
    *corrupts*: so many of the next frames have one wrong byte.
    """

    config: ConfigSpace
    ignores_bme: bool = False
    late_ns: int = 0
    corrupts: int = 0
    _is_overdue: bool = False

    @property
    def is_open(self) -> bool:
        """Whether the device takes the bus for its own."""
        return self.config.masters_bus or self.ignores_bme or self._is_overdue

    @contextmanager
    def overdue(self) -> Iterator[None]:
        """Take the bus for writes that should have been made before."""
        self._is_overdue = True
        try:
            yield
        finally:
            self._is_overdue = False

    @property
    def is_rightly_open(self) -> bool:
        """Whether it is."""
        return self.config.masters_bus

    def frame(self, frame: memoryview) -> memoryview:
        """The frame as it gets into memory."""
        if not self.corrupts:
            return frame
        self.corrupts -= 1
        wrong = bytearray(frame)
        wrong[-1] ^= 0xFF
        return memoryview(wrong)
