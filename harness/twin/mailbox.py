"""The mailbox between a VF and its port's driver: sixteen words, and whose turn it is.

Ref: Linux, drivers/net/ethernet/intel/ixgbevf/mbx.c and ../ixgbe/ixgbe_mbx.c.
"""

from __future__ import annotations

import time
from collections import deque
from typing import Callable, Protocol

from harness.uapi.ixgbe_vf import MAILBOX_WORDS, READ_TO_CLEAR, Mailbox


class Words(Protocol):
    """The VF's end of a mailbox: VFMBMEM, word by word, and VFMAILBOX."""

    def read_word(self, index: int) -> int:
        """Read word *index*, 0 to 15."""

    def write_word(self, index: int, value: int) -> None:
        """Write word *index*."""

    def read_status(self) -> int:
        """Read VFMAILBOX; what is cleared by being read is cleared now."""

    def write_status(self, value: int) -> None:
        """Write VFMAILBOX."""


class MailboxRegisters:
    """The VF's end.  *posted* gets each message of the VF's, *acknowledged* each of its ACKs.

    *ring* interrupts the VF, for a message that it did not ask for.  Messages wait for *late_ns*
    where that is not 0; with *silent* none is ever sent.
    """

    def __init__(
        self,
        posted: Callable[[list[int]], None],
        acknowledged: Callable[[], None],
        ring: Callable[[], None],
    ) -> None:
        self._ring = ring
        self._posted = posted
        self._acknowledged = acknowledged
        self._words = [0] * MAILBOX_WORDS
        self._status: int = Mailbox.RSTD  # the port's driver is up: it said so as it started
        self._outgoing: deque[tuple[int, list[int], bool]] = deque()  # when, what, whether to ring
        self.late_ns = 0
        self.silent = False

    def read_word(self, index: int) -> int:
        return self._words[index]

    def write_word(self, index: int, value: int) -> None:
        self._words[index] = value

    def read_status(self) -> int:
        """The register; what is cleared by being read is cleared now."""
        self.deliver()
        status = self._status
        self._status &= ~READ_TO_CLEAR
        return status

    def write_status(self, value: int) -> None:
        if value & Mailbox.VFU:
            if not self._status & Mailbox.PFU:
                self._status |= Mailbox.VFU
        else:
            self._status &= ~Mailbox.VFU
        if value & Mailbox.REQ and not (self._is_in_reset or self.silent):
            self._status |= Mailbox.PFACK
            self._posted(list(self._words))
        if value & Mailbox.ACK and not self._is_in_reset:
            self._acknowledged()

    def send(self, words: list[int], *, rings: bool = False) -> None:
        """From the port's side: a message, which overwrites what the mailbox holds."""
        if self.silent:
            return
        due_ns = time.monotonic_ns() + self.late_ns
        while self._outgoing and self._outgoing[-1][0] > due_ns:
            self._outgoing.pop()  # of a time when replies were late: it would come after this one
        self._outgoing.append((due_ns, words, rings))
        self.deliver()

    @property
    def has_late_replies(self) -> bool:
        return bool(self._outgoing)

    def deliver(self) -> None:
        """Let messages that are due be seen."""
        while self._outgoing and self._outgoing[0][0] <= time.monotonic_ns():
            _, words, rings = self._outgoing.popleft()
            self._words[: len(words)] = words
            self._status |= Mailbox.PFSTS
            if rings:
                self._ring()

    def clear(self) -> None:
        """The port's driver empties the words, as it does when the VF was reset."""
        self._words = [0] * MAILBOX_WORDS

    def port_resets(self) -> None:
        """Tell the VF that the port is in reset (RSTI); messages are lost until `port_is_up`."""
        self._status = Mailbox.RSTI
        self._words = [0] * MAILBOX_WORDS
        self._outgoing.clear()

    def port_is_up(self) -> None:
        """Tell the VF that the port's driver is up again: RSTD takes the place of RSTI."""
        self._status = self._status & ~Mailbox.RSTI | Mailbox.RSTD

    @property
    def _is_in_reset(self) -> bool:
        return bool(self._status & Mailbox.RSTI)
