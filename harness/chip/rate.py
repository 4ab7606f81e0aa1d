"""A port limits the rate of its transmit queues, and ixgbe limits a VF by the VF's queues.

The driver selects a queue by RTTDQSEL.  RTTBCNRC then holds the factor of that queue: the link's
rate divided by the wanted rate, times 2**14.  A queue that fell behind its rate may catch up by as
many KiB as MMW_SIZE of RTTBCNRM says.  Ref: 82599 datasheet, "Transmit rate scheduler"; Linux,
ixgbe_sriov.c, ixgbe_set_vf_rate_limit.
"""

from __future__ import annotations

import time
from collections.abc import Callable

from harness.chip.registers import Registers
from harness.uapi.ixgbe_pf import (
    QUEUES,
    RTTBCNRC_RF_INT_SHIFT,
    RTTBCNRC_RF_MASK,
    RTTBCNRC_RS_ENA,
    Register,
)
from harness.uapi.ixgbe_vf import CHECKSUM_BYTES

_UNIT = 1 << RTTBCNRC_RF_INT_SHIFT
_CATCH_UP_MASK = 0x3FF
_KIB = 1024


class RateLimits:
    """The limits say when each of the port's 128 transmit queues may send its next frame.

    *link_mbit* returns the speed of the link in Mbit/s.  `resume` calls *run* with the number of a
    queue that had to wait, and *run* sends the queue's frames.
    """

    def __init__(
        self, registers: Registers, link_mbit: Callable[[], int], run: Callable[[int], None]
    ) -> None:
        self._registers = registers
        self._link_mbit = link_mbit
        self._run = run
        self.clear()
        registers.claim(Register.RTTBCNRC, self._read, self._write)

    def clear(self) -> None:
        """Take every limit away, as a reset of the port does."""
        self._limits: dict[int, int] = {}  # RTTBCNRC of each queue that has a limit
        self._free_ns = [0] * QUEUES
        self._waiting: set[int] = set()

    def may_send(self, queue: int) -> bool:
        """Say whether *queue* may send a frame now; if not, `resume` runs the queue later."""
        if queue not in self._limits or time.monotonic_ns() >= self._free_ns[queue]:
            return True
        self._waiting.add(queue)
        return False

    def sent(self, queue: int, length: int) -> None:
        """Note that *queue* sent a frame of *length* bytes, without its checksum."""
        if queue in self._limits:
            catch_up = (self._registers.held(Register.RTTBCNRM) & _CATCH_UP_MASK) * _KIB
            since = time.monotonic_ns() - self._time_ns(queue, catch_up)
            took = self._time_ns(queue, length + CHECKSUM_BYTES)
            self._free_ns[queue] = max(self._free_ns[queue], since) + took

    def resume(self) -> float:
        """Run each queue that had to wait and may send now.

        Return in how many seconds the next queue may send, 0 if no queue waits.
        """
        now = time.monotonic_ns()
        for queue in [each for each in self._waiting if self._free_ns[each] <= now]:
            self._waiting.discard(queue)
            self._run(queue)
        if not self._waiting:
            return 0.0
        first = min(self._free_ns[queue] for queue in self._waiting)
        return max(first - time.monotonic_ns(), 1) / 1e9

    def _time_ns(self, queue: int, length: int) -> int:
        """Return how many ns a frame of *length* bytes takes at the rate of *queue*."""
        factor = self._limits[queue] & RTTBCNRC_RF_MASK
        return length * 8 * 1000 * factor // (self._link_mbit() * _UNIT)

    def _selected(self) -> int:
        return self._registers.held(Register.RTTDQSEL) % QUEUES

    def _read(self) -> int:
        return self._limits.get(self._selected(), 0)

    def _write(self, value: int) -> None:
        queue = self._selected()
        if value & RTTBCNRC_RS_ENA:
            self._limits[queue] = value
        elif self._limits.pop(queue, None) is not None:
            self._free_ns[queue] = 0  # a queue that waits may send at once


class PoolRate:
    """A VF numbers its queues from 0, and asks here for their *limits*.

    *first* returns the number that the VF's queue 0 has on the port.
    """

    def __init__(self, limits: RateLimits, first: Callable[[], int]) -> None:
        self._limits = limits
        self._first = first

    def may_send(self, queue: int) -> bool:
        return self._limits.may_send((self._first() + queue) % QUEUES)

    def sent(self, queue: int, length: int) -> None:
        self._limits.sent((self._first() + queue) % QUEUES, length)
