"""Interrupts: causes, masks, throttling, and the eventfds that stand for MSI-X vectors.

Ref: 82599 datasheet, extended interrupt registers of a VF; as ixgbevf uses them: VTEIAC clears a
cause as its message goes out, VTEIAM masks it, and the driver unmasks it when it has polled.
"""

from __future__ import annotations

import time

from harness.twin.memory import Gate
from harness.twin.vectors import Vectors
from harness.uapi import ixgbe_vf
from harness.uapi.ixgbe_vf import Register

_ALL = (1 << ixgbe_vf.VECTORS) - 1


class Interrupts(Vectors):
    """The vectors of a VF; a *cause* is the bit of its vector.

    A message is a write to memory as well: none is sent while the *gate* is shut, and what is due
    then is sent once it is open again and `deliver` is called.  Ref: PCI Local Bus 3.0, 6.8.3.
    """

    def __init__(self, gate: Gate, queues: int = ixgbe_vf.QUEUES) -> None:
        super().__init__(ixgbe_vf.VECTORS)
        self._queues = queues
        self._gate = gate
        self._fired_ns = [0] * ixgbe_vf.VECTORS
        self.clear()

    def clear(self) -> None:
        """Do what a reset of the VF does; vectors stay where they lead, and masked as they are."""
        self.forget_pending()
        self._causes = self._unsent = 0  # a message goes out for each time that a cause is set
        self._enabled = self._auto_clear = self._auto_mask = 0
        self._allocated = [0] * (self._queues // 2)
        self._misc = 0
        self._intervals = [0] * ixgbe_vf.VECTORS

    def read(self, offset: int) -> int:
        """Return the register at *offset*, 0 for an unknown one; a read of VTEICR clears it.

        VTEICS reads the same causes and clears none, by which drivers look at them: ixgbevf/
        ethtool.c, ixgbevf_get_regs.
        """
        if offset == Register.VTEICR:
            causes, self._causes, self._unsent = self._causes, 0, 0
            return causes
        if offset == Register.VTEICS:
            return self._causes
        if offset in (Register.VTEIMS, Register.VTEIMC):
            return self._enabled
        if offset == Register.VTEIAC:
            return self._auto_clear
        if offset == Register.VTEIAM:
            return self._auto_mask
        if offset == Register.VTIVAR_MISC:
            return self._misc
        if (row := _row(offset, Register.VTIVAR, len(self._allocated))) is not None:
            return self._allocated[row]
        row = _row(offset, Register.VTEITR, ixgbe_vf.VECTORS)
        return 0 if row is None else self._intervals[row]

    def write(self, offset: int, value: int) -> None:
        if offset == Register.VTEICR:
            self._causes &= ~value
            self._unsent &= ~value
        elif offset == Register.VTEICS:
            self._causes |= value & _ALL
            self._unsent |= value & _ALL
        elif offset == Register.VTEIMS:
            self._enabled |= value & _ALL
        elif offset == Register.VTEIMC:
            self._enabled &= ~value
        elif offset == Register.VTEIAC:
            self._auto_clear = value & _ALL
        elif offset == Register.VTEIAM:
            self._auto_mask = value & _ALL
        elif offset == Register.VTIVAR_MISC:
            self._misc = value & 0xFF
        elif (row := _row(offset, Register.VTIVAR, len(self._allocated))) is not None:
            self._allocated[row] = value
        elif (row := _row(offset, Register.VTEITR, ixgbe_vf.VECTORS)) is not None:
            self._intervals[row] = value & ixgbe_vf.EITR_INTERVAL_MASK
        self.deliver()

    def cause(self, queue: int, *, transmit: bool) -> None:
        """A queue has something for its driver."""
        entry = self._allocated[queue >> 1] >> (16 * (queue & 1) + 8 * transmit) & 0xFF
        self._cause(entry)

    def cause_other(self) -> None:
        """The mailbox has something for the driver."""
        self._cause(self._misc)

    def deliver(self) -> float:
        """Send what is due; for how many seconds the next must wait, 0 if none does."""
        due = self._unsent & self._enabled
        if not due or not self._gate.is_open:
            return 0.0
        now_ns, wait_ns = time.monotonic_ns(), 0
        for vector in range(ixgbe_vf.VECTORS):
            bit = 1 << vector
            if not due & bit:
                continue
            left_ns = self._fired_ns[vector] + self._intervals[vector] * ixgbe_vf.EITR_NS - now_ns
            if left_ns > 0:
                wait_ns = min(wait_ns or left_ns, left_ns)
                continue
            self._fired_ns[vector] = now_ns
            self._unsent &= ~bit
            self._causes &= ~(bit & self._auto_clear)
            self._enabled &= ~(bit & self._auto_mask)
            self.trigger(vector)
        return wait_ns / 1e9

    def _cause(self, entry: int) -> None:
        vector = entry & ixgbe_vf.IVAR_VECTOR
        if entry & ixgbe_vf.IVAR_VALID and vector < ixgbe_vf.VECTORS:
            self._causes |= 1 << vector
            self._unsent |= 1 << vector
            self.deliver()


def _row(offset: int, first: int, count: int) -> int | None:
    """Which register of a row of *count* is at *offset*."""
    row, rest = divmod(offset - first, 4)
    return row if not rest and 0 <= row < count else None
