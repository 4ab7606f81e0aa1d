"""``agent.pyz serve --state FOLDER``: carry out requests, one JSON line each, until stdin ends.

::

    {"id": 1, "verb": "read", "args": {"path": "/sys/..."}}
    {"id": 1, "ok": "4"}   or   {"id": 1, "error": {"what": .., "because": .., "fix": ..}}

Requests are served side by side, so replies may come in another order.  When stdin ends, on
SIGTERM, and when the lease expires, the agent itself puts the host back: nobody else may be there
to do it.
"""

from __future__ import annotations

import argparse
import contextlib
import inspect
import json
import os
import platform
import signal
import socket
import sys
import threading
import time
import typing
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Callable

import harness
from harness.agent import files, lent_vf, memory_frames, msr, processes
from harness.agent.bme import wait_for_bme
from harness.agent.commands import Commands
from harness.agent.errors import AgentError
from harness.agent.inspect_vf import inspect as inspect_vf
from harness.agent.journal import Journal, boot_id
from harness.agent.lease import Lease
from harness.agent.memory_digest import digest, digest_pages, speeds
from harness.agent.play import play
from harness.agent.processes import Spawned
from harness.agent.recorders import Recorders
from harness.agent.steps import Steps

STATE = "/var/lib/vf-harness"
RESTORE_INCOMPLETE = 12  # exit status: something could not be put back
_STUCK_SECONDS = 60  # how long a change that hangs in the kernel holds up putting back

_MUTATING = {
    *("write", "unlink", "mkdir", "spawn", "end"),
    *("vfio.inspect", "vf.play", "vf.set_master", "vf.reset", "journal.change", "journal.undo"),
}


Reply = Callable[[bytes], None]


class Agent:
    """What this host can be asked, and what it does by itself."""

    def __init__(self, state: str) -> None:
        self._state = state
        self._putting_back = threading.Lock()
        self._commands = Commands()
        self._recorders = Recorders()
        self._journal = Journal(state)
        self._spawned = Spawned(self._journal.record)
        self._perform = Steps(self._commands, self._spawned).perform
        self.lease = Lease(state, lambda: self.put_back("the lease expired"))
        self._verbs: dict[str, Callable[..., Any]] = {
            "hello": self._hello,
            "clock": _clock,
            "run": self._commands.run,
            "read": files.read,
            "write": files.write,
            "exists": files.exists,
            "listdir": files.listdir,
            "readlink": files.readlink,
            "unlink": files.unlink,
            "mkdir": files.mkdir,
            "start": self._recorders.start,
            "stop": self._recorders.stop,
            "spawn": self._spawned.spawn,
            "end": self._spawned.end,
            "bme.wait": wait_for_bme,
            "memory.digest": digest,
            "memory.digest_pages": digest_pages,
            "memory.speeds": speeds,
            "memory.newest_frame": memory_frames.newest,
            "memory.read": memory_frames.read,
            "msr.read": msr.read,
            "vfio.inspect": inspect_vf,
            "vf.play": play,
            "vf.registers": lent_vf.registers,
            "vf.set_master": lent_vf.set_master,
            "vf.reset": lent_vf.reset,
            "journal.change": self._change,
            "journal.undo": self._undo,
            "journal.pending": self._journal.pending,
            "lease.take": self._take,
            "lease.renew": self.lease.renew,
            "lease.linger": self.lease.linger,
            "lease.give_back": self._give_back,
            "lease.show": self.lease.show,
            "lease.evict": self._evict,
        }

    def serve(self, lines: Iterable[bytes], reply: Reply) -> None:
        """Serve requests until *lines* end, each answered by *reply*."""
        for line in lines:
            try:
                request = json.loads(line)
                number, verb, args = request["id"], request["verb"], dict(request.get("args", {}))
            except (ValueError, TypeError, KeyError) as error:
                _answer(reply, {"id": None, "error": _not_a_request(line, error).as_dict()})
                continue
            if verb == "clock":  # at once: a thread's start would be counted as way
                _answer(reply, {"id": number, "ok": _clock()})
                continue
            threading.Thread(
                target=self._handle, args=(number, verb, args, reply), daemon=True
            ).start()

    def put_back(self, why: str) -> list[dict[str, Any]]:
        """Stop what runs and, if we have the lease, undo the journal; what could not be undone."""
        with self._putting_back:
            ours = self.lease.fence(0)
            self._commands.end_all()
            self.lease.fence(_STUCK_SECONDS)
            try:
                faults = self._recorders.stop_all()
                failures = self._journal.undo(self._perform) if ours else []
                if ours or faults:
                    self._note(why, faults, failures)
                return failures
            finally:
                self.lease.release()

    def _handle(self, number: Any, verb: str, args: dict[str, Any], reply: Reply) -> None:
        answer: dict[str, Any] = {"error": _failed(verb).as_dict()}
        try:
            answer = {"ok": self._carry_out(verb, args)}
        except AgentError as error:
            answer = {"error": error.as_dict()}
        finally:  # also after a fault of ours, whose traceback goes to stderr
            _answer(reply, {"id": number, **answer})

    def _carry_out(self, verb: str, args: dict[str, Any]) -> Any:
        function = self._verbs.get(verb)
        if not function:
            raise AgentError(
                f"there is no verb {verb!r}",
                because="this agent does not know it, so nothing was done",
                fix=f"it knows {', '.join(sorted(self._verbs))}",
            )
        changes = verb in _MUTATING
        if verb == "run":
            changes = args.pop("changes", False)
        if not changes:
            _check_arguments(verb, function, args)
            return function(**args)
        number = args.pop("lease", 0)
        _check_arguments(verb, function, args)
        with self.lease.admit(number):
            return function(**args)

    def _hello(self) -> dict[str, Any]:
        return {
            "version": harness.__version__,
            "python": platform.python_version(),
            "kernel": platform.release(),
            "pid": os.getpid(),
            "euid": os.geteuid(),
            "hostname": socket.gethostname(),
            "boot": boot_id(),
        }

    def _change(self, what: str, undo: dict[str, Any], do: dict[str, Any]) -> int:
        return self._journal.change(what, undo, do, self._perform)

    def _undo(self, down_to: int = 1, only: bool = False) -> list[dict[str, Any]]:
        return self._journal.undo(self._perform, down_to, only)

    def _take(self, holder: str, seconds: float) -> int:
        number = self.lease.take(holder, seconds)
        self._journal.begin()
        return number

    def _give_back(self, number: int) -> None:
        with self.lease.admit(number):
            left = [entry["what"] for entry in self._journal.pending()]
            if left:
                raise AgentError(
                    f"{len(left)} changes are not undone: {'; '.join(left)}",
                    because="without a lease nobody would put the host back",
                    fix="undo the journal first; the agent tries once more when its stdin ends",
                )
            self.lease.release()

    def _evict(self, seconds: float = 60.0) -> str:
        """End the agent that has the lease, after it put the host back; as `end` says it."""
        note = self.lease.show()
        if not note.get("held") or note["pid"] == os.getpid():
            return "gone"
        return processes.end(note["pid"], note["started"], seconds)

    def _note(self, why: str, faults: list[str], failures: list[dict[str, Any]]) -> None:
        line = {"realtime_s": time.time(), "put_back": why, "faults": faults, "failed": failures}
        files.mkdir(self._state)
        with open(Path(self._state, "agent.log"), "a") as log:
            log.write(json.dumps(line) + "\n")


