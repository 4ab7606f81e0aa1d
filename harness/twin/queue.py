"""A receive and a transmit queue both have a ring, and registers that say whose turn it is."""

from __future__ import annotations

from harness.uapi.ixgbe_vf import (
    DESCRIPTOR_BYTES,
    QueueControl,
    QueueRegister,
)

_STORED = {QueueRegister.BAL: 0xFFFFFF80, QueueRegister.LEN: 0x000FFF80}
"""These registers keep these bits alone; their other bits are reserved and read as 0.

A ring is aligned to 128 bytes, and so is its length, of at most 1 MiB.  Ref: 82599 datasheet, RDBAL
and RDLEN, TDBAL and TDLEN; Linux, ixgbevf/ethtool.c, reg_test_vf, whose first masks say so.
"""

_POINTER = 0xFFFF  # a head or a tail has 16 bits
_32_BITS = 0xFFFFFFFF


class Queue:
    """The registers of one queue; descriptors from *head* to *tail* are the device's."""

    def __init__(self, number: int) -> None:
        self.number = number
        self.frames = self.bytes = self.missed = 0
        """Frames and bytes that passed through the queue, and frames that found no descriptor.

        Bytes of frames that were sent include their checksums; received frames have theirs stripped
        before (DPDK, ixgbe_read_stats_registers).  No reset clears the counts.
        """
        self.epoch = self.base = self.count = 0
        """The epoch counts what makes descriptors in hand void: a reset, another ring, the queue
        turned off."""
        self.clear()

    def clear(self) -> None:
        """Do what a reset of the whole port does: nothing is kept."""
        self._registers = dict.fromkeys(QueueRegister, 0)
        self.head = self.tail = 0
        self.enabled = False
        self.epoch += 1
        self._place()

    def reset_function(self) -> None:
        """Take the ring's address and length away, as a function reset (VFLR) of the VF does.

        Head, tail, DCTL, SRRCTL, DCA and the write-back address are kept, so a queue that was on
        is on, with a ring of no length.  Ref: Intel 82599 specification update, software
        clarification 5, "PF/VF Drivers Should Configure Registers That Are not Reset by VFLR".
        """
        for register in (QueueRegister.BAL, QueueRegister.BAH, QueueRegister.LEN):
            self._registers[register] = 0
        self.epoch += 1
        self._place()

    def disable(self) -> None:
        """Turn the queue off and keep the rest: what the VF's own reset does (VFCTRL.RST).

        Ref: 82599 datasheet, VFCTRL: it resets "the queue enable and the interrupt registers of
        the VF".
        """
        self._registers[QueueRegister.DCTL] &= ~QueueControl.ENABLE
        self.epoch += 1
        self._place()

    def read(self, register: QueueRegister) -> int:
        if register == QueueRegister.HEAD:
            return self.head
        if register == QueueRegister.TAIL:
            return self.tail
        return self._registers[register]

    def write(self, register: QueueRegister, value: int) -> None:
        if register == QueueRegister.HEAD:
            self.head = value & _POINTER
        elif register == QueueRegister.TAIL:
            self.tail = value & _POINTER
        else:
            self._registers[register] = value & _STORED.get(register, _32_BITS)
            self._place()

    def count_frame(self, length: int) -> None:
        """Count a frame of *length* bytes."""
        self.frames += 1
        self.bytes += length

    @property
    def runs(self) -> bool:
        """Whether the queue is on and has a ring; a function reset leaves it on without a ring."""
        return self.enabled and bool(self.count)

    @property
    def available(self) -> int:
        """How many descriptors the device has; none of a queue that is off or has no ring."""
        if not self.enabled or not self.count or max(self.head, self.tail) >= self.count:
            return 0
        return (self.tail - self.head) % self.count

    def address_of(self, index: int) -> int:
        """The guest's address of descriptor *index*, which may be past the end by one round."""
        return self.base + index % self.count * DESCRIPTOR_BYTES

    def _place(self) -> None:
        registers = self._registers
        before = self.base, self.count
        self.base = registers[QueueRegister.BAH] << 32 | registers[QueueRegister.BAL]
        self.count = registers[QueueRegister.LEN] // DESCRIPTOR_BYTES
        was, self.enabled = self.enabled, bool(registers[QueueRegister.DCTL] & QueueControl.ENABLE)
        if (was and not self.enabled) or before != (self.base, self.count):
            self.epoch += 1
