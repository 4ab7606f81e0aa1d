"""How a recorder speaks with the agent that started it: one JSON line at a time.

::

    stdin    {spec}              one line; closed when the recorder is to end
    stdout   {"ready": {...}}    when it really records
             {"summary": {...}}  when it ended, or {"error": {what, because, fix}}
"""

from __future__ import annotations

import json
import os
import select
import sys
from typing import Any

from harness.agent.errors import AgentError


class Channel:
    """The two ends a recorder has of its agent, each a file descriptor, both borrowed."""

    def __init__(self, reading: int, writing: int) -> None:
        self._reading = reading
        self._writing = writing
        self._ended = False

    @classmethod
    def on_standard_streams(cls) -> Channel:
        """Make a channel of stdin and stdout; what else is printed goes to stderr from now on."""
        writing = os.dup(sys.stdout.fileno())
        os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
        return cls(sys.stdin.fileno(), writing)

    def fileno(self) -> int:
        """For select and poll: readable means ended."""
        return self._reading

    def read_spec(self) -> dict[str, Any]:
        """Read the first line.  Raises AgentError unless it is a JSON object."""
        line = b""
        while not line.endswith(b"\n"):
            read = os.read(self._reading, 1)  # byte by byte: select must not see a buffer's rest
            if not read:
                break
            line += read
        try:
            spec = json.loads(line)
        except ValueError:
            spec = None
        if not isinstance(spec, dict):
            raise AgentError(
                f"a recorder got {line[:80]!r} for its spec",
                because="a spec is one line that holds a JSON object",
                fix="start recorders through the agent's `start` verb",
            )
        return spec

    def ready(self, **facts: Any) -> None:
        """Say that recording has begun, with what the starter may want to know."""
        self.say({"ready": facts})

    def ended(self) -> bool:
        """Whether the recorder is to end.  Does not block."""
        return self.wait(0)

    def wait(self, seconds: float) -> bool:
        """Wait until the recorder is to end, at most so long; whether it is."""
        if not self._ended and select.select([self._reading], [], [], seconds)[0]:
            self._ended = os.read(self._reading, 4096) == b""
        return self._ended

    def say(self, message: dict[str, Any]) -> None:
        """Write one line, whole."""
        line = json.dumps(message).encode() + b"\n"
        while line:
            line = line[os.write(self._writing, line) :]
