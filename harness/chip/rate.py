"""A port limits how fast each of its transmit queues sends; its driver limits a VF by that.

Ref: Linux, ixgbe_sriov.c, ixgbe_set_vf_rate_limit; 82599 datasheet, "Transmit rate scheduler":
RTTDQSEL chooses a queue, RTTBCNRC holds its factor, link rate by wanted rate, in 2**14ths; and
RTTBCNRM's MMW_SIZE how many KiB a queue that was late may catch up.
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
    """These limits say when each of the chip's transmit queues may send its next frame.

    *link_mbit* says how fast the link is.  A queue that had to wait is sent from by `resume`, with
    *run*, which is given the queue's number.
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
        self._limits: dict[int, int] = {}  # what RTTBCNRC holds of each queue that has one
        self._free_ns = [0] * QUEUES
        self._waiting: set[int] = set()

    def may_send(self, queue: int) -> bool:
        """Say whether a frame of *queue* may leave now; where it may not, `resume` sees to it."""
        if queue not in self._limits or time.monotonic_ns() >= self._free_ns[queue]:
            return True
        self._waiting.add(queue)
        return False

    def sent(self, queue: int, length: int) -> None:
        """Note that a frame of *queue* left, of so many bytes without its checksum."""
        if queue in self._limits:
            catch_up = (self._registers.held(Register.RTTBCNRM) & _CATCH_UP_MASK) * _KIB
            since = time.monotonic_ns() - self._time_ns(queue, catch_up)
            took = self._time_ns(queue, length + CHECKSUM_BYTES)
            self._free_ns[queue] = max(self._free_ns[queue], since) + took

    def resume(self) -> float:
        """Send from each queue whose time has come.

        Return in how many seconds the next queue's time comes, 0 if no queue waits.
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
        """Return how long so many bytes take at the queue's rate."""
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
            self._free_ns[queue] = 0  # `resume` sends what waits for its time


class PoolRate:
    """A pool asks here for the limits of its own queues.

    *first* says which queue of the chip the pool's queue 0 is.
    """

    def __init__(self, limits: RateLimits, first: Callable[[], int]) -> None:
        self._limits = limits
        self._first = first

    def may_send(self, queue: int) -> bool:
        return self._limits.may_send((self._first() + queue) % QUEUES)

    def sent(self, queue: int, length: int) -> None:
        self._limits.sent((self._first() + queue) % QUEUES, length)
