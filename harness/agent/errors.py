"""The agent's one error, in the three parts that ``harness.errors`` uses."""

from __future__ import annotations

from typing import Any


class AgentError(Exception):
    """Something that a person can act on; the agent itself goes on.

    what     what happened, without the host's name, which the controller puts before it
    because  what that means
    fix      what the reader can do about it
    busy     someone else holds the host's lease
    """

    def __init__(self, what: str, *, because: str, fix: str, busy: bool = False) -> None:
        super().__init__(what)
        self.what = what
        self.because = because
        self.fix = fix
        self.busy = busy

    def __str__(self) -> str:
        return f"{self.what}\n  because: {self.because}\n  to fix:  {self.fix}"

    def as_dict(self) -> dict[str, Any]:
        """Give what goes over the wire: the three parts, and ``busy`` where it is so."""
        parts: dict[str, Any] = {"what": self.what, "because": self.because, "fix": self.fix}
        if self.busy:
            parts["busy"] = True
        return parts
