"""Programs of ``harness.agent`` that record on a machine while the harness does something else."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from harness.remote.host import Host


class Recorder:
    """A program that records on a machine until it is stopped."""

    def __init__(self, host: Host, number: int, ready: dict[str, Any]) -> None:
        self._host = host
        self._number = number
        self._summary: dict[str, Any] | None = None
        self.ready = ready

    def stop(self, seconds: float = 30.0) -> dict[str, Any]:
        """End it and return its summary; again the same if it has been stopped.

        Raises RemoteError if it failed meanwhile or does not end in time.
        """
        if self._summary is None:
            self._summary = dict(self._host.ask("stop", seconds=seconds, recorder=self._number))
        return self._summary
