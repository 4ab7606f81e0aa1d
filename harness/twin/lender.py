"""A VF needs this of the port that lends the VF: a model of the port's driver, or a chip."""

from __future__ import annotations

from typing import Callable, Protocol

from harness.twin.mailbox import Words


class Lender(Protocol):
    """A port has the other end of its VF's mailbox and the link, and says what the VF may send."""

    ring: Callable[[], None]
    """The port calls this to interrupt the VF for its mailbox; the VF sets it."""

    psrtype: int
    """VFPSRTYPE, whose upper three bits say how many queues frames are spread over."""

    @property
    def mailbox(self) -> Words:
        """The VF's end of the mailbox."""

    @property
    def has_late_replies(self) -> bool:
        """Whether a message to the VF waits for its time."""

    @property
    def fetches(self) -> bool:
        """Whether the port reads descriptors of transmit queues; without a link it reads none."""

    def links(self) -> int:
        """Return what VFLINKS reads."""

    def vf_was_reset(self) -> None:
        """Forget what the VF asked for, as far as its reset undoes it."""

    def tag(self, asked: int | None) -> int | None:
        """Return the tag, priority included, that a frame of the VF is given as it leaves.

        *asked* is the tag that the frame's descriptor asks for.  None stands for no tag.
        """

    def lets_out(self, source: bytes, vlan: int | None) -> bool:
        """Say whether the VF may send from this address, with a tag of this VLAN or without."""

    def choose_queue(self, hashed: int) -> int:
        """Return the VF's receive queue for a frame with this RSS hash."""
