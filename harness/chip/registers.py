"""BAR 0 of a port leads each offset to the module that claimed the offset."""

from __future__ import annotations

from collections.abc import Callable

from harness.uapi.ixgbe_pf import ALIASES, Row

Read = Callable[[], int]
Write = Callable[[int], None]


class Registers:
    """The registers of a port; those that nobody claimed hold what was written.

    Values are 32 bits.  A register that nobody claimed and nobody wrote reads as 0.
    """

    def __init__(self) -> None:
        self._readers: dict[int, Read] = {}
        self._writers: dict[int, Write] = {}
        self._defaults: dict[int, int] = {}
        self._values: dict[int, int] = {}

    def read(self, offset: int) -> int:
        """Return what the driver reads at *offset*."""
        offset = ALIASES.get(offset, offset)
        reader = self._readers.get(offset)
        return reader() if reader else self._values.get(offset, 0)

    def write(self, offset: int, value: int) -> None:
        """Do what a write of the driver's to *offset* does."""
        offset = ALIASES.get(offset, offset)
        writer = self._writers.get(offset)
        if writer:
            writer(value)
        else:
            self._values[offset] = value

    def held(self, offset: int) -> int:
        """Return the value that was written last, or the default, whoever claimed *offset*."""
        return self._values.get(offset, 0)

    def hold(self, offset: int, value: int) -> None:
        """Set the value that `held` returns."""
        self._values[offset] = value

    def default(self, offset: int, value: int) -> None:
        """Give a register the value that it has after each reset, and now."""
        self._defaults[offset] = self._values[offset] = value

    def claim(self, offset: int, read: Read | None = None, write: Write | None = None) -> None:
        """Let a module answer at *offset*; else the register holds its value."""
        if read:
            self._readers[offset] = read
        if write:
            self._writers[offset] = write

    def claim_row(
        self,
        row: Row,
        read: Callable[[int], int] | None = None,
        write: Callable[[int, int], None] | None = None,
    ) -> None:
        """Let a module answer for a row; the module is told a register's number in the row."""
        for index in range(row.count):
            self.claim(
                row.at(index),
                None if read is None else _read_of(read, index),
                None if write is None else _write_of(write, index),
            )

    def reset(self) -> None:
        """Put every held value back to its default, as a reset of the port does."""
        self._values = dict(self._defaults)


def _read_of(read: Callable[[int], int], index: int) -> Read:
    return lambda: read(index)


def _write_of(write: Callable[[int, int], None], index: int) -> Write:
    return lambda value: write(index, value)
