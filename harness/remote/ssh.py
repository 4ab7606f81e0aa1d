"""SSH by paramiko, with its known hangs kept out.

Every wait of paramiko's that has no deadline of its own ends when the channel is closed, so a
timer closes it (`_within`).  Both output streams are emptied by one loop, since a channel stalls
as soon as one of them fills its window (paramiko issue 1778); the exit status is asked for only
when it is there (1815); and no file is made of a channel, since one that is garbage-collected
at the wrong moment blocks the whole connection (2685).
"""

from __future__ import annotations

import contextlib
import secrets
import shlex
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path

import paramiko

from harness.errors import RemoteError
from harness.remote.ssh_channel import SshStream, drain
from harness.remote.ssh_login import log_in
from harness.remote.transport import (
    LIMIT_BYTES,
    Completed,
    DeadlineError,
    HostGoneError,
    Transport,
    too_much,
)
from harness.waiting import Deadline

_KEEPALIVE_S = 10
_CHUNK_BYTES = 1 << 15  # what an SFTP server takes and gives at once
_KILL_SECONDS = 5
# The shell becomes the command, so the number it prints is that of the command's process group.
_SAY_GROUP = ["/bin/sh", "-c", 'echo $$; exec "$@"', "sh"]


class SshTransport:
    """One SSH connection: a channel per command or program, SFTP for files.

    The host's key must be in *known_hosts* (default: the user's file); we log in by the key in
    the file *identity* (default: what ssh-agent offers), never by a password.  With *via*, the
    connection goes through that machine.
    """

    def __init__(
        self,
        host: str,
        address: str,
        *,
        port: int = 22,
        user: str = "root",
        identity: str | Path | None = None,
        known_hosts: str | Path | None = None,
        via: Transport | None = None,
        seconds: float = 30.0,
    ) -> None:
        """Connect and log in.  Raises RemoteError."""
        self.host = host
        self._client = log_in(
            host,
            address,
            port=port,
            user=user,
            identity=identity,
            known_hosts=known_hosts,
            via=via,
            seconds=seconds,
        )
        transport = self._client.get_transport()
        assert transport
        self._transport = transport
        self._transport.set_keepalive(_KEEPALIVE_S)

    def run(
        self, argv: Sequence[str], *, seconds: float, limit_bytes: int = LIMIT_BYTES
    ) -> Completed:
        """Run a command until it ends.

        Raises RemoteError if it outlives *seconds* or says more than *limit_bytes* on one stream;
        then its process group is killed.
        """
        deadline = Deadline(seconds)
        with contextlib.closing(self._start([*_SAY_GROUP, *argv], seconds)) as channel:
            said = drain(channel, deadline, limit_bytes)
            group, _, stdout = said.stdout.partition(b"\n")
            if said.fault:
                ended = self._kill_group(bytes(group))
                if said.fault == "limit":
                    raise too_much(self.host, argv, limit_bytes)
                last = said.stderr.decode(errors="backslashreplace")
                what = f"`{shlex.join(argv)}` ({ended})"
                raise DeadlineError(self.host, what, seconds, last)
            if channel.exit_status == -1 and not self._transport.is_active():
                raise HostGoneError(self.host, f"went away during `{shlex.join(argv)}`")
            return Completed(
                self.host,
                tuple(argv),
                channel.exit_status,
                stdout.decode(errors="backslashreplace"),
                said.stderr.decode(errors="backslashreplace"),
                seconds - deadline.remaining,
            )

    def open(self, argv: Sequence[str], *, seconds: float) -> SshStream:
        """Start a program to speak with."""
        return SshStream(self.host, self._start(argv, seconds))

    def send_file(self, source: bytes | Path, path: str, *, seconds: float) -> None:
        """Write a file, mode 0600; it is there whole or not at all."""
        data = source if isinstance(source, bytes) else source.read_bytes()
        part = f"{path}.{secrets.token_hex(4)}.part"
        with self._sftp(f"sending {path}", seconds) as sftp:
            with sftp.open(part, "wb") as file:
                file.chmod(0o600)
                for start in range(0, len(data), _CHUNK_BYTES):
                    file.write(data[start : start + _CHUNK_BYTES])
            sftp.posix_rename(part, path)

    def fetch_file(self, path: str, *, seconds: float) -> bytes:
        """Read a file."""
        data = bytearray()
        with self._sftp(f"fetching {path}", seconds) as sftp, sftp.open(path, "rb") as file:
            while chunk := file.read(_CHUNK_BYTES):
                data += chunk
        return bytes(data)

    def connect_tcp(self, address: str, port: int, *, seconds: float) -> paramiko.Channel:
        """Connect from that machine to another one's port; the caller closes it."""
        try:
            return self._transport.open_channel(
                "direct-tcpip", (address, port), ("127.0.0.1", 0), timeout=seconds
            )
        except (paramiko.SSHException, EOFError, OSError) as error:
            doing = f"connecting from there to {address} port {port}"
            raise self._failed(doing, error) from error

    def close(self) -> None:
        """End the connection; what was opened through it ends too."""
        self._client.close()

    def _start(self, argv: Sequence[str], seconds: float) -> paramiko.Channel:
        """Start a command; the channel is the caller's to close."""
        what = f"starting `{shlex.join(argv)}`"
        channel = self._open_channel(what, seconds)
        try:
            with self._within(seconds, what, channel):
                channel.exec_command(f"exec {shlex.join(argv)}")
        except RemoteError:
            channel.close()
            raise
        return channel

    @contextlib.contextmanager
    def _sftp(self, what: str, seconds: float) -> Iterator[paramiko.SFTPClient]:
        channel = self._open_channel(what, seconds)
        with contextlib.closing(channel), self._within(seconds, what, channel):
            channel.invoke_subsystem("sftp")
            yield paramiko.SFTPClient(channel)

    def _open_channel(self, what: str, seconds: float) -> paramiko.Channel:
        try:
            return self._transport.open_session(timeout=seconds)
        except (paramiko.SSHException, EOFError, OSError) as error:
            raise self._failed(what, error) from error

    @contextlib.contextmanager
    def _within(self, seconds: float, what: str, channel: paramiko.Channel) -> Iterator[None]:
        """Close *channel* after so many seconds, which ends whatever waits for it."""
        passed = threading.Event()

        def cut() -> None:
            passed.set()
            with contextlib.suppress(EOFError, OSError):  # the connection may have ended by now
                channel.close()

        timer = threading.Timer(seconds, cut)
        timer.daemon = True
        timer.start()
        try:
            yield
        except (paramiko.SSHException, EOFError, OSError) as error:
            if passed.is_set():
                raise DeadlineError(self.host, what, seconds) from error
            raise self._failed(what, error) from error
        finally:
            timer.cancel()

    def _kill_group(self, group: bytes) -> str:
        """Kill a process group on the host; how that went, in words."""
        if not group.isdigit():
            return "it had not begun"
        try:
            with self._start(
                ["kill", "-KILL", "--", f"-{group.decode()}"], _KILL_SECONDS
            ) as channel:
                fault = drain(channel, Deadline(_KILL_SECONDS), LIMIT_BYTES).fault
        except RemoteError as error:
            return f"it may still run: {error.what}"
        return "it may still run" if fault else "its process group was killed"

    def _failed(self, doing: str, error: Exception) -> RemoteError:
        if not self._transport.is_active():
            return HostGoneError(self.host, f"went away during: {doing}")
        reason = getattr(error, "strerror", None) or str(error) or type(error).__name__
        return RemoteError(
            f"{self.host}: {doing}: {reason}",
            because="its SSH server refused it",
            fix="check the path or address; for channels, MaxSessions and AllowTcpForwarding"
            " in the host's sshd_config",
        )
