"""A VF in software writes down its own DMA, and misbehaves when it is told to."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Protocol


class Logged(Protocol):
    """A device that keeps a log of its own DMA."""

    @property
    def accesses(self) -> int | None:
        """The number of accesses to the guest's memory so far; None if the device keeps no log."""

    @property
    def clock_of(self) -> str:
        """Name of the machine in whose monotonic clock the log's times are."""

    def dma_log(self) -> bytes:
        """The file of the device's log, as ``harness.twin.dma_log`` lays it out."""


class SoftwareVf(Logged, Protocol):
    """A VF whose device is a program."""

    @property
    def cpu_s(self) -> float:
        """Processor time that the program has used; other VFs may be in the same program."""

    def misbehave(self, **faults: Any) -> None:
        """Be at fault from now on, in this way alone; good again without one.

        See ``harness.twin.control`` and ``harness.chip.control`` for the faults.
        """


@contextmanager
def misbehaving(device: SoftwareVf, **faults: Any) -> Iterator[None]:
    """Have *device* be at fault meanwhile."""
    try:
        device.misbehave(**faults)
        yield
    finally:
        device.misbehave()
