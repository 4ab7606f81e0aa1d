"""The machine we run on, or one of its network namespaces, as a host."""

from __future__ import annotations

import collections
import contextlib
import os
import secrets
import select
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Sequence
from pathlib import Path

from harness.agent.commands import Commands, start_process
from harness.agent.errors import AgentError
from harness.errors import RemoteError
from harness.remote.transport import LIMIT_BYTES, Completed, DeadlineError, HostGoneError
from harness.uapi.namespaces import enter_network

_NAMESPACES = Path("/run/netns")  # where ip-netns(8) keeps the named ones
_STDERR_CHUNKS = 32
_ENDING_SECONDS = 2


class LocalTransport:
    """Commands and files of this machine; with *namespace*, commands run in that one."""

    def __init__(self, host: str, namespace: str | None = None) -> None:
        """Raise RemoteError if there is no such network namespace."""
        if namespace and not (_NAMESPACES / namespace).exists():
            raise RemoteError(
                f"{host}: there is no network namespace {namespace}",
                because=f"{_NAMESPACES / namespace} does not exist",
                fix=f"make it with `ip netns add {namespace}`",
            )
        self.host = host
        self._namespace = namespace
        self._enter = ["ip", "netns", "exec", namespace] if namespace else []

    def run(
        self, argv: Sequence[str], *, seconds: float, limit_bytes: int = LIMIT_BYTES
    ) -> Completed:
        """Run a command until it ends.  Raises RemoteError if it outlives its limits."""
        try:
            result = Commands().run([*self._enter, *argv], seconds=seconds, limit_bytes=limit_bytes)
        except AgentError as error:
            raise _as_remote(self.host, error) from error
        return Completed(host=self.host, argv=tuple(argv), **result)

    def open(self, argv: Sequence[str], *, seconds: float) -> LocalStream:  # noqa: ARG002
        """Start a program to speak with; that takes no time here."""
        try:
            return LocalStream(self.host, [*self._enter, *argv])
        except AgentError as error:
            raise _as_remote(self.host, error) from error

    def send_file(self, source: bytes | Path, path: str, *, seconds: float) -> None:  # noqa: ARG002
        """Write a file, mode 0600; it is there whole or not at all."""
        data = source if isinstance(source, bytes) else source.read_bytes()
        part = Path(f"{path}.{secrets.token_hex(4)}.part")
        try:
            with open(part, "wb", opener=_owner_only) as file:
                file.write(data)
            part.replace(path)
        except OSError as error:
            raise _refused(self.host, f"writing {path}", error) from error

    def fetch_file(self, path: str, *, seconds: float) -> bytes:  # noqa: ARG002
        """Read a file."""
        try:
            return Path(path).read_bytes()
        except OSError as error:
            raise _refused(self.host, f"fetching {path}", error) from error

    def connect_tcp(self, address: str, port: int, *, seconds: float) -> socket.socket:
        """Connect to a port, from within our network namespace; the caller closes it."""
        made: list[socket.socket | OSError] = []
        # A socket stays in the namespace of the thread that made it, so a thread goes there.
        visitor = threading.Thread(
            target=self._connect_there, args=(address, port, seconds, made), daemon=True
        )
        visitor.start()
        visitor.join()
        if isinstance(made[0], OSError):
            raise _refused(self.host, f"connecting to {address} port {port}", made[0])
        return made[0]

    def close(self) -> None:
        """Do nothing: there is no connection."""

    def _connect_there(
        self, address: str, port: int, seconds: float, made: list[socket.socket | OSError]
    ) -> None:
        try:
            if self._namespace:
                _enter_namespace(_NAMESPACES / self._namespace)
            made.append(socket.create_connection((address, port), timeout=seconds))
        except OSError as error:
            made.append(error)


class LocalStream:
    """A child process, its stdin and stdout."""

    def __init__(self, host: str, argv: list[str]) -> None:
        self._host = host
        self._process = start_process(
            argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE
        )
        assert self._process.stdin
        assert self._process.stdout
        self._stdin, self._stdout = self._process.stdin, self._process.stdout
        os.set_blocking(self._stdin.fileno(), False)
        self._sending = threading.Lock()
        self._stderr: collections.deque[bytes] = collections.deque(maxlen=_STDERR_CHUNKS)
        self._stderr_reader = threading.Thread(target=self._read_stderr, daemon=True)
        self._stderr_reader.start()

    def send(self, data: bytes, seconds: float = 30.0) -> None:
        """Send all of *data*.  Raises HostGoneError or DeadlineError."""
        deadline = time.monotonic() + seconds
        with self._sending:
            while data:
                if self._stdin.closed or not select.select([], [self._stdin], [], 0.1)[1]:
                    if self._stdin.closed or self._process.poll() is not None:
                        raise HostGoneError(self._host, "the program ended", self.last_words())
                    if time.monotonic() >= deadline:
                        raise DeadlineError(self._host, "sending to a program", seconds)
                    continue
                try:
                    data = data[os.write(self._stdin.fileno(), data) :]
                except BrokenPipeError as error:
                    gone = HostGoneError(self._host, "the program ended", self.last_words())
                    raise gone from error

    def receive(self) -> bytes:
        """Wait for the next bytes; ``b""`` once the program has closed its stdout."""
        if self._stdout.closed:
            return b""
        data = os.read(self._stdout.fileno(), 1 << 16)
        if not data:
            self._stdout.close()
        return data

    def end(self) -> None:
        """Close the program's stdin; what it still says can be received."""
        with self._sending:
            self._stdin.close()

    def close(self) -> None:
        """Ask the program to end, with SIGTERM; one that takes its time is left to it."""
        self.end()
        with contextlib.suppress(ProcessLookupError):
            self._process.send_signal(signal.SIGTERM)
        try:
            self._process.wait(_ENDING_SECONDS)
        except subprocess.TimeoutExpired:  # an agent may be putting the host back
            threading.Thread(target=self._process.wait, daemon=True).start()

    def last_words(self) -> str:
        """Give the end of what the program said on stderr."""
        if self._process.poll() is not None:
            self._stderr_reader.join(timeout=1)
        return b"".join(self._stderr).decode(errors="backslashreplace")

    def _read_stderr(self) -> None:
        assert self._process.stderr
        with self._process.stderr as stream:
            while data := os.read(stream.fileno(), 4096):
                self._stderr.append(data)


def _enter_namespace(path: Path) -> None:
    with open(path, "rb") as namespace:
        enter_network(namespace.fileno())


def _owner_only(path: str, flags: int) -> int:
    return os.open(path, flags, 0o600)


def _as_remote(host: str, error: AgentError) -> RemoteError:
    return RemoteError(f"{host}: {error.what}", because=error.because, fix=error.fix)


def _refused(host: str, doing: str, error: OSError) -> RemoteError:
    return RemoteError(
        f"{host}: {doing}: {error.strerror or error}",
        because="this machine's kernel refused it",
        fix="check the path or address, and that this user may use it",
    )
