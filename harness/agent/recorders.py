"""The recorders that this agent runs, each a child process of the same zipapp."""

from __future__ import annotations

import collections
import contextlib
import json
import queue
import subprocess
import sys
import threading
from typing import IO, Any

from harness.agent.commands import kill_group, last_words, start_process
from harness.agent.errors import AgentError

_STDERR_LINES = 50


class Recorders:
    """Starts and stops recorders; numbers them."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._running: dict[int, _Recorder] = {}
        self._last = 0

    def start(self, program: str, spec: dict[str, Any], seconds: float = 30.0) -> dict[str, Any]:
        """Start a program and wait until it really records: {"recorder": number, "ready": {..}}.

        Raises AgentError if it fails or does not get ready in time; then it is ended.
        """
        recorder = _Recorder(program, spec)
        try:
            ready = recorder.expect("ready", seconds)
        except AgentError:
            recorder.kill()
            raise
        with self._lock:
            self._last += 1
            self._running[self._last] = recorder
            return {"recorder": self._last, "ready": ready}

    def stop(self, recorder: int, seconds: float = 30.0) -> dict[str, Any]:
        """Ask a recorder to end, and give its summary.

        Raises AgentError if it failed meanwhile, or does not end in time; then it is killed.
        """
        with self._lock:
            running = self._running.pop(recorder, None)
        if not running:
            raise AgentError(
                f"there is no recorder {recorder}",
                because="it was stopped already, by its starter or when the lease ended",
                fix="stop each recorder once, before the lease ends",
            )
        return running.stop(seconds)

    def stop_all(self) -> list[str]:
        """Stop all of them; what went wrong, a sentence each."""
        with self._lock:
            numbers = list(self._running)
        faults = []
        for number in numbers:
            try:
                self.stop(number, seconds=10)
            except AgentError as error:
                faults.append(str(error))
        return faults


class _Recorder:
    def __init__(self, program: str, spec: dict[str, Any]) -> None:
        self._program = program
        self._process = start_process(
            [sys.executable, "-I", sys.argv[0], program],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
        assert self._process.stdin
        self._stdin = self._process.stdin
        self._lines: queue.SimpleQueue[bytes] = queue.SimpleQueue()
        self._stderr: collections.deque[bytes] = collections.deque(maxlen=_STDERR_LINES)
        self._readers = [
            _in_thread(self._read_lines, self._process.stdout),
            _in_thread(self._read_stderr, self._process.stderr),
        ]
        with contextlib.suppress(BrokenPipeError):  # it failed at once; `expect` says how
            self._stdin.write(json.dumps(spec).encode() + b"\n")
            self._stdin.flush()

    def expect(self, key: str, seconds: float) -> dict[str, Any]:
        """Read its next line, which is to hold *key*."""
        try:
            line = self._lines.get(timeout=seconds)
        except queue.Empty:
            raise AgentError(
                f"the recorder {self._program} did not say `{key}` within {seconds:g} s",
                because=f"it hangs; {last_words(b''.join(self._stderr))}",
                fix="see the kernel log of this host",
            ) from None
        if not line:
            self._readers[1].join(timeout=1)
            raise AgentError(
                f"the recorder {self._program} ended by itself",
                because=last_words(b"".join(self._stderr)),
                fix="what it recorded until then is in its file; do not rely on it",
            )
        message: dict[str, Any] = json.loads(line)
        if "error" in message:
            raise AgentError(**message["error"])
        if key not in message:
            raise AgentError(
                f"the recorder {self._program} said {line[:200]!r} where `{key}` was due",
                because="it does not keep to the protocol of harness.agent.channel",
                fix="mend the recorder",
            )
        return dict(message[key])

    def stop(self, seconds: float) -> dict[str, Any]:
        with contextlib.suppress(BrokenPipeError):  # it has ended; `expect` says how
            self._stdin.close()
        try:
            return self.expect("summary", seconds)
        finally:
            self.kill()

    def kill(self) -> None:
        """End what is left of it; nothing, if it has ended by itself."""
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(0.5)
        if self._process.poll() is None:
            kill_group(self._process)
            with contextlib.suppress(subprocess.TimeoutExpired):  # stuck inside the kernel
                self._process.wait(2)

    def _read_lines(self, stream: IO[bytes]) -> None:
        with stream:
            for line in stream:
                self._lines.put(line)
        self._lines.put(b"")

    def _read_stderr(self, stream: IO[bytes]) -> None:
        with stream:
            self._stderr.extend(stream)


def _in_thread(target: Any, stream: Any) -> threading.Thread:
    thread = threading.Thread(target=target, args=(stream,), daemon=True)
    thread.start()
    return thread
