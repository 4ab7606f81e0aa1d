"""From the connection keys of a topology to a host that answers."""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import Protocol

from harness.agent.serve import STATE
from harness.remote.agent import AgentClient, install
from harness.remote.host import Host
from harness.remote.local import LocalTransport
from harness.remote.relay import connected
from harness.remote.ssh import SshTransport
from harness.remote.transport import Stream, Transport
from harness.waiting import Deadline

FOLDER = "/run/vf-harness"  # ours on each machine: the agent, sockets, what recorders write


class Connection(Protocol):
    """How to reach a machine: what a topology says of a host, the peer or a guest."""

    @property
    def transport(self) -> str:
        """``ssh`` or ``local``; the keys up to *known_hosts* are for ssh."""

    @property
    def address(self) -> str: ...

    @property
    def port(self) -> int: ...

    @property
    def user(self) -> str: ...

    @property
    def identity(self) -> str | Path | None:
        """A private key's file; None for ssh-agent."""

    @property
    def known_hosts(self) -> str | Path | None:
        """None for the user's own file."""

    @property
    def namespace(self) -> str | None:
        """For local: the network namespace in which commands run."""


def connect(
    name: str,
    spec: Connection,
    *,
    via: Host | None = None,
    folder: str = "",
    state: str = "",
    resident: bool = False,
    seconds: float = 60.0,
) -> Host:
    """Log in to a machine and start its agent there; the host is the caller's to close.

    With *via* the SSH connection goes through that host, as to a guest on it.  *folder* is where
    our files go, *state* where the journal and the lease are; by default those of a namespace
    are apart from those of the machine it is on.  A *resident* agent stays when the host is
    closed, with its recorders, and is the one that a later connection speaks with.  Raises
    RemoteError.
    """
    deadline = Deadline(seconds)
    apart = f"/{spec.namespace}" if spec.transport == "local" and spec.namespace else ""
    folder = folder or FOLDER + apart
    with contextlib.ExitStack() as undo:
        transport = log_in(name, spec, deadline, via=via)
        undo.callback(transport.close)
        app = install(transport, folder, deadline)
        arguments = ["--state", state or STATE + apart]
        if resident:
            stream = _resident(
                transport, app, [*arguments, "--socket", f"{folder}/agent"], deadline
            )
        else:
            serve = ["python3", "-I", app, "serve", *arguments]
            stream = transport.open(serve, seconds=deadline.remaining)
        undo.callback(stream.close)  # not waited for: an agent that does not answer may hang
        agent = AgentClient(name, stream)
        left_s = deadline.remaining
        host = Host(name, transport, agent, app=app, folder=folder, seconds=left_s)
        undo.pop_all()
    return host


def log_in(
    name: str, spec: Connection, deadline: Deadline, *, via: Host | None = None
) -> Transport:
    """Log in to a machine, for commands and files without an agent; the caller's to close.

    *via* is as for `connect`.  Raises RemoteError.
    """
    if spec.transport == "local":
        return LocalTransport(name, spec.namespace)
    return SshTransport(
        name,
        spec.address,
        port=spec.port,
        user=spec.user,
        identity=spec.identity,
        known_hosts=spec.known_hosts,
        via=via.transport if via else None,
        seconds=deadline.remaining,
    )


def _resident(transport: Transport, app: str, arguments: list[str], deadline: Deadline) -> Stream:
    """A way to the resident agent, which is started if there is none yet."""
    command = ["python3", "-I", app, "resident", *arguments]
    stream = transport.open(command, seconds=deadline.remaining)
    connected(transport.host, stream, deadline.remaining)
    return stream
