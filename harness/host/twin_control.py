"""Speaking with a twin on its host: one thing asked at a time, over its control socket."""

from __future__ import annotations

import json
import socket
from collections.abc import Mapping
from typing import Any

from harness.errors import RemoteError

ANSWER_SECONDS = 30
"""For the longest thing that a twin is asked: marking some thousand pages."""

_ANSWER_BYTES = 1 << 16


class TwinRefused(RemoteError):
    """The twin refused a word; *number* is the errno of its port's driver, or 0."""

    def __init__(self, name: str, word: str, answer: Mapping[str, Any]) -> None:
        super().__init__(
            f"{name} refused {word!r}",
            because=f"it said: {answer['error']}",
            fix="see `control.py` of `harness/twin` and `harness/chip` for what they take",
        )
        self.number = int(answer.get("errno", 0))


class TwinControl:
    """What a twin is asked and told, one thing at a time; see ``harness.twin.control``."""

    def __init__(self, name: str, connection: socket.socket, kind: str = "twin") -> None:
        """*name* and *kind* are what errors call the program by."""
        self._name = f"{name}: the {kind}"
        self._connection = connection
        self._connection.settimeout(ANSWER_SECONDS)

    def ask(self, word: str, **arguments: Any) -> Any:
        """Ask the twin; return its answer.  Raises TwinRefused with the twin's own words."""
        try:
            self._connection.sendall(json.dumps({"do": word, **arguments}).encode() + b"\n")
            answer = self._line()
        except OSError as gone:
            self._connection.close()  # a late answer would be taken for that to the next question
            raise RemoteError(
                f"{self._name} did not answer to {word!r}: {gone}",
                because="its program has ended, or hangs",
                fix="see its log on that host, beside its sockets",
            ) from None
        if "error" in answer:
            raise TwinRefused(self._name, word, answer)
        return answer["ok"]

    def close(self) -> None:
        self._connection.close()

    def _line(self) -> dict[str, Any]:
        data = b""
        while not data.endswith(b"\n"):
            more = self._connection.recv(_ANSWER_BYTES)
            if not more:
                raise ConnectionError("it closed the connection")
            data += more
        return dict(json.loads(data))
