"""Logging in over SSH: the host's key verified, our key offered, no password ever."""

from __future__ import annotations

import base64
import hashlib
import logging
import socket
import threading
from dataclasses import dataclass
from pathlib import Path

import paramiko

from harness.errors import RemoteError
from harness.remote.transport import DeadlineError, TcpConnection, Transport
from harness.waiting import Deadline

_UNANSWERED_MS = 30_000  # the connection is given up when nothing is acknowledged for so long
_SSH_PORT = 22

logging.getLogger("paramiko").addHandler(logging.NullHandler())
# It raises what it logs, and we say what that means: nobody is to see its tracebacks besides.


def log_in(
    host: str,
    address: str,
    *,
    port: int,
    user: str,
    identity: str | Path | None,
    known_hosts: str | Path | None,
    via: Transport | None,
    seconds: float,
) -> paramiko.SSHClient:
    """Connect and log in; the client is the caller's to close.  Raises RemoteError."""
    target = _Target(host, address, port, user, known_hosts or Path("~/.ssh/known_hosts"))
    deadline = Deadline(seconds)
    key = _load_identity(host, identity) if identity else None
    client = paramiko.SSHClient()
    client.set_missing_host_key_policy(_Reject())
    _load_known_hosts(host, client, known_hosts)
    timer = threading.Timer(seconds, client.close)  # ends whichever phase then waits
    timer.daemon = True
    timer.start()
    try:
        client.connect(
            address,
            port,
            username=user,
            pkey=key,
            allow_agent=key is None,
            look_for_keys=False,
            sock=_reach(address, port, via, deadline),
            timeout=deadline.remaining,
            banner_timeout=deadline.remaining,
            auth_timeout=deadline.remaining,
        )
    except (paramiko.SSHException, EOFError, OSError) as error:
        client.close()
        raise target.refusal(error, deadline) from error
    except RemoteError:
        client.close()
        raise
    finally:
        timer.cancel()
    return client


@dataclass(frozen=True, slots=True)
class _Target:
    """Whom we try to reach, for the errors."""

    host: str
    address: str
    port: int
    user: str
    known_hosts: str | Path

    def refusal(self, error: Exception, deadline: Deadline) -> RemoteError:
        """Make the error that tells why we are not logged in."""
        if isinstance(error, _UnknownHostKeyError):
            return self._unknown_key(error)
        if isinstance(error, paramiko.BadHostKeyException):
            return self._changed_key(error)
        where = f"{self.user}@{self.address} port {self.port}"
        if deadline.expired:
            return DeadlineError(self.host, f"connecting to {where}", deadline.seconds)
        if isinstance(error, paramiko.AuthenticationException) or "authentication" in str(error):
            return RemoteError(
                f"{self.host}: {where} accepts none of our keys",
                because=f"{error}; passwords are never tried",
                fix="name a key file as `identity` in the topology, or load one with `ssh-add`;"
                " its public half belongs into the host's authorized_keys",
            )
        return RemoteError(
            f"{self.host}: {where} cannot be reached: {error}",
            because="the host is down, its SSH server does not run, or the way there is cut",
            fix="check power, cable and address; try `ssh -v` from here",
        )

    @property
    def _name(self) -> str:
        """The host as known_hosts writes it."""
        return self.address if self.port == _SSH_PORT else f"[{self.address}]:{self.port}"

    def _unknown_key(self, error: _UnknownHostKeyError) -> RemoteError:
        scan = f"ssh-keyscan -p {self.port} {self.address} >> {self.known_hosts}"
        return RemoteError(
            f"{self.host}: the key of {self._name} is not in {self.known_hosts}",
            because=f"nothing says that it is ours; its fingerprint is {error.fingerprint}",
            fix="compare that with `ssh-keygen -lf /etc/ssh/ssh_host_ed25519_key.pub` on the"
            f" host's console; if equal, `{scan}`",
        )

    def _changed_key(self, error: paramiko.BadHostKeyException) -> RemoteError:
        forget = f"ssh-keygen -R '{self._name}' -f {self.known_hosts}"
        return RemoteError(
            f"{self.host}: the key of {self._name} is not the one in {self.known_hosts}",
            because="the host was installed anew, or something else answers in its place;"
            f" the key it shows has the fingerprint {fingerprint(error.key)}",
            fix=f"find out which; if it was installed anew, `{forget}` and add its new key",
        )


class _UnknownHostKeyError(paramiko.SSHException):
    """No known_hosts file names this host."""

    def __init__(self, key: paramiko.PKey) -> None:
        super().__init__("unknown host key")
        self.fingerprint = fingerprint(key)


class _Reject(paramiko.MissingHostKeyPolicy):
    """Refuse a host that no known_hosts file names."""

    def missing_host_key(self, _client: object, _hostname: str, key: paramiko.PKey) -> None:
        raise _UnknownHostKeyError(key)


def fingerprint(key: paramiko.PKey) -> str:
    """Give a key's fingerprint as `ssh-keygen -l` prints it."""
    digest = base64.b64encode(hashlib.sha256(key.asbytes()).digest()).decode().rstrip("=")
    return f"SHA256:{digest}"


def _load_identity(host: str, identity: str | Path) -> paramiko.PKey:
    path = Path(identity).expanduser()
    try:
        return paramiko.PKey.from_path(path)
    except (paramiko.SSHException, OSError, ValueError, TypeError) as error:
        raise RemoteError(
            f"{host}: the key file {path} cannot be used: {error}",
            because="it is missing, or not a private key, or locked by a passphrase",
            fix="name another as `identity` in the topology; one with a passphrase is loaded with"
            " `ssh-add` and `identity` is left out",
        ) from error


def _load_known_hosts(
    host: str, client: paramiko.SSHClient, known_hosts: str | Path | None
) -> None:
    if not known_hosts:
        client.load_system_host_keys()
        return
    try:
        client.load_host_keys(str(Path(known_hosts).expanduser()))
    except OSError as error:
        raise RemoteError(
            f"{host}: {known_hosts} cannot be read: {error.strerror}",
            because="without it the host's key cannot be verified, so we do not connect",
            fix="name an existing file as `known_hosts` in the topology, or leave it out to use"
            " your own",
        ) from error


def _reach(address: str, port: int, via: Transport | None, deadline: Deadline) -> TcpConnection:
    if via:
        return via.connect_tcp(address, port, seconds=deadline.remaining)
    connection = socket.create_connection((address, port), timeout=deadline.remaining)
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, _UNANSWERED_MS)
    return connection
