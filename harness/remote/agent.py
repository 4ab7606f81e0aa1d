"""Speaking with the agent on a machine: requests out, replies matched to them by number."""

from __future__ import annotations

import itertools
import json
import logging
import queue
import threading
from collections.abc import Callable, Iterator
from typing import Any

from harness.errors import HarnessError, LabBusy, RemoteError
from harness.remote import zipapp
from harness.remote.transport import DeadlineError, HostGoneError, Stream, Transport
from harness.waiting import Deadline

_LAST_WORDS_SECONDS = 5
_LOOK = 'mkdir -p -m 700 "$1" && if test -e "$2"; then echo there; fi'
_log = logging.getLogger(__name__)


def install(transport: Transport, folder: str, deadline: Deadline) -> str:
    """Put the zipapp into *folder* on the machine unless it is there; its path.

    The folder is made for its owner alone.  Raises RemoteError.
    """
    app = zipapp.build()
    path = f"{folder}/{app.name}"
    look = ["sh", "-c", _LOOK, "sh", folder, path]
    if not transport.run(look, seconds=deadline.remaining).check().stdout:
        transport.send_file(app.data, path, seconds=deadline.remaining)
    return path


class AgentClient:
    """One running agent.  Calls may come from several threads and are served side by side.

    It owns the stream; `close` ends the agent, which then puts the machine back.
    """

    def __init__(self, host: str, stream: Stream) -> None:
        self._host = host
        self._stream = stream
        self._numbers = itertools.count(1)
        self._lock = threading.Lock()
        self._waiting: dict[int, queue.SimpleQueue[dict[str, Any] | None]] = {}
        self._fault: HarnessError | None = None  # why it cannot go on, by its own account
        self._last_words: str | None = None  # on stderr, once it has gone
        self._reader = threading.Thread(target=self._read, name=f"agent-{host}", daemon=True)
        self._reader.start()

    @property
    def is_gone(self) -> bool:
        """Whether the agent or the connection has ended, so that no request is answered."""
        return self._last_words is not None

    def call(self, verb: str, *, patience_s: float = 30.0, during: str = "", **args: Any) -> Any:
        """Ask the agent, and return what it answers within *patience_s*.

        *during* is what a person would call that, such as the command; by default the verb.

        Raises RemoteError with the agent's own three parts, LabBusy if someone else has the
        lease, DeadlineError if no answer comes in time, HostGoneError if none can come any more.
        """
        deadline, doing = Deadline(patience_s), f"`{during or verb}`"
        number = next(self._numbers)
        replies: queue.SimpleQueue[dict[str, Any] | None] = queue.SimpleQueue()
        with self._lock:
            if self._last_words is not None:
                raise self._gone_during(doing)
            self._waiting[number] = replies
        try:
            request = {"id": number, "verb": verb, "args": args}
            self._send(request, patience_s)
            reply = replies.get(timeout=deadline.remaining)
        except queue.Empty:
            words = self._stream.last_words()
            raise DeadlineError(self._host, doing, patience_s, words) from None
        finally:
            with self._lock:
                self._waiting.pop(number, None)
        if reply is None:
            raise self._gone_during(doing)
        if "error" in reply:
            raise _as_error(self._host, reply["error"])
        return reply["ok"]

    def close(self, seconds: float = 120.0) -> None:
        """End the agent and wait until it has put the machine back.

        Raises DeadlineError if that takes longer than *seconds*; the agent goes on with it then.
        """
        self._stream.end()
        self._reader.join(timeout=seconds)
        late = self._reader.is_alive()
        self._stream.close()
        if late:
            raise DeadlineError(self._host, "putting the host back", seconds)

    def _gone_during(self, doing: str) -> HarnessError:
        words = self._last_words or ""
        return self._fault or HostGoneError(
            self._host, f"its agent went away during {doing}", words
        )

    def _send(self, request: dict[str, Any], patience_s: float) -> None:
        try:
            self._stream.send(json.dumps(request).encode() + b"\n", patience_s)
        except HostGoneError:
            self._reader.join(_LAST_WORDS_SECONDS)  # it may know why
            raise self._gone_during("a request") from None

    def _read(self) -> None:
        try:
            for line in _lines(self._stream.receive):
                message = json.loads(line)
                if message.get("id") is None:  # it cannot go on: an old Python, a bad request
                    self._fault = _as_error(self._host, message["error"])
                    continue
                with self._lock:
                    replies = self._waiting.get(message["id"])
                if replies:
                    replies.put(message)
                else:
                    _log.debug("%s: a reply came after its deadline: %s", self._host, message)
        finally:
            words = self._stream.last_words()
            with self._lock:
                self._last_words = words
                for replies in self._waiting.values():
                    replies.put(None)


def _lines(receive: Callable[[], bytes]) -> Iterator[bytes]:
    rest = bytearray()
    while data := receive():
        *whole, last = data.split(b"\n")
        for line in whole:
            yield bytes(rest) + line
            rest.clear()
        rest += last


def _as_error(host: str, error: dict[str, Any]) -> HarnessError:
    kind = LabBusy if error.get("busy") else RemoteError
    return kind(f"{host}: {error['what']}", because=error["because"], fix=error["fix"])