def main(arguments: list[str]) -> int:
    """Serve on stdin and stdout; 0, or 12 if something could not be put back."""
    parser = argparse.ArgumentParser(prog="agent.pyz serve")
    parser.add_argument("--state", default=STATE, help="folder of the journal and the lease")
    os.umask(0o077)
    agent = Agent(parser.parse_args(arguments).state)
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, _end)
    why = "the controller went away"
    try:
        agent.serve(sys.stdin.buffer, replier(sys.stdout.fileno()))
        if agent.lease.lingering:
            agent.lease.wait()
    except _SignalError as ended:
        why = f"ended by {ended}"
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    return RESTORE_INCOMPLETE if agent.put_back(why) else 0


class _SignalError(Exception):
    """A signal asked us to end."""


def _end(number: int, _frame: object) -> None:
    raise _SignalError(signal.Signals(number).name)


def replier(output: int) -> Reply:
    """Make what writes answers to the descriptor *output*, one at a time."""
    lock = threading.Lock()

    def reply(line: bytes) -> None:
        with lock:
            while line:
                line = line[os.write(output, line) :]

    return reply


def _answer(reply: Reply, message: dict[str, Any]) -> None:
    with contextlib.suppress(BrokenPipeError):  # who asked has gone; the end of its lines says so
        reply(json.dumps(message).encode() + b"\n")


def _clock() -> dict[str, int]:
    before = time.monotonic_ns()
    realtime = time.time_ns()
    return {"monotonic_ns": (before + time.monotonic_ns()) // 2, "realtime_ns": realtime}


def _check_arguments(verb: str, function: Callable[..., Any], args: dict[str, Any]) -> None:
    """Raise AgentError unless *args* are what *function* declares."""
    faults = []
    try:
        inspect.signature(function).bind(**args)
    except TypeError as error:
        faults.append(str(error))
    hints = typing.get_type_hints(function)
    for name, value in args.items():
        kind = typing.get_origin(hints.get(name)) or hints.get(name, object)
        if not isinstance(value, (int, float) if kind is float else kind):
            faults.append(f"{name} is to be {kind.__name__}, not {value!r}")
    if faults:
        raise AgentError(
            f"bad arguments to {verb}: {'; '.join(faults)}",
            because="nothing was done",
            fix=f"it takes {inspect.signature(function)}",
        )


def _not_a_request(line: bytes, error: Exception) -> AgentError:
    return AgentError(
        f"{line[:80]!r} is not a request: {error!r}",
        because="a request is one line: a JSON object with id, verb and args",
        fix="speak to the agent through harness.remote",
    )


def _failed(verb: str) -> AgentError:
    return AgentError(
        f"the agent failed at {verb}",
        because="the fault is the agent's own; its stderr has the traceback",
        fix="report it with that traceback",
    )
