"""Processes that stay, such as QEMU: started so that they can be ended by whoever comes later.

A process is named by its pid and its start time together, since pids come round again.
"""

from __future__ import annotations

import contextlib
import os
import select
import shlex
import shutil
import signal
import subprocess
from pathlib import Path
from typing import Any, Callable

from harness.agent.commands import start_process
from harness.agent.errors import AgentError
from harness.agent.files import refused

# Waits for a line before it becomes the command, under the same pid and start time.
# Should the agent die first, it reads end-of-file instead and becomes nothing.
_GATE = ["/bin/sh", "-c", 'IFS= read -r go && exec "$@" </dev/null', "gate"]
_DEATH_SECONDS = 5


def start_time(pid: int) -> int:
    """Give when a process started, in clock ticks since boot; 0 if there is none, or a zombie.

    Ref: proc(5), /proc/PID/stat, field 22; field 3 is the state.
    """
    try:
        stat = Path(f"/proc/{pid}/stat").read_text(errors="replace")
    except (FileNotFoundError, ProcessLookupError):
        return 0
    fields = stat.rpartition(")")[2].split()  # the name in field 2 may hold anything, ")" too
    return 0 if fields[0] in "ZX" else int(fields[19])


class Spawned:
    """The processes that this agent started to stay; they outlive it."""

    def __init__(self, record: Callable[[str, dict[str, Any]], int]) -> None:
        """*record* writes a journal entry, (what, undo) -> its number, before it returns."""
        self._record = record
        self._children: dict[int, subprocess.Popen[bytes]] = {}

    def spawn(self, argv: list[str], log: str, what: str = "") -> dict[str, int]:
        """Start a process that stays: {"pid", "started", "n"}, n being its journal entry.

        Its output is appended to the file *log*, readable by its owner only.  The entry that
        ends it is on the disk before it starts.  Raises AgentError if there is no such command.
        """
        if not argv or not shutil.which(argv[0]):
            raise AgentError(
                f"`{shlex.join(argv)}` could not be started: there is no such command",
                because="nothing was started",
                fix="install it on the host, or name another binary in the topology",
            )
        try:
            output = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
        except OSError as error:
            raise refused(f"opening the log {log}", error) from error
        try:
            child = start_process(
                [*_GATE, *argv], stdin=subprocess.PIPE, stdout=output, stderr=subprocess.STDOUT
            )
        finally:
            os.close(output)
        started = start_time(child.pid)
        undo = {"kind": "end", "pid": child.pid, "started": started}
        assert child.stdin
        try:
            with child.stdin as gate:
                number = self._record(what or f"started `{shlex.join(argv)}`", undo)
                gate.write(b"go\n")
        except AgentError:
            child.wait(_DEATH_SECONDS)  # its gate was shut, so it ends by itself
            raise
        self._children[child.pid] = child
        return {"pid": child.pid, "started": started, "n": number}

    def end(self, pid: int, started: int, seconds: float = 10.0) -> str:
        """End a process: "gone" if it was over, else what ended it, "SIGTERM" or "SIGKILL".

        SIGTERM first, SIGKILL after *seconds*; then the rest of its process group.  A process
        that has the pid but started at another time is none of ours and is left alone.
        """
        try:
            return end(pid, started, seconds)
        finally:
            child = self._children.get(pid)
            if child and child.poll() is not None:  # reaped: its pid may come round again
                del self._children[pid]


def end(pid: int, started: int, seconds: float) -> str:
    """End a process as `Spawned.end` does, whoever started it."""
    try:
        process = os.pidfd_open(pid)
    except ProcessLookupError:
        return "gone"
    try:
        if not started or start_time(pid) != started:
            return "gone"
        group = os.getpgid(pid)
        for name, patience in (("SIGTERM", seconds), ("SIGKILL", _DEATH_SECONDS)):
            with contextlib.suppress(ProcessLookupError):
                signal.pidfd_send_signal(process, getattr(signal, name))
            if select.select([process], [], [], patience)[0]:
                if group == pid:
                    with contextlib.suppress(ProcessLookupError):  # there was only the one
                        os.killpg(group, signal.SIGKILL)
                return name
    finally:
        os.close(process)
    raise AgentError(
        f"process {pid} did not end, not even of SIGKILL",
        because="it is stuck in a system call, often in a driver",
        fix=f"see /proc/{pid}/stack and the kernel log of this host",
    )
