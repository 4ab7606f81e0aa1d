"""QEMU as its monitor shows it: a server that speaks QMP, and two of them that migrate.

Ref: QEMU, docs/interop/qmp-spec.rst and qapi/migration.json.
"""

from __future__ import annotations

import json
import socket
import threading
from collections.abc import Callable, Iterator, Mapping
from typing import Any

GREETING = {"QMP": {"version": {"qemu": {"major": 10, "minor": 0, "micro": 2}}, "capabilities": []}}

Arguments = Mapping[str, Any]
Reaction = Callable[[Arguments], object]


class RefusedError(Exception):
    """What QEMU answers instead of a result; the text is its ``desc``."""


class Monitor:
    """One QEMU and its monitor, which serves the client that has the socket *near*.

    asked     the commands that came, in order
    reacts    what a command does and returns; any other returns {}
    ignores   commands that are never answered
    paused    whether it was started paused, and waits for ``cont`` once its guest is loaded
    then      what happens once the next command has been answered
    later     what happens by itself
    """

    def __init__(self, name: str = "alder", *, state: str = "running", greets: bool = True) -> None:
        self.name = name
        self.state = state
        self.migration: dict[str, Any] = {"status": "none"}
        self.announces_steps = False
        self.asked: list[tuple[str, Arguments]] = []
        self.ignores: set[str] = set()
        self.paused = False
        self.then: list[Callable[[], None]] = []
        self.later: threading.Thread | None = None
        self.reacts: dict[str, Reaction] = {
            "query-status": lambda _: {"running": self.state == "running", "status": self.state},
            "query-migrate": lambda _: self.migration,
            "migrate-set-capabilities": self._set_capabilities,
        }
        self.near, self._far = socket.socketpair()
        self._speaking = threading.Lock()
        self._stamp_us = 0
        self._serving = threading.Thread(target=self._serve, args=(greets,), name=f"qemu-{name}")
        self._serving.start()

    def emit(self, event: str, /, **data: object) -> None:
        """Announce an event, each a microsecond of the wall clock after the one before."""
        self._stamp_us += 1
        stamp = {"seconds": 1_700_000_000, "microseconds": self._stamp_us}
        self.say({"event": event, "data": data, "timestamp": stamp})

    def run_on(self) -> None:
        """Let the guest run."""
        self.state = "running"
        self.emit("RESUME")

    def step(self, status: str) -> None:
        """Come to a step of a migration, and announce it if that was asked for."""
        self.migration = {"status": status}
        if self.announces_steps:
            self.emit("MIGRATION", status=status)

    def say(self, message: Mapping[str, object]) -> None:
        """Send *message* to the client, if there is still one."""
        with self._speaking:
            try:
                self._far.sendall(json.dumps(message).encode() + b"\r\n")
            except BrokenPipeError:
                return  # QEMU does not care either

    def end(self) -> None:
        """End this process: its monitor closes."""
        self._far.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        """Leave neither a thread nor a socket behind."""
        if self.later:
            self.later.join(5)
        self.end()
        self._serving.join(5)
        assert not self._serving.is_alive()
        self._far.close()
        self.near.close()

    def _serve(self, greets: bool) -> None:
        if greets:
            self.say(GREETING)
        for request in self._requests():
            if request["execute"] == "qmp_capabilities":
                self.say({"return": {}})
            else:
                self._obey(request["execute"], request.get("arguments", {}), request["id"])

    def _requests(self) -> Iterator[dict[str, Any]]:
        """Read what the client sends: JSON objects, with nothing between them that ends one."""
        text, decoder = "", json.JSONDecoder()
        while data := self._far.recv(65536):
            text += data.decode()
            while text:
                try:
                    request, end = decoder.raw_decode(text)
                except json.JSONDecodeError:
                    break  # the rest of it is still to come
                yield request
                text = text[end:].lstrip()

    def _obey(self, command: str, arguments: Arguments, number: str) -> None:
        self.asked.append((command, arguments))
        if command in self.ignores:
            return
        react = self.reacts.get(command)
        try:
            answer: dict[str, object] = {"return": react(arguments) if react else {}}
        except RefusedError as refused:
            answer = {"error": {"class": "GenericError", "desc": str(refused)}}
        self.say(answer | {"id": number})
        happenings, self.then = self.then, []
        for happening in happenings:
            happening()

    def _set_capabilities(self, arguments: Arguments) -> object:
        for each in arguments["capabilities"]:
            if each["capability"] == "events":
                self.announces_steps = each["state"]
        return {}


def connected(
    source: Monitor,
    destination: Monitor,
    *,
    fails: str | None = None,
    resumes_after_s: float = 0.0,
) -> None:
    """Let a migration from *source* lead to *destination*, or end with the error *fails*.

    The guest runs on *resumes_after_s* after the source has said ``completed``.
    When a migration fails, the source runs on and the destination ends: that is what QEMU's
    ``migrate-incoming`` does unless ``exit-on-error`` is given as false.
    """

    def listen(_: Arguments) -> object:
        if destination.state != "inmigrate":
            raise RefusedError("'-incoming' was not specified on the command line")
        destination.step("setup")
        return {}

    def migrate(_: Arguments) -> object:
        if destination.migration["status"] != "setup":
            raise RefusedError("Connection refused")
        source.then.append(lambda: _move(source, destination, fails, resumes_after_s))
        return {}

    destination.reacts["migrate-incoming"] = listen
    source.reacts["migrate"] = migrate


def _move(source: Monitor, destination: Monitor, fails: str | None, resumes_after_s: float) -> None:
    source.step("setup")
    destination.step("active")
    source.step("active")
    if fails:
        destination.end()
        source.step("failed")
        source.migration["error-desc"] = fails
        return
    source.emit("STOP")
    source.state = "postmigrate"
    source.step("device")
    source.step("completed")
    source.migration |= {"downtime": 224, "total-time": 4740}
    destination.later = threading.Timer(resumes_after_s, _resume, [destination])
    destination.later.start()


def _resume(destination: Monitor) -> None:
    if destination.paused:
        destination.state = "paused"
        destination.step("completed")
        destination.reacts["cont"] = lambda _: destination.then.append(destination.run_on)
        return
    destination.run_on()
    destination.step("completed")
