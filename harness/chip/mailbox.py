"""A port and each of its VFs share a mailbox: sixteen words, and bits that say who may write them.

Ref: Linux, drivers/net/ethernet/intel/ixgbe/ixgbe_mbx.c and ../ixgbevf/mbx.c; 82599 datasheet,
"Virtual Function mailbox" and MBVFICR.
"""

from __future__ import annotations

from collections.abc import Callable

from harness.chip.registers import Registers
from harness.uapi.ixgbe_pf import POOLS, VFLRE, PfMailbox, Row
from harness.uapi.ixgbe_vf import MAILBOX_WORDS, READ_TO_CLEAR, Mailbox

_PER_REGISTER = 16  # VFs in one MBVFICR; each has a bit for a message, one for an acknowledgement


class VfEnd:
    """A VF has this end of its mailbox, and calls *told* with the REQ and ACK that the VF sets."""

    def __init__(self, told: Callable[[int], None]) -> None:
        self._told = told
        self.words = [0] * MAILBOX_WORDS
        self.status = int(Mailbox.RSTI)
        """This is VFMAILBOX; PFMAILBOX has the same PFU and VFU."""

    def read_word(self, index: int) -> int:
        return self.words[index]

    def write_word(self, index: int, value: int) -> None:
        self.words[index] = value

    def read_status(self) -> int:
        """Return VFMAILBOX, and clear its bits that a read clears."""
        status = self.status
        self.status &= ~READ_TO_CLEAR
        return status

    def write_status(self, value: int) -> None:
        if value & Mailbox.VFU:
            if not self.status & Mailbox.PFU:
                self.status |= Mailbox.VFU
        else:
            self.status &= ~Mailbox.VFU
        if value & (Mailbox.REQ | Mailbox.ACK):
            self._told(value & (Mailbox.REQ | Mailbox.ACK))

    def clear(self) -> None:
        """Clear all bits of VFMAILBOX but RSTI and RSTD, as a reset of the VF does."""
        self.status &= Mailbox.RSTI | Mailbox.RSTD


class Mailboxes:
    """A port has this end of its 64 mailboxes: PFMAILBOX, PFMBMEM, MBVFICR, VFLRE.

    `Mailboxes` calls *interrupt* when a VF sends a message, acknowledges one, or is reset.
    `Mailboxes` calls *ring* with the number of a VF when the port's driver sends to the VF, or
    acknowledges a message of the VF.
    """

    def __init__(
        self, registers: Registers, interrupt: Callable[[], None], ring: Callable[[int], None]
    ) -> None:
        self._interrupt = interrupt
        self._ring = ring
        self.ends = [VfEnd(self._told_by(number)) for number in range(POOLS)]
        self.silent = False
        """While this is set, no message of a VF reaches the port, which is a fault."""
        self.loses_resets = False
        """While this is set, no reset of a VF shows in VFLRE, which is a fault."""
        self._causes = [0] * Row.MBVFICR.count
        self._resets = [0, 0]
        registers.claim_row(Row.PFMAILBOX, self._read_status, self._write_status)
        registers.claim_row(Row.PFMBMEM, self._read_word, self._write_word)
        registers.claim_row(Row.MBVFICR, self._causes.__getitem__, self._clear_causes)
        registers.claim_row(Row.VFLREC, self._resets.__getitem__, self._clear_resets)
        for index, offset in enumerate(VFLRE):
            registers.claim(offset, _reader(self._resets, index))

    def vf_was_reset(self, number: int) -> None:
        """Clear VFMAILBOX of VF *number*, set the VF's bit in VFLRE, and interrupt the port."""
        self.ends[number].clear()
        if not self.loses_resets:
            self._resets[number >> 5] |= 1 << (number & 31)
            self._interrupt()

    def forget(self, number: int) -> None:
        """Drop all messages, acknowledgements and resets of VF *number*, which is disabled now."""
        self.ends[number].clear()
        self._resets[number >> 5] &= ~(1 << (number & 31))
        index, bit = divmod(number, _PER_REGISTER)
        self._causes[index] &= ~(0x10001 << bit)

    def port_resets(self) -> None:
        """Set RSTI in all mailboxes, and clear their words, MBVFICR and VFLRE."""
        self._causes[:] = [0] * len(self._causes)
        self._resets[:] = [0, 0]
        for end in self.ends:
            end.status = int(Mailbox.RSTI)
            end.words[:] = [0] * MAILBOX_WORDS

    def port_is_up(self) -> None:
        """Turn RSTI into RSTD in all mailboxes, as the port's driver asks for by PFRSTD."""
        for end in self.ends:
            if end.status & Mailbox.RSTI:
                end.status = end.status & ~Mailbox.RSTI | Mailbox.RSTD

    def _told_by(self, number: int) -> Callable[[int], None]:
        def told(what: int) -> None:
            if self.silent:
                return
            index, bit = divmod(number, _PER_REGISTER)
            if what & Mailbox.REQ:
                self._causes[index] |= 1 << bit
            if what & Mailbox.ACK:
                self._causes[index] |= 1 << (bit + _PER_REGISTER)
            self._interrupt()

        return told

    def _clear_causes(self, index: int, value: int) -> None:
        self._causes[index] &= ~value

    def _clear_resets(self, index: int, value: int) -> None:
        self._resets[index] &= ~value

    def _read_word(self, index: int) -> int:
        return self.ends[index // MAILBOX_WORDS].words[index % MAILBOX_WORDS]

    def _write_word(self, index: int, value: int) -> None:
        self.ends[index // MAILBOX_WORDS].words[index % MAILBOX_WORDS] = value

    def _read_status(self, number: int) -> int:
        status = self.ends[number].status
        owners = PfMailbox.VFU if status & Mailbox.VFU else 0
        return owners | (PfMailbox.PFU if status & Mailbox.PFU else 0)

    def _write_status(self, number: int, value: int) -> None:
        end = self.ends[number]
        if value & PfMailbox.RVFU:
            end.status &= ~Mailbox.VFU
        if value & PfMailbox.PFU:
            if not end.status & Mailbox.VFU:
                end.status |= Mailbox.PFU
        else:
            end.status &= ~Mailbox.PFU
        if value & PfMailbox.STS:
            end.status |= Mailbox.PFSTS
        if value & PfMailbox.ACK:
            end.status |= Mailbox.PFACK
        if value & (PfMailbox.STS | PfMailbox.ACK):
            self._ring(number)


def _reader(values: list[int], index: int) -> Callable[[], int]:
    return lambda: values[index]
