"""The lease of one host, as its agent keeps it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any


class Lease:
    """Our lease of a host, if we have it; the agent refuses changes without it.

    Renew it from the run itself, never from a thread: a run that hangs must lose it.
    """

    def __init__(self, call: Callable[..., Any]) -> None:
        """*call* asks the agent, (verb, **arguments) -> its answer."""
        self._call = call
        self.number = 0  # what our changes are let in by; 0 without a lease
        self.lingers = False  # whether this process leaves the host as it is

    def take(self, holder: str, seconds: float) -> int:
        """Take it in the name of *holder*, a text for people, for so long; its number.

        Raises LabBusy while someone else has it, saying who and since when.
        """
        self.number = int(self._call("lease.take", holder=holder, seconds=seconds))
        return self.number

    def renew(self, seconds: float) -> None:
        """Move the deadline to *seconds* from now.  Raises RemoteError if it was lost."""
        self._call("lease.renew", number=self.number, seconds=seconds)

    def linger(self) -> None:
        """Have the host kept as it is until the deadline, even after this process has ended.

        From now on `Host.undo` and `Host.close` leave the host as it is, and its agent puts the
        host back at the deadline.  Raises RemoteError if the agent does not hear of it; the agent
        then puts the host back when this process ends.
        """
        self.lingers = True
        self._call("lease.linger", number=self.number)

    def give_back(self) -> None:
        """Give it back.  Raises RemoteError while changes are not undone."""
        self._call("lease.give_back", number=self.number)
        self.number = 0

    def show(self) -> dict[str, Any]:
        """Ask for the newest lease, whoever's: number, holder, since, left_s, held; {} if none."""
        return dict(self._call("lease.show"))

    def evict(self, seconds: float = 60.0) -> str:
        """End whoever has it, after their agent has put the host back; how that agent ended."""
        return str(self._call("lease.evict", seconds=seconds, patience_s=seconds + 30.0))
