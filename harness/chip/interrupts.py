"""A port interrupts its driver for its queues and for other causes, by MSI-X messages.

Ref: 82599 datasheet, "Interrupts", MSI-X mode; Linux, ixgbe_set_ivar, ixgbe_configure_msix,
ixgbe_irq_enable, ixgbe_msix_other.
"""

from __future__ import annotations

import time

from harness.chip.registers import MASK_32, Registers
from harness.twin.memory import Gate
from harness.twin.vectors import Vectors
from harness.uapi.ixgbe_pf import GPIE_EIAME, GPIE_MSIX_MODE, GPIE_OCD, VECTORS, Register, Row
from harness.uapi.ixgbe_vf import EITR_INTERVAL_MASK, EITR_NS, IVAR_VALID, IVAR_VECTOR

_QUEUE_CAUSES = 0xFFFF
_OTHER_CAUSES = 0x7FFF0000


class PortInterrupts(Vectors):
    """A port sends its messages by 64 vectors.

    IVAR gives a vector to each queue, and the number of that vector is the bit of the queue's cause
    in EICS_EX, EIMS_EX and EIMC_EX.  EICR, EICS, EIMS and EIMC show the causes of vectors 0 to 15
    in their lower half, and all other causes (`Eicr`) in their upper half.  The vector in IVAR_MISC
    sends the messages of all other causes.

    The port sends a message for a cause that was set and is enabled.  A cause that is set while the
    cause is disabled, while the *gate* is shut, or before the vector's interval (EITR) is over,
    waits.  The message clears the cause where EIAC has the cause's bit, and in any case for vectors
    16 to 63.  While GPIE.EIAME is set, the message disables the cause where EIAM or EIAM_EX has the
    cause's bit.

    While GPIE.MSIX_MODE is clear, vector 0 sends the messages of all causes.  DPDK leaves it so for
    a port whose receive queues do not interrupt (ixgbe_configure_msix).
    """

    def __init__(self, registers: Registers, gate: Gate) -> None:
        super().__init__(VECTORS)
        self._registers = registers
        self._gate = gate
        self._fired_ns = [0] * VECTORS
        self.clear()
        claim, row = registers.claim, registers.claim_row
        claim(Register.EICR, self._read_and_clear, self._clear_causes)
        claim(Register.EICS, self._causes_now, self.set_causes)
        claim(Register.EIMS, self._mask_now, self._enable)
        claim(Register.EIMC, self._mask_now, self._disable)
        row(Row.EICS_EX, None, self._set_vectors)
        row(Row.EIMS_EX, lambda half: self._enabled >> 32 * half & MASK_32, self._enable_vectors)
        row(Row.EIMC_EX, lambda half: self._enabled >> 32 * half & MASK_32, self._disable_vectors)

    def clear(self) -> None:
        """Forget causes and masks, as a reset of the port does; vectors keep their eventfds."""
        self.forget_pending()
        self._causes = self._due = self._enabled = 0  # a bit for each vector
        self._others = self._others_due = self._others_enabled = 0

    def cause(self, queue: int, *, transmit: bool) -> None:
        """Set the cause of the port's queue number *queue*, since its driver has work to do."""
        value = self._registers.held(Row.IVAR.at(queue >> 1))
        entry = value >> (16 * (queue & 1) + 8 * transmit) & 0xFF
        if entry & IVAR_VALID:
            self._set(1 << (entry & IVAR_VECTOR))

    def set_causes(self, value: int) -> None:
        """Set the causes in *value* as EICS does: bits of `Eicr`, and of vectors 0 to 15."""
        self._others |= value & _OTHER_CAUSES
        self._others_due |= value & _OTHER_CAUSES
        self._set(value & _QUEUE_CAUSES)

    def deliver(self) -> float:
        """Send each message that is due.

        Return after how many seconds the next interval is over, 0 if no message waits for one.
        """
        due = self._due & self._enabled
        other = self._other_vector
        if self._others_due & self._others_enabled and other is not None:
            due |= 1 << other
        if not due or not self._gate.is_open:
            return 0.0
        now_ns, wait_ns = time.monotonic_ns(), 0
        while due:
            bit = due & -due
            due ^= bit
            vector = bit.bit_length() - 1
            left_ns = self._fired_ns[vector] + self._interval_ns(vector) - now_ns
            if left_ns > 0:
                wait_ns = min(wait_ns or left_ns, left_ns)
                continue
            self._fired_ns[vector] = now_ns
            self._send(vector, bit)
        return wait_ns / 1e9

    def _set(self, vectors: int) -> None:
        self._causes |= vectors
        self._due |= vectors
        self.deliver()

    def _send(self, vector: int, bit: int) -> None:
        held = self._registers.held
        self._due &= ~bit
        self._causes &= ~(bit & (held(Register.EIAC) & _QUEUE_CAUSES | ~_QUEUE_CAUSES))
        masks = held(Row.EIAM_EX.at(vector >> 5)) << 32 * (vector >> 5)
        masks_itself = bool(held(Register.GPIE) & GPIE_EIAME)
        if masks_itself and (masks | held(Register.EIAM) & _QUEUE_CAUSES) & bit:
            self._enabled &= ~bit
        if vector == self._other_vector:
            sent = self._others_due & self._others_enabled
            self._others_due &= ~sent
            self._others &= ~(sent & held(Register.EIAC))
            if masks_itself:
                self._others_enabled &= ~(sent & held(Register.EIAM))
        self.trigger(vector if self._is_in_msix_mode else 0)

    @property
    def _is_in_msix_mode(self) -> bool:
        return bool(self._registers.held(Register.GPIE) & GPIE_MSIX_MODE)

    @property
    def _other_vector(self) -> int | None:
        if not self._is_in_msix_mode:
            return 0
        entry = self._registers.held(Register.IVAR_MISC) >> 8 & 0xFF
        vector = entry & IVAR_VECTOR
        return vector if entry & IVAR_VALID and vector < VECTORS else None

    def _interval_ns(self, vector: int) -> int:
        low = Row.EITR.count
        at = Row.EITR.at(vector) if vector < low else Row.EITR_HIGH.at(vector - low)
        return (self._registers.held(at) & EITR_INTERVAL_MASK) * EITR_NS

    def _causes_now(self) -> int:
        return self._others | self._causes & _QUEUE_CAUSES

    def _read_and_clear(self) -> int:
        """Read EICR, and clear the causes that were read; GPIE.OCD keeps the causes of queues."""
        value = self._causes_now()
        kept = _QUEUE_CAUSES if self._registers.held(Register.GPIE) & GPIE_OCD else 0
        self._clear_causes(value & ~kept)
        return value

    def _clear_causes(self, value: int) -> None:
        self._causes &= ~(value & _QUEUE_CAUSES)
        self._due &= ~(value & _QUEUE_CAUSES)
        self._others &= ~value
        self._others_due &= ~value

    def _mask_now(self) -> int:
        return self._others_enabled | self._enabled & _QUEUE_CAUSES

    def _enable(self, value: int) -> None:
        self._enabled |= value & _QUEUE_CAUSES
        self._others_enabled |= value & _OTHER_CAUSES
        self._others_due |= self._others & value  # a cause that is still set sends again
        self.deliver()

    def _disable(self, value: int) -> None:
        self._enabled &= ~(value & _QUEUE_CAUSES)
        self._others_enabled &= ~value

    def _set_vectors(self, half: int, value: int) -> None:
        self._set(value << 32 * half)

    def _enable_vectors(self, half: int, value: int) -> None:
        self._enabled |= value << 32 * half
        self.deliver()

    def _disable_vectors(self, half: int, value: int) -> None:
        self._enabled &= ~(value << 32 * half)
