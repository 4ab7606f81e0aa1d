"""QEMU as its monitor shows it: a server that speaks QMP, and two of them that migrate.

Ref: QEMU, docs/interop/qmp-spec.rst and qapi/migration.json.
"""

from __future__ import annotations

import json
import socket
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

GREETING = {"QMP": {"version": {"qemu": {"major": 10, "minor": 0, "micro": 2}, "package": ""},
                    "capabilities": []}}  # fmt: skip

Arguments = Mapping[str, Any]
Reaction = Callable[[Arguments], object]


class RefusedError(Exception):
    """What QEMU answers instead of a result; the text is its ``desc``."""


class Monitor:
    """One QEMU and its monitor, which serves the client that has the socket *near*.

    asked     the commands that came, in order
    reacts    what a command does and returns; any other returns {}
    ignores   commands that are never answered
    """

    def __init__(self, name: str = "alder", *, greets: bool = True) -> None:
        self.name = name
        self.state = "running"
        self.migration: dict[str, Any] = {"status": "none"}
        self.asked: list[tuple[str, Arguments]] = []
        self.ignores: set[str] = set()
        self.reacts: dict[str, Reaction] = {
            "query-status": lambda _: {"running": self.state == "running", "status": self.state},
            "query-migrate": lambda _: self.migration,
        }
        self.stamp_us = 0
        self.near, self._far = socket.socketpair()
        self._serving = threading.Thread(target=self._serve, args=(greets,), name=f"qemu-{name}")
        self._serving.start()

    def emit(self, event: str, /, **data: object) -> None:
        """Announce an event, a microsecond of the wall clock after the one before."""
        self.stamp_us += 1
        stamp = {"seconds": 1_700_000_000, "microseconds": self.stamp_us}
        self._say({"event": event, "data": data, "timestamp": stamp})

    def end(self) -> None:
        """End this process: its monitor closes."""
        self._far.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        """Leave neither a thread nor a socket behind."""
        self.near.close()
        try:
            self.end()
        except OSError:  # the client has gone, or this process has ended
            pass
        self._serving.join(5)
        assert not self._serving.is_alive()
        self._far.close()

    def _serve(self, greets: bool) -> None:
        if greets:
            self._say(GREETING)
        with self._far.makefile("r") as lines:
            for line in lines:
                request = json.loads(line)
                command = request["execute"]
                if command == "qmp_capabilities":
                    self._say({"return": {}})
                    continue
                self.asked.append((command, request.get("arguments", {})))
                if command not in self.ignores:
                    self._say(self._answer(command, request) | {"id": request["id"]})

    def _answer(self, command: str, request: Mapping[str, Any]) -> dict[str, object]:
        react = self.reacts.get(command, lambda _: {})
        try:
            return {"return": react(request.get("arguments", {}))}
        except RefusedError as refused:
            return {"error": {"class": "GenericError", "desc": str(refused)}}

    def _say(self, message: Mapping[str, object]) -> None:
        try:
            self._far.sendall(json.dumps(message).encode() + b"\r\n")
        except BrokenPipeError:
            pass  # as QEMU does when its client has gone
