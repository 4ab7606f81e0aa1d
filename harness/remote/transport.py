"""What both ways to a machine, SSH and local, have in common."""

from __future__ import annotations

import shlex
import socket
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import paramiko

from harness.errors import RemoteError

TcpConnection = socket.socket | paramiko.Channel
LIMIT_BYTES = 8 << 20  # what one stream of a command may say before it is ended
_LAST_LINES = 10  # of stderr, quoted in errors


@dataclass(frozen=True, slots=True)
class Completed:
    """A command that is over; a negative status is the signal that ended it.

    Where it ran over SSH without the agent, that is always -1: we are not told which.
    """

    host: str
    argv: tuple[str, ...]
    status: int
    stdout: str
    stderr: str
    seconds: float

    def check(self) -> Completed:
        """Return this, or raise CommandError if the status is not 0."""
        if self.status != 0:
            raise CommandError(self)
        return self


class CommandError(RemoteError):
    """A command ended with another status than 0."""

    def __init__(self, completed: Completed) -> None:
        super().__init__(
            f"{completed.host}: `{shlex.join(completed.argv)}` ended with status "
            f"{completed.status}",
            because=said(completed.stderr) or said(completed.stdout) or "it said nothing",
            fix=f"log in to {completed.host} and run it by hand to see more",
        )
        self.completed = completed

    @property
    def host(self) -> str:
        return self.completed.host


class HostGoneError(RemoteError):
    """The connection to a host ended under us."""

    def __init__(self, host: str, what: str, last_words: str = "") -> None:
        super().__init__(
            f"{host}: {what}",
            because=said(last_words) or "the host went down, or the way to it was cut",
            fix="its agent puts the host back by itself; if it cannot, "
            "`vf-harness restore --lab LAB` does once the host answers",
        )
        self.host = host


class DeadlineError(RemoteError):
    """Something on a host was not over at its deadline."""

    def __init__(self, host: str, what: str, seconds: float, last_words: str = "") -> None:
        super().__init__(
            f"{host}: {what} was not over after {seconds:g} s",
            because=said(last_words) or "the host is overloaded, hangs, or does not answer",
            fix="see the host's console; give it more seconds if it is merely slow",
        )
        self.host = host


class Stream(Protocol):
    """A program on a machine: its stdin and stdout as one two-way stream of bytes."""

    def send(self, data: bytes, seconds: float = 30.0) -> None:
        """Send all of *data*.  Raises HostGoneError or DeadlineError."""

    def receive(self) -> bytes:
        """Wait for the next bytes; ``b""`` once the program has closed its stdout."""

    def end(self) -> None:
        """Close the program's stdin; what it still says can be received."""

    def close(self) -> None:
        """Let go of the stream.  A thread that waits in `receive` gets ``b""``."""

    def last_words(self) -> str:
        """Give the end of what the program said on stderr."""


class Transport(Protocol):
    """A way to a machine.  Everything has a deadline; a command's status is not judged."""

    host: str

    def run(
        self, argv: Sequence[str], *, seconds: float, limit_bytes: int = LIMIT_BYTES
    ) -> Completed:
        """Run a command until it ends.  Raises RemoteError if it outlives its limits."""

    def open(self, argv: Sequence[str], *, seconds: float) -> Stream:
        """Start a program to speak with."""

    def send_file(self, source: bytes | Path, path: str, *, seconds: float) -> None:
        """Write a file, mode 0600; it is there whole or not at all."""

    def fetch_file(self, path: str, *, seconds: float) -> bytes:
        """Read a file."""

    def connect_tcp(self, address: str, port: int, *, seconds: float) -> TcpConnection:
        """Connect from that machine to another one's port; the caller closes it."""

    def close(self) -> None:
        """End the connection; what was opened through it ends too."""


def said(text: str) -> str:
    """Quote the last lines of what a command said; "" if it said nothing."""
    lines = text.strip().splitlines()[-_LAST_LINES:]
    return "it said: " + " | ".join(line.strip() for line in lines) if lines else ""


def too_much(host: str, argv: Sequence[str], limit_bytes: int) -> RemoteError:
    """Make the error for a command that says more than fits."""
    return RemoteError(
        f"{host}: `{shlex.join(argv)}` said more than {limit_bytes} bytes on one stream",
        because="it was killed: what a command says must fit into memory",
        fix="redirect its output to a file on the host and fetch that, or raise limit_bytes",
    )
