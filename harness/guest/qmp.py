"""QMP for code that is not asynchronous: one connection, its events kept in the order they came.

The protocol is qemu.qmp's.  Its event loop runs in a thread of ours, shared by all connections.
Events are collected from before the first command on, so that none can be missed.
"""

from __future__ import annotations

import asyncio
import json
import socket
import threading
import time
from collections.abc import Callable, Coroutine, Mapping
from concurrent import futures
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, TypeVar

from qemu.qmp import (
    ConnectError,
    EventListener,
    ExecuteError,
    Message,
    QMPClient,
    QMPError,
    Runstate,
)

from harness.errors import MigrationError, RemoteError
from harness.waiting import Deadline

T = TypeVar("T")

ANSWER_SECONDS = 60
"""How long a command may take; those that take long are told of by events."""


class QemuGoneError(RemoteError):
    """QEMU closed its monitor, or never opened it: it ended."""


class RefusedError(MigrationError):
    """QEMU refused *command*, sent at *asked_ns* of our monotonic clock; *words* are its own."""

    def __init__(self, name: str, command: str, asked_ns: int, words: str) -> None:
        super().__init__(
            f"{name}: QEMU refused {command}",
            because=f"QEMU says: {words}",
            fix="the QMP log shows what was asked before it",
        )
        self.command = command
        self.asked_ns = asked_ns
        self.words = words


@dataclass(frozen=True, slots=True)
class QmpEvent:
    """One event as QEMU sent it; *realtime_ns* is QEMU's stamp, by its host's wall clock."""

    name: str
    data: Mapping[str, Any]
    realtime_ns: int

    @property
    def title(self) -> str:
        """The name, and for MIGRATION the status that it announces."""
        return f"{self.name} {self.data['status']}" if self.name == "MIGRATION" else self.name


@cache
def _loop() -> asyncio.AbstractEventLoop:
    loop = asyncio.new_event_loop()
    threading.Thread(target=loop.run_forever, name="qmp", daemon=True).start()
    return loop


class Qmp:
    """A connection to one QEMU, named for messages (``alder: guest``).

    *address* is a connected socket, which becomes ours, or the path of QEMU's own.  What is sent,
    answered and announced is written to *log*, one JSON object a line.
    """

    def __init__(
        self, name: str, address: socket.socket | str, log: Path | None = None, seconds: float = 10
    ) -> None:
        self.name = name
        self.events: list[QmpEvent] = []
        self._arrived = threading.Condition()
        self._ended = False
        self._log = log
        if log:
            log.touch()  # nothing may ever be said, and that is what it tells then
        self._client = QMPClient(name)
        self._client.register_listener(EventListener(event_filter=self._collect))
        try:
            self._run(self._client.connect(address), seconds, "the greeting")
        except ConnectError as failed:
            raise self._gone(failed) from None
        self._watch = asyncio.run_coroutine_threadsafe(self._until_ended(), _loop())

    def execute(self, command: str, arguments: Mapping[str, Any] | None = None) -> Any:
        """What QEMU returns.  Raises RefusedError with QEMU's own words if it refuses.

        Raises QemuGoneError if QEMU has ended, RemoteError if it does not answer.
        """
        self._note("sent", {"execute": command, "arguments": arguments or {}})
        asking = self._client.execute(command, dict(arguments) if arguments else None)
        asked_ns = time.monotonic_ns()
        try:
            answer = self._run(asking, ANSWER_SECONDS, command)
        except ExecuteError as refused:
            self._note("refused", {"class": refused.error_class, "desc": str(refused)})
            raise RefusedError(self.name, command, asked_ns, str(refused)) from None
        except QMPError as failed:
            raise self._gone(failed) from None
        self._note("answered", answer)
        return answer

    def wait_for(
        self,
        what: str,
        matches: Callable[[QmpEvent], bool],
        *,
        within: float | Deadline,
        since: int = 0,
    ) -> QmpEvent:
        """The first event from number *since* on that *matches*, if need be after waiting.

        Raises MigrationError, with the events that did come, when *within* is over or QEMU ends.
        """
        deadline = within if isinstance(within, Deadline) else Deadline(within)
        with self._arrived:
            while True:
                for event in self.events[since:]:
                    if matches(event):
                        return event
                if self._ended or not self._arrived.wait(deadline.remaining):
                    break
        seen = ", ".join(event.title for event in self.events[since:]) or "none"
        ended = "QEMU closed its connection" if self._ended else "the time is up"
        raise MigrationError(
            f"{self.name}: waited up to {deadline.seconds:g} s for {what}",
            because=f"{ended}; events seen: {seen}",
            fix="look at the guest's console and QEMU's log beside the QMP log",
        )

    @property
    def ended(self) -> bool:
        """Whether QEMU has closed this connection; QEMU does so when it ends."""
        return self._ended

    def log_text(self) -> str:
        """What has been written to the log so far."""
        return self._log.read_text() if self._log else ""

    def close(self) -> None:
        """End the connection; QEMU runs on.  May be called twice."""
        try:
            self._run(self._client.disconnect(), 5, "the end of the connection")
        except (QMPError, EOFError, OSError) as failed:
            self._note("closed", str(failed))
        finally:
            self._watch.cancel()

    def _collect(self, message: Message) -> bool:
        """Keep an event, in the order in which they come; the library need not."""
        event: dict[str, Any] = dict(message)
        stamp = event["timestamp"]
        seen = QmpEvent(
            event["event"],
            event.get("data", {}),
            stamp["seconds"] * 1_000_000_000 + stamp["microseconds"] * 1_000,
        )
        self._note("event", event)
        with self._arrived:
            self.events.append(seen)
            self._arrived.notify_all()
        return False

    async def _until_ended(self) -> None:
        """Tell those who wait that no event can come any more."""
        while self._client.runstate is Runstate.RUNNING:
            await self._client.runstate_changed()
        with self._arrived:
            self._ended = True
            self._arrived.notify_all()

    def _run(self, work: Coroutine[Any, Any, T], seconds: float, what: str) -> T:
        task = asyncio.run_coroutine_threadsafe(work, _loop())
        try:
            return task.result(seconds)
        except futures.TimeoutError:
            task.cancel()
            raise RemoteError(
                f"{self.name}: QEMU did not answer to {what} within {seconds:g} s",
                because="its main loop is stuck, or the connection is",
                fix="look at QEMU's log on that host",
            ) from None

    def _gone(self, failed: Exception) -> QemuGoneError:
        return QemuGoneError(
            f"{self.name}: the QMP connection failed",
            because=f"{failed}",
            fix="QEMU ended or never started: its own log says why",
        )

    def _note(self, kind: str, what: object) -> None:
        if self._log:
            line = {"monotonic_ns": time.monotonic_ns(), "kind": kind, "what": what}
            with self._log.open("a") as log:
                log.write(json.dumps(line, default=str) + "\n")
