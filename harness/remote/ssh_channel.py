"""Reading and writing one SSH channel without ever waiting for ever."""

from __future__ import annotations

import collections
import contextlib
import select
import threading
import time
from dataclasses import dataclass, field

import paramiko

from harness.remote.transport import DeadlineError, HostGoneError
from harness.waiting import Deadline

_READ_BYTES = 1 << 18
_LOOK_SECONDS = 0.2  # how often a wait on a channel looks whether the connection is still there
_AFTER_EXIT_SECONDS = 0.5  # for output that arrives after the exit status
_STDERR_CHUNKS = 32


@dataclass
class Said:
    """What a command said, and which limit it passed: "", "deadline" or "limit"."""

    stdout: bytearray = field(default_factory=bytearray)
    stderr: bytearray = field(default_factory=bytearray)
    fault: str = ""

    def take(self, channel: paramiko.Channel) -> bool:
        """Take what has arrived on both streams; whether anything had."""
        before = len(self.stdout) + len(self.stderr)
        if channel.recv_ready():
            self.stdout += channel.recv(_READ_BYTES)
        if channel.recv_stderr_ready():
            self.stderr += channel.recv_stderr(_READ_BYTES)
        return len(self.stdout) + len(self.stderr) > before


def drain(channel: paramiko.Channel, deadline: Deadline, limit_bytes: int) -> Said:
    """Empty both streams until the command is over or passes a limit.

    It is over when its status is here and the server has closed the channel, or half a second
    without output has passed: a process left in the background may hold the channel open.
    """
    said = Said()
    poller = select.poll()
    poller.register(channel.fileno(), select.POLLIN)
    quiet = Deadline(_AFTER_EXIT_SECONDS)
    while True:
        over = channel.closed
        ending = over or channel.exit_status_ready()
        if said.take(channel):
            quiet = Deadline(_AFTER_EXIT_SECONDS)
        elif over or (ending and (channel.eof_received or quiet.expired)):
            return said
        else:
            poller.poll(1000 * min(deadline.remaining, _AFTER_EXIT_SECONDS / 5))
        if max(len(said.stdout), len(said.stderr)) > limit_bytes:
            said.fault = "limit"
        elif deadline.expired:
            said.fault = "deadline"
        if said.fault:
            return said


class SshStream:
    """A program on the host: its stdin and stdout over one channel, which is ours to close."""

    def __init__(self, host: str, channel: paramiko.Channel) -> None:
        self._host = host
        self._channel = channel
        self._channel.settimeout(_LOOK_SECONDS)
        self._sending = threading.Lock()
        self._stderr: collections.deque[bytes] = collections.deque(maxlen=_STDERR_CHUNKS)
        self._stderr_reader = threading.Thread(target=self._read_stderr, daemon=True)
        self._stderr_reader.start()

    def send(self, data: bytes, seconds: float = 30.0) -> None:
        """Send all of *data*.  Raises HostGoneError or DeadlineError."""
        deadline = time.monotonic() + seconds
        with self._sending:
            while data:
                try:
                    sent = self._channel.send(data)
                except TimeoutError:  # the program does not read, or the host is gone silently
                    if time.monotonic() >= deadline:
                        raise DeadlineError(self._host, "sending to a program", seconds) from None
                    continue
                except OSError as error:
                    raise self._gone() from error
                if not sent:
                    raise self._gone()
                data = data[sent:]

    def receive(self) -> bytes:
        """Wait for the next bytes; ``b""`` once the program has closed its stdout."""
        while True:
            with contextlib.suppress(TimeoutError):
                return self._channel.recv(_READ_BYTES)

    def end(self) -> None:
        """Close the program's stdin; what it still says can be received."""
        with self._sending, contextlib.suppress(OSError):  # the host has gone: it is closed
            self._channel.shutdown_write()

    def close(self) -> None:
        """Let go of the channel; the program sees its stdin end."""
        self._channel.close()
        self._stderr_reader.join(timeout=1 + _LOOK_SECONDS)

    def last_words(self) -> str:
        """Give the end of what the program said on stderr."""
        if self._channel.closed or self._channel.eof_received:  # all of it is here, if not read yet
            self._stderr_reader.join(timeout=1 + _LOOK_SECONDS)
        return b"".join(self._stderr).decode(errors="backslashreplace")

    def _gone(self) -> HostGoneError:
        return HostGoneError(self._host, "the program or the connection ended", self.last_words())

    def _read_stderr(self) -> None:
        while True:
            with contextlib.suppress(TimeoutError):
                data = self._channel.recv_stderr(_READ_BYTES)
                if not data:
                    return
                self._stderr.append(data[-_READ_BYTES:])
