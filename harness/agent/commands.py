"""Commands that end by themselves, each in a process group of its own and with a deadline."""

from __future__ import annotations

import contextlib
import os
import selectors
import shlex
import signal
import subprocess
import threading
import time
from collections.abc import Iterator
from typing import IO, Any

from harness.agent.errors import AgentError
from harness.agent.files import LIMIT_BYTES

_DEATH_SECONDS = 2  # a process that does not die of SIGKILL by then is stuck in a system call
_LAST_BYTES = 2000  # how much of stderr an error quotes


class Commands:
    """The commands that run now, so that all of them can be ended at once."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._running: set[subprocess.Popen[bytes]] = set()

    def run(
        self,
        argv: list[str],
        stdin_text: str = "",
        seconds: float = 30.0,
        limit_bytes: int = LIMIT_BYTES,
    ) -> dict[str, Any]:
        """Run a command: its status (negative: the signal that ended it), both streams, seconds.

        It is over when the process that *argv* started is over: what that left behind in the
        background is neither waited for nor read.  Raises AgentError if there is no such command,
        if it outlives *seconds* or says more than *limit_bytes* on one stream; then its whole
        process group is killed.
        """
        started = time.monotonic()
        with self._start(argv, stdin_text) as process:
            drain = _Drain(process, stdin_text.encode(), limit_bytes)
            fault = drain.until(started + seconds)
            if fault:
                raise _not_ended(argv, fault, seconds, limit_bytes, drain.stderr)
            return {
                "status": process.wait(),
                "stdout": drain.stdout.decode(errors="backslashreplace"),
                "stderr": drain.stderr.decode(errors="backslashreplace"),
                "seconds": time.monotonic() - started,
            }

    def end_all(self) -> None:
        """Kill every command that runs now, with its process group."""
        with self._lock:
            for process in self._running:
                kill_group(process)

    @contextlib.contextmanager
    def _start(self, argv: list[str], stdin_text: str) -> Iterator[subprocess.Popen[bytes]]:
        process = start_process(
            argv,
            stdin=subprocess.PIPE if stdin_text else subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
        with self._lock:
            self._running.add(process)
        try:
            yield process
        finally:
            if process.poll() is None:
                kill_group(process)
                with contextlib.suppress(subprocess.TimeoutExpired):  # stuck inside the kernel
                    process.wait(_DEATH_SECONDS)
            with self._lock:
                self._running.discard(process)
            for stream in (process.stdin, process.stdout, process.stderr):
                if stream:
                    stream.close()


class _Drain:
    """Feeds stdin and empties both output streams of a process, whichever is ready."""

    def __init__(self, process: subprocess.Popen[bytes], stdin: bytes, limit_bytes: int) -> None:
        assert process.stdout
        assert process.stderr
        self._process = process
        self._limit_bytes = limit_bytes
        self._to_feed = stdin
        self._stdout, self._stderr = process.stdout, process.stderr
        self.stdout, self.stderr = bytearray(), bytearray()

    def until(self, deadline: float) -> str:
        """Drain until the process is over; "" then, else which limit was passed."""
        over = os.pidfd_open(self._process.pid)
        with selectors.DefaultSelector() as selector:
            try:
                for stream in (self._stdout, self._stderr):
                    os.set_blocking(stream.fileno(), False)
                    selector.register(stream, selectors.EVENT_READ)
                if self._process.stdin:
                    os.set_blocking(self._process.stdin.fileno(), False)
                    selector.register(self._process.stdin, selectors.EVENT_WRITE)
                selector.register(over, selectors.EVENT_READ)
                return self._loop(selector, over, deadline)
            finally:
                os.close(over)

    def _loop(self, selector: selectors.BaseSelector, over: int, deadline: float) -> str:
        while True:
            ready = [key.fileobj for key, _ in selector.select(deadline - time.monotonic())]
            for stream in ready:
                if stream is self._process.stdin:
                    self._feed(selector, self._process.stdin)
                elif stream != over and not self._empty(stream):
                    selector.unregister(stream)
            if max(len(self.stdout), len(self.stderr)) > self._limit_bytes:
                return "limit"
            if ready == [over]:  # nothing else is left to read
                return ""
            if time.monotonic() >= deadline:
                return "deadline"

    def _empty(self, stream: Any) -> bool:
        """Read what is there; whether there may be more."""
        data = os.read(stream.fileno(), 1 << 18)
        (self.stdout if stream is self._stdout else self.stderr).extend(data)
        return bool(data)

    def _feed(self, selector: selectors.BaseSelector, stdin: IO[bytes]) -> None:
        try:
            self._to_feed = self._to_feed[os.write(stdin.fileno(), self._to_feed) :]
        except BrokenPipeError:  # it read as much as it wanted
            self._to_feed = b""
        if not self._to_feed:
            selector.unregister(stdin)
            stdin.close()


def start_process(argv: list[str], **streams: Any) -> subprocess.Popen[bytes]:
    """Start *argv* as the leader of its own session, with untranslated messages.

    Raises AgentError if it cannot be started.
    """
    if not argv:
        raise AgentError(
            "a command without words", because="nothing can be started", fix="give argv"
        )
    environment = {**os.environ, "LC_ALL": "C"}
    try:
        return subprocess.Popen(argv, env=environment, start_new_session=True, **streams)
    except OSError as error:
        raise AgentError(
            f"`{shlex.join(argv)}` could not be started: {error.strerror}",
            because="this host does not have the command, or may not run it",
            fix=f"install what provides `{argv[0]}` on the host",
        ) from error


def kill_group(process: subprocess.Popen[bytes]) -> None:
    """Kill a process that leads its own session, and all that it started in its group."""
    with contextlib.suppress(ProcessLookupError):  # it is over, and so are they
        os.killpg(process.pid, signal.SIGKILL)


def last_words(stderr: bytes) -> str:
    """Quote the end of what a command said."""
    text = stderr[-_LAST_BYTES:].decode(errors="backslashreplace").strip()
    return f"it last said: {text}" if text else "it said nothing on stderr"


def _not_ended(
    argv: list[str], fault: str, seconds: float, limit_bytes: int, stderr: bytearray
) -> AgentError:
    command = shlex.join(argv)
    if fault == "limit":
        return AgentError(
            f"`{command}` said more than {limit_bytes} bytes on one stream",
            because="its process group was killed: a reply must fit into memory",
            fix="redirect its output to a file on the host and fetch that, or raise limit_bytes",
        )
    return AgentError(
        f"`{command}` did not end within {seconds:g} s",
        because=f"its process group was killed; {last_words(bytes(stderr))}",
        fix="give it more seconds if it is slow, or start what is to stay with `spawn`",
    )
