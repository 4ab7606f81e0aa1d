"""A port counts frames, bytes, and frames without a descriptor for groups of queues.

RQSMR and TQSM say which of 16 counters counts each queue.  A read clears a counter; a counter of
bytes has two registers, and a read of the upper register clears both.  Ref: 82599 datasheet,
"Statistics registers"; Linux, ixgbe_update_stats.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable

from harness.chip.registers import MASK_32, Registers
from harness.twin.queue import Queue
from harness.uapi.ixgbe_pf import (
    QDE_ENABLE,
    QDE_IDX_MASK,
    QDE_IDX_SHIFT,
    QDE_WRITE,
    QUEUES,
    SRRCTL_DROP_EN,
    QueueStatistic,
    Register,
    Row,
)
from harness.uapi.ixgbe_vf import QUEUE_BYTES, QueueRegister

_COUNTERS = 16
_RECEIVE, _TRANSMIT, _DROPPED = 0x01000, 0x06000, 0x01400

Find = Callable[[int, bool], Queue]
"""A function that returns a queue by its number: a transmit queue if the second argument is set."""


class QueueStatistics:
    """The port's driver reads these counters of queues: QPRC, QBRC, QPRDC, QPTC, QBTC and MPC.

    A frame that finds no descriptor is lost.  QPRDC counts the frame if its queue has drop enable
    (QDE, or DROP_EN in SRRCTL), and MPC counts the frame if not.  On an 82599 the frame of a queue
    without drop enable waits in the packet buffer; here the packet buffer has no room.
    """

    def __init__(self, registers: Registers, find: Find) -> None:
        self._registers = registers
        self._find = find
        self._told: defaultdict[tuple[Queue, str], int] = defaultdict(int)
        self._drops: set[int] = set()  # QDE sets drop enable of these receive queues
        self._maps: dict[bool, list[list[int]]] = {}  # transmit or not: the queues of each counter
        for row in (Row.RQSMR, Row.TQSM):
            registers.claim_row(row, write=self._mapper(row))
        for counter in range(_COUNTERS):
            place = counter * QUEUE_BYTES
            low = {False: _RECEIVE + place + QueueStatistic.QBC_L, True: Row.QBTC_L.at(counter)}
            high = {False: _RECEIVE + place + QueueStatistic.QBRC_H, True: Row.QBTC_H.at(counter)}
            packets = {False: _RECEIVE + place, True: _TRANSMIT + place}
            for transmits in (False, True):
                self._claim(packets[transmits] + QueueStatistic.QPC, counter, transmits)
                self._claim_bytes(low[transmits], high[transmits], counter, transmits)
            registers.claim(_DROPPED + place + QueueStatistic.QPC, self._dropped_reader(counter))
        registers.claim(Register.QDE, write=self._set_drop)
        registers.claim(Row.MPC.at(0), self._read_missed)

    def clear(self) -> None:
        """Forget which queues drop (QDE) and which counter counts which queue, as a reset does."""
        self._drops.clear()
        self._maps.clear()

    def _claim(self, offset: int, counter: int, transmits: bool) -> None:
        self._registers.claim(
            offset, lambda: self._take("frames", self._queues(counter, transmits)) & MASK_32
        )

    def _claim_bytes(self, low: int, high: int, counter: int, transmits: bool) -> None:
        def read_low() -> int:
            return self._since("bytes", self._queues(counter, transmits)) & MASK_32

        def read_high() -> int:
            return self._take("bytes", self._queues(counter, transmits)) >> 32

        self._registers.claim(low, read_low)
        self._registers.claim(high, read_high)

    def _dropped_reader(self, counter: int) -> Callable[[], int]:
        def read() -> int:
            numbers = [n for n in self._numbers(counter, False) if self._has_drop_enable(n)]
            return self._take("missed", [self._find(n, False) for n in numbers]) & MASK_32

        return read

    def _read_missed(self) -> int:
        numbers = [n for n in range(QUEUES) if not self._has_drop_enable(n)]
        return self._take("missed", [self._find(n, False) for n in numbers]) & MASK_32

    def _since(self, what: str, queues: list[Queue]) -> int:
        """Return how much the count *what* of *queues* grew since the last `_take` of *what*."""
        return sum(getattr(queue, what) - self._told[queue, what] for queue in queues)

    def _take(self, what: str, queues: list[Queue]) -> int:
        """Return what `_since` returns, and begin to count from 0 again."""
        total = self._since(what, queues)
        for queue in queues:
            self._told[queue, what] = getattr(queue, what)
        return total

    def _queues(self, counter: int, transmits: bool) -> list[Queue]:
        return [self._find(number, transmits) for number in self._numbers(counter, transmits)]

    def _numbers(self, counter: int, transmits: bool) -> list[int]:
        """Return the numbers of the queues of *counter*, as RQSMR or TQSM says.

        A register has a byte for each of four queues.
        """
        if transmits not in self._maps:
            row, held = Row.TQSM if transmits else Row.RQSMR, self._registers.held
            self._maps[transmits] = [[] for _ in range(_COUNTERS)]
            for number in range(QUEUES):
                own = held(row.at(number >> 2)) >> 8 * (number & 3) & 0xF
                self._maps[transmits][own].append(number)
        return self._maps[transmits][counter]

    def _mapper(self, row: Row) -> Callable[[int, int], None]:
        def write(index: int, value: int) -> None:
            self._registers.hold(row.at(index), value)
            self._maps.clear()

        return write

    def _has_drop_enable(self, number: int) -> bool:
        control = self._find(number, False).read(QueueRegister.SRRCTL)
        return number in self._drops or bool(control & SRRCTL_DROP_EN)

    def _set_drop(self, value: int) -> None:
        """Set or clear drop enable of the queue that QDE names; Linux, ixgbe_write_qde."""
        self._registers.hold(Register.QDE, value & ~QDE_WRITE)
        if value & QDE_WRITE:
            number = (value & QDE_IDX_MASK) >> QDE_IDX_SHIFT
            (self._drops.add if value & QDE_ENABLE else self._drops.discard)(number)
