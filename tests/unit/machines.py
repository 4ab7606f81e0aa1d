"""Machines for tests: this one, directly or through a real sshd on a loopback port."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Self

import pytest

from harness.remote import Host, connect
from harness.remote.agent import AgentClient, install
from harness.remote.local import LocalTransport
from harness.waiting import Deadline, wait_for

_SSHD_CONFIG = """\
Port {port}
ListenAddress 127.0.0.1
HostKey {folder}/host_key
AuthorizedKeysFile {folder}/authorized_keys
PidFile none
StrictModes no
UsePAM no
UseDNS no
Subsystem sftp internal-sftp
SetEnv HOME={folder} "PATH={path}"
"""  # not the user's own home, whose shell set-up may take its time


@dataclass(frozen=True)
class Connection:
    """How to reach a machine, as a topology says it."""

    transport: str = "local"
    address: str = "127.0.0.1"
    port: int = 22
    user: str = "root"
    identity: str | Path | None = None
    known_hosts: str | Path | None = None
    namespace: str | None = None


class Sshd:
    """A real OpenSSH server on a free loopback port, with keys of its own."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        with socket.create_server(("127.0.0.1", 0)) as free:
            self.port = free.getsockname()[1]
        for name in ("host_key", "user_key", "other_key"):
            make_key(folder / name)
        shutil.copy(folder / "user_key.pub", folder / "authorized_keys")
        self.trust("host_key", folder / "known_hosts")
        config = folder / "sshd_config"
        path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
        config.write_text(_SSHD_CONFIG.format(port=self.port, folder=folder, path=path))
        if os.geteuid() == 0:
            Path("/run/sshd").mkdir(mode=0o755, exist_ok=True)  # sshd's own, for its unprivileged
        log = (folder / "sshd.log").open("wb")
        with log:
            self._process = subprocess.Popen([_sshd(), "-D", "-e", "-f", config], stderr=log)
        wait_for("sshd listens", self._listens, within=10, fix=f"see {folder}/sshd.log")

    @property
    def connection(self) -> Connection:
        return Connection(
            transport="ssh",
            port=self.port,
            user=_user(),
            identity=self.folder / "user_key",
            known_hosts=self.folder / "known_hosts",
        )

    def trust(self, key: str, known_hosts: Path) -> Path:
        """Write a known_hosts file that expects *key* here."""
        public = (self.folder / f"{key}.pub").read_text()
        known_hosts.write_text(f"[127.0.0.1]:{self.port} {public}")
        return known_hosts

    def cut_connections(self) -> None:
        """Kill what serves the connections, as when the host goes down; the listener stays.

        Since OpenSSH 9.8 that is a process below the listener's child; what a connection runs is
        below them all and is left to notice by itself.
        """
        for child in children(self._process.pid):
            for server in (child, *children(child)):
                with contextlib.suppress(FileNotFoundError, ProcessLookupError):  # it has ended
                    if Path(f"/proc/{server}/comm").read_text().startswith("sshd"):
                        os.kill(server, signal.SIGKILL)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.cut_connections()
        self._process.terminate()
        self._process.wait(10)

    def _listens(self) -> bool:
        with socket.socket() as probe:
            return probe.connect_ex(("127.0.0.1", self.port)) == 0


def local_host(folder: Path, name: str = "alder", namespace: str | None = None) -> Host:
    """Give this machine with an agent whose files and notes are in *folder*."""
    return connect(
        name,
        Connection(namespace=namespace),
        folder=str(folder / "run"),
        state=str(folder / "state"),
    )


@contextlib.contextmanager
def bare_agent(folder: Path, python: str = sys.executable) -> Iterator[AgentClient]:
    """Run an agent of this machine and nothing around it."""
    transport = LocalTransport("alder")
    app = install(transport, str(folder / "run"), Deadline(10))
    argv = [python, "-I", app, "serve", "--state", str(folder / "state")]
    client = AgentClient("alder", transport.open(argv, seconds=10))
    try:
        yield client
    finally:
        client.close()


def make_key(path: Path, passphrase: str = "") -> Path:
    """Make a key pair: *path* and *path*.pub."""
    words = ["ssh-keygen", "-q", "-t", "ed25519", "-N", passphrase, "-f", str(path)]
    subprocess.run(words, check=True)
    return path


def children(pid: int) -> list[int]:
    """List the processes that *pid* started and that are still there."""
    found: list[int] = []
    for task in Path(f"/proc/{pid}/task").glob("*/children"):  # each thread has its own
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):  # it has ended
            found += map(int, task.read_text().split())
    return found


def alive(pid: int) -> bool:
    """Tell whether a process runs; a zombie does not."""
    with contextlib.suppress(FileNotFoundError, ProcessLookupError):
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    return False


def _sshd() -> str:
    found = shutil.which("sshd", path=f"{os.environ['PATH']}:/usr/sbin:/usr/local/sbin")
    if not found:
        pytest.fail("these tests need a real sshd: apt-get install openssh-server", pytrace=False)
    return found


def _user() -> str:
    return subprocess.run(["id", "-un"], check=True, capture_output=True, text=True).stdout.strip()
