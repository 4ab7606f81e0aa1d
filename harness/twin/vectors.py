"""A function sends its MSI-X messages by eventfds, unless its client masks a vector."""

from __future__ import annotations

import contextlib
import os
from typing import Protocol

_ONE = (1).to_bytes(8, "little")


class Causes(Protocol):
    """A queue tells this that the queue's driver has something to do."""

    def cause(self, queue: int, *, transmit: bool) -> None:
        """Queue number *queue* has something for its driver."""


class Vectors:
    """*count* vectors, each of which leads to an eventfd or nowhere."""

    def __init__(self, count: int) -> None:
        self._eventfds: list[int | None] = [None] * count
        self._masked = [False] * count  # by the client
        self._pending = [False] * count  # held back by that, or since it leads nowhere
        self.lost = 0
        """The number of interrupts that get lost next, as a test of misbehaviour sets it."""

    @property
    def count(self) -> int:
        return len(self._eventfds)

    def forget_pending(self) -> None:
        """Drop every message that is held back; a reset of the function does that."""
        self._pending = [False] * self.count

    def trigger(self, vector: int) -> None:
        """Send a vector's message, whatever the device's own registers say.

        Where the vector leads nowhere the message waits: QEMU takes all eventfds away and gives
        them again each time that a guest uses one vector more (vfio_msix_vector_do_use).
        """
        eventfd = self._eventfds[vector]
        if self._masked[vector] or eventfd is None:
            self._pending[vector] = True
        elif self.lost:
            self.lost -= 1
        else:
            with contextlib.suppress(BlockingIOError):  # its count is full: it is signalled
                os.write(eventfd, _ONE)

    def connect(self, vector: int, eventfd: int | None) -> None:
        """Let *vector* lead to *eventfd*, which is ours from now on; None lets it lead nowhere."""
        old, self._eventfds[vector] = self._eventfds[vector], eventfd
        if old is not None:
            os.close(old)
        self._send_pending(vector)

    def mask(self, vector: int, masked: bool) -> None:
        """Hold a vector's messages back, or let them go, with any message that was held back."""
        self._masked[vector] = masked
        self._send_pending(vector)

    def disconnect(self) -> None:
        """Let no vector lead anywhere."""
        for vector in range(self.count):
            self.connect(vector, None)
            self._masked[vector] = self._pending[vector] = False

    def _send_pending(self, vector: int) -> None:
        """Send a message that was held back, if nothing holds it back any more."""
        if self._pending[vector]:
            self._pending[vector] = False
            self.trigger(vector)
