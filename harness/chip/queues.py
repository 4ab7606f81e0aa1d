"""A port's driver reaches the registers of all queues, of the port and of its VFs.

Queue ``n`` belongs to the pool ``n // queues of a pool``.  While VFs are enabled, the queues of
pool ``p`` are those of VF ``p``.  Ref: 82599 datasheet, the port's aliases of VF registers; Linux,
ixgbe_sriov.c, ixgbe_vf_reset_msg (PVFTDWBAL).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from harness.chip.registers import MASK_32
from harness.twin.queue import Queue
from harness.twin.transmit import Transmitter
from harness.uapi.ixgbe_pf import (
    RECEIVE_BLOCKS,
    RX_DCA_ALIAS,
    SRRCTL_ALIAS,
    TRANSMIT_BLOCKS,
    QueueStatistic,
    Row,
)
from harness.uapi.ixgbe_vf import QUEUE_BYTES, QueueRegister

if TYPE_CHECKING:
    from harness.chip.physical_function import PhysicalFunction

_BLOCK = 64
_ALIASED = 16
_MASK_36 = (1 << 36) - 1


class QueueRegisters:
    """`QueueRegisters` claims the registers of 128 receive and 128 transmit queues of *port*."""

    def __init__(self, port: PhysicalFunction) -> None:
        self._port = port
        claim = port.registers.claim
        for register in QueueRegister:
            for base, first in RECEIVE_BLOCKS:
                self._claim_block(base, first, register, transmit=False)
            for base, first in TRANSMIT_BLOCKS:
                self._claim_block(base, first, register, transmit=True)
        for number in range(_ALIASED):
            for base, register in (
                (SRRCTL_ALIAS, QueueRegister.SRRCTL), (RX_DCA_ALIAS, QueueRegister.DCA),
            ):  # fmt: skip
                claim(
                    base + 4 * number,
                    self._reader(number, register, transmit=False),
                    self._writer(number, register, transmit=False),
                )
        for number in range(_BLOCK):
            self._claim_counts(number)

    def find(self, number: int, transmit: bool) -> Queue:
        """Return queue *number* of the port, which may be a queue of a VF."""
        port = self._port
        pool, index = divmod(number, port.queues_per_pool)
        if port.switch.has_pools and pool < port.vfs_enabled:
            vf = port.vfs[pool]
            queues = vf.transmitter.queues if transmit else vf.receiver.queues
            return queues[index % len(queues)]
        return (port.transmitter.queues if transmit else port.receiver.queues)[number]

    def transmit(self, number: int) -> None:
        """Send what the driver put into transmit queue *number*, of the port or of a VF."""
        self._transmitter(number).run(self.find(number, True))

    def _claim_block(
        self, base: int, first: int, register: QueueRegister, *, transmit: bool
    ) -> None:
        for index in range(_BLOCK):
            self._port.registers.claim(
                base + index * QUEUE_BYTES + register,
                self._reader(first + index, register, transmit=transmit),
                self._writer(first + index, register, transmit=transmit),
            )

    def _claim_counts(self, number: int) -> None:
        """Let the port read the counters of VF *number*, which a read does not clear."""
        claim = self._port.registers.claim
        low, high = (base + number * QUEUE_BYTES for base, _ in RECEIVE_BLOCKS)
        claim(low + QueueStatistic.PVFGPRC, self._counter(number, "received"))
        claim(low + QueueStatistic.PVFGORC, self._counter(number, "received_bytes"))
        claim(high + QueueStatistic.PVFGORC, self._counter(number, "received_bytes", shift=32))
        claim(high + QueueStatistic.PVFGPRC, self._counter(number, "received_multicast"))
        claim(Row.PVFGPTC.at(number), self._counter(number, "sent"))
        claim(Row.PVFGOTC_LSB.at(number), self._counter(number, "sent_bytes"))
        claim(Row.PVFGOTC_MSB.at(number), self._counter(number, "sent_bytes", shift=32))

    def _counter(self, vf: int, name: str, *, shift: int = 0) -> Callable[[], int]:
        def read() -> int:
            if vf >= len(self._port.vfs):
                return 0
            count = int(getattr(self._port.vfs[vf].statistics, name))
            return (count & _MASK_36) >> shift & MASK_32

        return read

    def _reader(self, number: int, register: QueueRegister, *, transmit: bool) -> Callable[[], int]:
        return lambda: self.find(number, transmit).read(register)

    def _writer(
        self, number: int, register: QueueRegister, *, transmit: bool
    ) -> Callable[[int], None]:
        def write(value: int) -> None:
            queue = self.find(number, transmit)
            queue.write(register, value)
            if transmit and register in (QueueRegister.TAIL, QueueRegister.DCTL):
                self.transmit(number)

        return write

    def _transmitter(self, number: int) -> Transmitter:
        port = self._port
        pool = number // port.queues_per_pool
        if port.switch.has_pools and pool < port.vfs_enabled:
            return port.vfs[pool].transmitter
        return port.transmitter
