"""Root can have ixgbe read the registers of its port, through debugfs.

The driver writes each value to the kernel's log, and nowhere else.  Ref: Linux 6.12,
drivers/net/ethernet/intel/ixgbe/ixgbe_debugfs.c, ixgbe_dbg_reg_ops_write.
"""

from __future__ import annotations

import os
import re
import time
from contextlib import ExitStack
from typing import final

from harness.agent.errors import AgentError

DRIVER = "/sys/kernel/debug/ixgbe"
"""Each port that ixgbe drives has a folder here; debugfs has to be mounted."""

_AT_ONCE = 64  # so many lines are waited for together, before the log's ring overwrites them
_RECORD_BYTES = 8192
_SECONDS = 5.0
_PAUSE_SECONDS = 0.0005
_SAID = re.compile(rb"read 0x([0-9a-f]{8}) = 0x([0-9a-f]{8})$")


@final
class PortRegisters:
    """A port's registers can be read here; the port is at PCI *address*.

    A context manager.  Raises AgentError where debugfs or the kernel's log cannot be opened.
    """

    def __init__(self, address: str) -> None:
        self._address = address
        self._held = ExitStack()
        try:
            self._asked = self._open(f"{DRIVER}/{address}/reg_ops", os.O_WRONLY)
            self._log = self._open("/dev/kmsg", os.O_RDONLY | os.O_NONBLOCK)
        except OSError as error:
            self._held.close()
            raise AgentError(
                f"{address}: the registers of the port cannot be read: {error}",
                because="ixgbe shows them in debugfs, to root, where the kernel is not locked down",
                fix="`mount -t debugfs none /sys/kernel/debug`; see that ixgbe drives the port",
            ) from error

    def __enter__(self) -> PortRegisters:
        return self

    def __exit__(self, *exc: object) -> None:
        self._held.close()

    def read(self, offsets: list[int]) -> list[int]:
        """Read the registers at *offsets*, in bytes from the start of BAR 0; 32 bits each.

        Reading changes a register that is cleared by being read.  Raises AgentError where the log
        does not show every value within 5 s.
        """
        values: dict[int, int] = {}
        for first in range(0, len(offsets), _AT_ONCE):
            values.update(self._read_some(offsets[first : first + _AT_ONCE]))
        return [values[offset] for offset in offsets]

    def _read_some(self, offsets: list[int]) -> dict[int, int]:
        os.lseek(self._log, 0, os.SEEK_END)
        for offset in offsets:
            os.pwrite(self._asked, b"read %#x" % offset, 0)
        values: dict[int, int] = {}
        deadline = time.monotonic() + _SECONDS
        while not values.keys() >= set(offsets):
            record = self._next_line()
            if said := _SAID.search(record):
                values[int(said[1], 16)] = int(said[2], 16)
            elif time.monotonic() > deadline:
                raise AgentError(
                    f"{self._address}: ixgbe did not say what its registers hold",
                    because=f"of {len(offsets)} values {len(values)} came within {_SECONDS:g} s",
                    fix="see the host's kernel log: messages of level info must get into it",
                )
            elif not record:
                time.sleep(_PAUSE_SECONDS)
        return values

    def _next_line(self) -> bytes:
        """Return the text of the log's next record, or nothing while there is none."""
        try:
            record = os.read(self._log, _RECORD_BYTES)
        except (BlockingIOError, BrokenPipeError):  # nothing new; or the ring went round
            return b""
        return record.partition(b";")[2].partition(b"\n")[0]

    def _open(self, path: str, flags: int) -> int:
        descriptor = os.open(path, flags | os.O_CLOEXEC)
        self._held.callback(os.close, descriptor)
        return descriptor
