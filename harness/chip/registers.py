"""BAR 0 of a port leads each access to the module that claimed the offset."""

from __future__ import annotations

from collections.abc import Callable

from harness.uapi.ixgbe_pf import ALIASES, Row

MASK_32 = (1 << 32) - 1
"""A register has 32 bits."""

Read = Callable[[], int]
Write = Callable[[int], None]


class Registers:
    """A port's registers have 32 bits each; a register that no module claimed holds its value.

    A register without a default that nobody wrote reads as 0.  *offset* is in bytes.
    """

    def __init__(self) -> None:
        self._readers: dict[int, Read] = {}
        self._writers: dict[int, Write] = {}
        self._defaults: dict[int, int] = {}
        self._values: dict[int, int] = {}

    def read(self, offset: int) -> int:
        """Return the value that the driver reads at *offset*."""
        offset = ALIASES.get(offset, offset)
        reader = self._readers.get(offset)
        return reader() if reader else self._values.get(offset, 0)

    def write(self, offset: int, value: int) -> None:
        """Do what the driver's write of *value* to *offset* does."""
        offset = ALIASES.get(offset, offset)
        writer = self._writers.get(offset)
        if writer:
            writer(value)
        else:
            self._values[offset] = value

    def held(self, offset: int) -> int:
        """Return the value that the register at *offset* holds, whether claimed or not."""
        return self._values.get(offset, 0)

    def hold(self, offset: int, value: int) -> None:
        """Set the value that the register at *offset* holds; no module learns of that."""
        self._values[offset] = value

    def default(self, offset: int, value: int) -> None:
        """Let the register at *offset* hold *value* now and after each reset."""
        self._defaults[offset] = self._values[offset] = value

    def claim(self, offset: int, read: Read | None = None, write: Write | None = None) -> None:
        """Let *read* answer the driver's reads at *offset*, and *write* take the driver's writes.

        Without *read*, a read returns the value that the register holds.  Without *write*, a write
        sets that value.
        """
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
        """Claim every register of *row*; the module gets the register's number in the row."""
        for index in range(row.count):
            self.claim(
                row.at(index),
                None if read is None else _read_of(read, index),
                None if write is None else _write_of(write, index),
            )

    def reset(self) -> None:
        """Let every register hold its default again, as a reset of the port does."""
        self._values = dict(self._defaults)


def _read_of(read: Callable[[int], int], index: int) -> Read:
    return lambda: read(index)


def _write_of(write: Callable[[int, int], None], index: int) -> Write:
    return lambda value: write(index, value)
