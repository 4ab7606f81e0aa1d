"""A machine of the lab, as the rest of the harness sees it: commands, files, recorders, changes."""

from __future__ import annotations

import contextlib
import logging
import shlex
import socket
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from harness.clock import Reading
from harness.errors import HarnessError, RestoreError
from harness.remote import zipapp
from harness.remote.agent import AgentClient
from harness.remote.lease import Lease
from harness.remote.recorder import Recorder
from harness.remote.relay import Relay
from harness.remote.transport import LIMIT_BYTES, Completed, Transport

_commands = logging.getLogger("harness.commands")
_MARGIN_SECONDS = 10.0  # for the agent to answer that a deadline has passed
_UNDO_SECONDS = 120.0

Step = Mapping[str, Any]  # see harness.agent.steps


@dataclass(frozen=True, slots=True)
class Facts:
    """What a machine's agent says of itself and of where it runs."""

    version: str
    python: str
    kernel: str
    pid: int
    euid: int
    hostname: str
    boot: str


@dataclass(frozen=True, slots=True)
class Process:
    """A process that stays, by pid and start time (clock ticks since boot); and its undo entry."""

    pid: int
    started: int
    number: int


class Host:
    """One machine, asked through its agent.  Closing it ends the agent, which puts things back.

    Raises RemoteError, or one of its kinds, from every method.
    """

    def __init__(
        self,
        name: str,
        transport: Transport,
        agent: AgentClient,
        *,
        app: str,
        folder: str,
        seconds: float = 30.0,
    ) -> None:
        """*app* is where the agent lies on the machine, *folder* what is ours there.

        Raises DeadlineError if it does not answer within *seconds*.
        """
        self.name = name
        self.transport = transport
        self.lease = Lease(agent.call)
        self._agent = agent
        self._app = app
        self._folder = folder
        self._relays: list[Relay] = []
        self.facts = Facts(**agent.call("hello", patience_s=seconds))

    @property
    def is_gone(self) -> bool:
        """Whether its agent or the connection has ended, so that nothing can be asked of it."""
        return self._agent.is_gone

    def run(
        self,
        *argv: str,
        seconds: float = 30.0,
        check: bool = True,
        changes: bool = False,
        stdin: str = "",
        limit_bytes: int = LIMIT_BYTES,
    ) -> Completed:
        """Run a command until it ends; its process group is killed after *seconds*.

        *changes* says that it changes the host, which needs the lease.  Raises CommandError if
        it fails, unless *check* is false.
        """
        args: dict[str, Any] = {"argv": list(argv), "stdin_text": stdin, "limit_bytes": limit_bytes}
        if changes:
            args |= {"changes": True, "lease": self.lease.number}
        with self._logged(shlex.join(argv), logging.INFO) as note:
            result = self.ask("run", seconds=seconds, **args)
            note.append(f"status {result['status']}")
        completed = Completed(host=self.name, argv=argv, **result)
        return completed.check() if check else completed

    def read_text(self, path: str) -> str:
        """Read a small text file, such as an attribute of sysfs, as it is."""
        with self._logged(f"cat {shlex.quote(path)}", logging.DEBUG):
            return str(self.ask("read", path=path))

    def write_text(self, path: str, text: str) -> None:
        """Write a small file in one go.  What the kernel refuses is named by its errno."""
        with self._logged(f"printf %s {shlex.quote(text)} > {shlex.quote(path)}", logging.INFO):
            self._change("write", path=path, text=text)

    def exists(self, path: str) -> bool:
        return bool(self.ask("exists", path=path))

    def listdir(self, path: str) -> list[str]:
        """List the names in a folder, sorted."""
        return list(self.ask("listdir", path=path))

    def readlink(self, path: str) -> str:
        """Read where a link points, as it is written in it."""
        return str(self.ask("readlink", path=path))

    def unlink(self, path: str) -> None:
        with self._logged(f"rm {shlex.quote(path)}", logging.INFO):
            self._change("unlink", path=path)

    def scratch(self, name: str) -> str:
        """Give a path for a file of ours on the machine; its folder is there."""
        path = f"{self._folder}/{name}"
        if "/" in name:
            self._change("mkdir", path=str(Path(path).parent))
        return path

    def install(self, program: str) -> str:
        """Put the zipapp of *program* on the machine, unless it is there; its path."""
        app = zipapp.build(program)
        path = self.scratch(app.name)
        if not self.exists(path):
            self.send(app.data, path)
        return path

    def send(self, source: bytes | Path, path: str, *, seconds: float = 120.0) -> None:
        """Write a file of any size, mode 0600; it is there whole or not at all."""
        with self._logged(f": send {shlex.quote(path)}", logging.INFO):
            self.transport.send_file(source, path, seconds=seconds)

    def fetch(self, path: str, *, seconds: float = 120.0) -> bytes:
        """Read a file of any size."""
        with self._logged(f": fetch {shlex.quote(path)}", logging.DEBUG):
            return self.transport.fetch_file(path, seconds=seconds)

    def start(self, program: str, spec: Mapping[str, Any], *, seconds: float = 30.0) -> Recorder:
        """Start one of the agent's recorders; it records when this returns."""
        with self._logged(f": start {program}", logging.INFO):
            started = self.ask("start", seconds=seconds, program=program, spec=dict(spec))
        return Recorder(self, started["recorder"], started["ready"])

    def clock_readings(self, count: int = 10) -> list[Reading]:
        """Read its monotonic clock against ours (time.monotonic_ns), one exchange each."""
        readings = []
        for _ in range(count):
            before_ns = time.monotonic_ns()
            there_ns = self.ask("clock")["monotonic_ns"]
            readings.append(Reading(before_ns, there_ns, time.monotonic_ns()))
        return readings

    def realtime_minus_monotonic_ns(self) -> int:
        """Ask how far its wall clock is ahead of its monotonic clock just now."""
        clock = self.ask("clock")
        return int(clock["realtime_ns"] - clock["monotonic_ns"])

    def socket_to(self, path: str, *, seconds: float = 30.0) -> socket.socket:
        """Connect to a unix socket over there; the caller closes what it gets.

        The way there ends when this host is closed.
        """
        argv = ["python3", "-I", self._app, "relay", path]
        with self._logged(shlex.join(argv), logging.INFO):
            relay = Relay(self.name, self.transport.open(argv, seconds=seconds), seconds)
        self._relays.append(relay)
        return relay.near

    def spawn(self, argv: Sequence[str], *, log: str, what: str = "") -> Process:
        """Start a process that stays, such as QEMU; its output is appended to the file *log*.

        That it is ours to end is journalled before it starts.
        """
        with self._logged(f"{shlex.join(argv)} >> {shlex.quote(log)} 2>&1 &", logging.INFO):
            made = self._change("spawn", argv=list(argv), log=log, what=what)
        return Process(made["pid"], made["started"], made["n"])

    def end(self, process: Process, *, seconds: float = 10.0) -> str:
        """End a process: "gone" if it was over already, else "SIGTERM" or "SIGKILL".

        SIGTERM first, SIGKILL after *seconds*.
        """
        with self._logged(f"kill {process.pid}", logging.INFO):
            how = self._change("end", seconds=seconds, pid=process.pid, started=process.started)
            self._change("journal.undo", down_to=process.number, only=True)
        return str(how)

    def change(self, what: str, *, do: Step, undo: Step) -> int:
        """Carry out *do* after *undo* is on the host's disk; the number of that entry."""
        with self._logged(f"{_as_shell(do)}  # {what}", logging.INFO):
            number = self._change(
                "journal.change", seconds=_UNDO_SECONDS, what=what, do=dict(do), undo=dict(undo)
            )
        return int(number)

    def inspect_vf(self, pci: str) -> dict[str, Any]:
        """Look at a VF through VFIO; see ``harness.agent.inspect_vf``."""
        with self._logged(f": inspect {pci} through VFIO", logging.INFO):
            return dict(self._change("vfio.inspect", address=pci))

    def wait_for_bme(self, pci: str, *, seconds: float) -> int:
        """Wait until BME of a VF is set, at most *seconds*; return COMMAND as it was last seen."""
        with self._logged(f": wait for BME of {pci}", logging.INFO):
            return int(self.ask("bme.wait", seconds=seconds, address=pci))

    def undo(self, down_to: int = 1, *, only: bool = False) -> None:
        """Undo what is journalled, the last first, down to that entry, or *only* that one.

        Nothing is undone while the lease lingers.  Raises RestoreError, when all was tried, with
        what could not be undone.
        """
        if self.lease.lingers:
            return
        with self._logged(f": undo {'only' if only else 'down to'} {down_to}", logging.INFO):
            failures = self._change(
                "journal.undo", seconds=_UNDO_SECONDS, down_to=down_to, only=only
            )
        if failures:
            raise RestoreError(
                f"{self.name}: not undone: {'; '.join(one['what'] for one in failures)}",
                because="; ".join(one["because"] for one in failures),
                fix=f"mend the cause, then `vf-harness restore --lab LAB {self.name}`",
            )

    def pending(self) -> list[dict[str, Any]]:
        """List what is journalled and not undone: n, what, undo, boot; oldest first."""
        return list(self.ask("journal.pending"))

    def ask(self, verb: str, *, seconds: float = 30.0, **args: Any) -> Any:
        """Ask the agent.  Verbs that have a deadline of their own are given *seconds* of it."""
        if verb in ("run", "start", "stop", "end", "bme.wait"):
            args["seconds"] = seconds
        doing = shlex.join(args["argv"]) if "argv" in args else f"{verb} {args.get('path', '')}"
        return self._agent.call(
            verb, patience_s=seconds + _MARGIN_SECONDS, during=doing.strip(), **args
        )

    def close(self) -> None:
        """End the agent and the connection.  Raises RemoteError if putting back takes too long.

        An agent whose lease lingers is left alone until this process ends: the agent then sees the
        end of its input, and waits for the deadline.
        """
        if self.lease.lingers:
            return
        with contextlib.ExitStack() as stack:
            stack.callback(self.transport.close)
            stack.callback(self._agent.close)
            for relay in self._relays:
                stack.callback(relay.close)

    def abandon(self) -> None:
        """Drop a connection that leads nowhere any more, without waiting for the other end."""
        self.transport.close()
        for relay in self._relays:
            relay.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def act(self, verb: str, *, seconds: float = 30.0, **args: Any) -> Any:
        """Have the agent do what changes something for as long as its object is lent, no longer."""
        with self._logged(f": {verb} {args}", logging.INFO):
            return self._change(verb, seconds=seconds, **args)

    def _change(self, verb: str, *, seconds: float = 30.0, **args: Any) -> Any:
        return self.ask(verb, seconds=seconds, lease=self.lease.number, **args)

    @contextlib.contextmanager
    def _logged(self, command: str, level: int) -> Iterator[list[str]]:
        """Log a command with how it ended, in a form that can be pasted into a shell there."""
        began = time.monotonic()
        note: list[str] = []
        try:
            yield note
        except HarnessError as error:
            note.append(error.what)
            raise
        finally:
            how = "; ".join(note) or "done"
            seconds = time.monotonic() - began
            _commands.log(level, "[%s] $ %s  # %s, %.3f s", self.name, command, how, seconds)


def _as_shell(step: Step) -> str:
    if step["kind"] == "write":
        return f"printf %s {shlex.quote(step['text'])} > {shlex.quote(step['path'])}"
    if step["kind"] == "run":
        return shlex.join(step["argv"])
    return f"kill {step['pid']}" if step["kind"] == "end" else f"rm {shlex.quote(step['path'])}"
