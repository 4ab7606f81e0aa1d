"""SSH against a real sshd: keys, deadlines, floods, files, and hosts that go away."""

from __future__ import annotations

import os
import socket
import subprocess
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import asdict, replace
from pathlib import Path
from types import SimpleNamespace
from typing import cast

import paramiko
import pytest
from machines import Connection, Sshd, alive, make_key

from harness.errors import RemoteError
from harness.remote import CommandError, DeadlineError, HostGoneError
from harness.remote.ssh import SshTransport
from harness.remote.transport import Transport
from harness.waiting import wait_for

MIB = 1 << 20


@pytest.fixture(scope="module")
def sshd(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Sshd]:
    with Sshd(tmp_path_factory.mktemp("sshd")) as server:
        yield server


@pytest.fixture(scope="module")
def alder(sshd: Sshd) -> Iterator[SshTransport]:
    with closing(_connect(sshd.connection)) as transport:
        yield transport


def _connect(
    spec: Connection, *, via: Transport | None = None, seconds: float = 10.0
) -> SshTransport:
    keys = asdict(spec)
    for local in ("transport", "namespace"):
        del keys[local]
    return SshTransport("alder", **keys, via=via, seconds=seconds)


def _said(*argv: str) -> str:
    return subprocess.run(argv, check=True, stdout=subprocess.PIPE, text=True).stdout


def test_unknown_host_key_is_refused_with_its_fingerprint(sshd: Sshd, tmp_path: Path) -> None:
    """Peers accept any key (AutoAddPolicy), so any machine may pass for the host."""
    empty = tmp_path / "known_hosts"
    empty.touch()
    with pytest.raises(RemoteError, match="is not in") as unknown:
        _connect(replace(sshd.connection, known_hosts=empty))
    shown = _said("ssh-keygen", "-lf", f"{sshd.folder}/host_key.pub").split()[1]
    assert unknown.value.because.endswith(shown)
    assert f"ssh-keyscan -p {sshd.port} 127.0.0.1 >> {empty}" in unknown.value.fix


def test_changed_host_key_is_refused(sshd: Sshd, tmp_path: Path) -> None:
    """Another machine answers in the host's place: no command may reach it, nor our key."""
    other = sshd.trust("other_key", tmp_path / "known_hosts")
    with pytest.raises(RemoteError, match="is not the one in") as changed:
        _connect(replace(sshd.connection, known_hosts=other))
    assert f"ssh-keygen -R '[127.0.0.1]:{sshd.port}' -f {other}" in changed.value.fix


def test_missing_known_hosts_is_not_an_empty_one(sshd: Sshd, tmp_path: Path) -> None:
    """A slip in the topology must not end as "unknown key"."""
    with pytest.raises(RemoteError, match="cannot be read: No such file"):
        _connect(replace(sshd.connection, known_hosts=tmp_path / "typo"))


@pytest.mark.parametrize("key", ["other_key", None])
def test_no_key_of_ours_is_accepted(
    key: str | None, sshd: Sshd, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With and without an identity file; ssh-agent is away.  No password is asked for, or tried."""
    monkeypatch.delenv("SSH_AUTH_SOCK", raising=False)
    identity = sshd.folder / key if key else None
    with pytest.raises(RemoteError, match="accepts none of our keys") as refused:
        _connect(replace(sshd.connection, identity=identity))
    assert "ssh-add" in refused.value.fix


def test_key_file_that_cannot_be_used_is_named(sshd: Sshd, tmp_path: Path) -> None:
    """Paramiko tries each key type in turn and reports the last one's complaint, which misleads."""
    locked = make_key(tmp_path / "locked", passphrase="secret")
    public = sshd.folder / "user_key.pub"
    for identity in (locked, tmp_path / "missing", public):
        with pytest.raises(RemoteError, match=f"the key file {identity} cannot be used"):
            _connect(replace(sshd.connection, identity=identity))


def test_ssh_agent_is_used_without_identity(
    sshd: Sshd, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Keys with a passphrase, or on a token, are only there."""
    path = tmp_path / "agent"
    pid = int(_said("ssh-agent", "-a", str(path)).partition("SSH_AGENT_PID=")[2].partition(";")[0])
    try:
        monkeypatch.setenv("SSH_AUTH_SOCK", str(path))
        _said("ssh-add", "-q", f"{sshd.folder}/user_key")
        with closing(_connect(replace(sshd.connection, identity=None))) as transport:
            assert transport.run(["true"], seconds=5).status == 0
    finally:
        os.kill(pid, 15)


def test_unreachable_host_is_named_within_the_deadline(sshd: Sshd) -> None:
    """Nobody listens, or somebody who never says a word: a firewall, a console server."""
    with socket.create_server(("127.0.0.1", 0)) as silent:
        port = silent.getsockname()[1]
        began = time.monotonic()
        with pytest.raises(DeadlineError, match="connecting to"):
            _connect(replace(sshd.connection, port=port), seconds=0.5)
        assert time.monotonic() - began < 10
    with pytest.raises(RemoteError, match="cannot be reached"):
        _connect(replace(sshd.connection, port=port))


def test_words_of_a_command_arrive_as_they_are(alder: SshTransport) -> None:
    """SSH sends one string to a shell; what is not quoted there is run there."""
    words = ["a b", "$HOME", "'", '"', "*", ";reboot", "\\", "ü", ""]
    ran = alder.run(["printf", r"%s\n", *words], seconds=5)
    assert ran.stdout.split("\n")[:-1] == words
    assert (ran.status, ran.stderr) == (0, "")


def test_a_failed_command_says_what_it_said(alder: SshTransport) -> None:
    """A status alone sends people to the host to run it again."""
    ran = alder.run(["sh", "-c", "echo why >&2; exit 3"], seconds=5)
    assert ran.status == 3
    with pytest.raises(CommandError, match=r"alder: `sh -c .*` ended with status 3") as failed:
        ran.check()
    assert failed.value.because == "it said: why"
    assert failed.value.completed is ran


def test_hanging_command_keeps_its_deadline_and_is_killed(
    alder: SshTransport, tmp_path: Path
) -> None:
    """`recv_exit_status` waits for ever (paramiko 1815), and closing the channel kills nobody."""
    script = f"echo last words >&2; sleep 100 & echo $! > {tmp_path}/child; sleep 100"
    began = time.monotonic()
    with pytest.raises(DeadlineError, match=r"its process group was killed") as late:
        alder.run(["sh", "-c", script], seconds=0.5)
    assert time.monotonic() - began < 10
    assert "last words" in late.value.because
    child = int((tmp_path / "child").read_text())
    wait_for("the grandchild is gone", lambda: not alive(child), within=10)


def test_a_deadline_that_passes_as_the_connection_ends_prints_no_traceback(
    alder: SshTransport,
) -> None:
    """A channel whose connection is going down raises as it is closed, in a timer's thread."""
    begun = threading.Event()

    def close() -> None:
        begun.set()
        raise EOFError

    channel = cast("paramiko.Channel", SimpleNamespace(close=close))
    with alder._within(0, "a command", channel):
        assert begun.wait(5)
    for thread in threading.enumerate():
        if isinstance(thread, threading.Timer):
            thread.join(5)


def test_background_process_does_not_hold_a_command_up(alder: SshTransport, tmp_path: Path) -> None:
    """The server keeps the channel open while anybody has stdout; the status is long here."""
    began = time.monotonic()
    ran = alder.run(["sh", "-c", f"sleep 60 & echo $! > {tmp_path}/child; echo done"], seconds=30)
    assert (ran.status, ran.stdout) == (0, "done\n")
    assert time.monotonic() - began < 10
    os.kill(int((tmp_path / "child").read_text()), 9)


FLOOD = "head -c 104857600 /dev/zero >&2 & head -c 104857600 /dev/zero; wait"


def test_hundred_megabytes_on_both_streams_arrive_whole(alder: SshTransport) -> None:
    """More than 2 MiB on the stream that is not read stalls a channel (paramiko 1778)."""
    ran = alder.run(["sh", "-c", FLOOD], seconds=60, limit_bytes=101 * MIB)
    assert (len(ran.stdout), len(ran.stderr)) == (100 * MIB, 100 * MIB)


def test_flood_is_ended_at_the_limit(alder: SshTransport) -> None:
    """At the limit, not at the deadline: by then the controller's memory would be full."""
    began = time.monotonic()
    with pytest.raises(RemoteError, match="said more than 8388608 bytes on one stream"):
        alder.run(["sh", "-c", FLOOD], seconds=60)
    assert time.monotonic() - began < 10


def test_commands_run_side_by_side(alder: SshTransport, tmp_path: Path) -> None:
    """One connection, a channel each: each of four commands waits for the three others."""
    waits = f'cd {tmp_path}; touch "$1"; until [ -e 1 -a -e 2 -a -e 3 -a -e 4 ]; do sleep 0.1; done'
    with ThreadPoolExecutor(4) as pool:
        ran = pool.map(lambda name: alder.run(["sh", "-c", waits, "sh", name], seconds=20), "1234")
        assert [each.status for each in ran] == [0] * 4


def test_files_go_and_come_by_sftp(alder: SshTransport, tmp_path: Path) -> None:
    """Whole, at once or not at all, and for their owner only; 3 MiB is many packets."""
    data = os.urandom(3 * MIB)
    path = str(tmp_path / "there")
    alder.send_file(data, path, seconds=10)
    assert alder.fetch_file(path, seconds=10) == data
    assert Path(path).stat().st_mode & 0o777 == 0o600
    source = tmp_path / "source"
    source.write_bytes(b"other")
    alder.send_file(source, path, seconds=10)
    assert Path(path).read_bytes() == b"other"
    assert sorted(tmp_path.iterdir()) == [source, Path(path)], "a part of a file is left"


def test_files_that_are_not_there_are_named(alder: SshTransport, tmp_path: Path) -> None:
    """SFTP says `No such file` and leaves out which, and on which host."""
    with pytest.raises(RemoteError, match=f"alder: fetching {tmp_path}/x: No such file"):
        alder.fetch_file(f"{tmp_path}/x", seconds=5)
    with pytest.raises(RemoteError, match="alder: sending /no/folder/x: No such file"):
        alder.send_file(b"", "/no/folder/x", seconds=5)


def test_fetching_keeps_its_deadline(alder: SshTransport, tmp_path: Path) -> None:
    """A FIFO that nobody writes: SFTP of its own waits for ever."""
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    began = time.monotonic()
    with pytest.raises(DeadlineError, match="fetching"):
        alder.fetch_file(str(fifo), seconds=0.5)
    assert time.monotonic() - began < 10
    os.close(os.open(fifo, os.O_RDWR))  # lets the server's side go
    assert alder.run(["true"], seconds=5).status == 0, "the connection is as good as before"


def test_stream_goes_both_ways_and_ends(alder: SshTransport) -> None:
    """4 MiB through `cat`, more than any window, while stderr is talked to as well."""
    data = os.urandom(4 * MIB)
    stream = alder.open(["sh", "-c", "echo begins >&2; cat"], seconds=5)

    def send() -> None:
        stream.send(data)
        stream.end()

    sender = threading.Thread(target=send)
    sender.start()
    received = bytearray()
    while more := stream.receive():
        received += more
    sender.join()
    assert received == data
    stream.close()
    assert stream.last_words() == "begins\n"


def test_last_words_are_whole_once_the_program_has_ended(
    alder: SshTransport, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They are why it ended; a reader on a busy machine comes to them after the end of stdout."""
    receive = paramiko.Channel.recv_stderr

    def late(channel: paramiko.Channel, count: int) -> bytes:
        data = receive(channel, count)
        time.sleep(0.3)
        return data

    monkeypatch.setattr(paramiko.Channel, "recv_stderr", late)
    stream = alder.open(["sh", "-c", "echo no python >&2"], seconds=5)
    assert stream.receive() == b""
    assert stream.last_words() == "no python\n"
    stream.close()


def test_sending_to_who_does_not_read_keeps_its_deadline(alder: SshTransport) -> None:
    """A stopped QEMU reads no QMP; the window fills, and `sendall` would wait for ever."""
    stream = alder.open(["sleep", "3"], seconds=5)
    with pytest.raises(DeadlineError):
        stream.send(bytes(4 * MIB), seconds=0.5)
    stream.close()
    assert stream.receive() == b""


def test_host_that_goes_away_is_an_error_at_once(tmp_path: Path) -> None:
    """Everything that waits must end with the host: commands, streams, and what comes later."""
    with Sshd(tmp_path) as sshd, closing(_connect(sshd.connection)) as transport:
        stream = transport.open(["cat"], seconds=5)
        threading.Timer(0.5, sshd.cut_connections).start()
        began = time.monotonic()
        with pytest.raises(HostGoneError, match="alder: went away during `sleep 20`"):
            transport.run(["sleep", "20"], seconds=30)
        assert stream.receive() == b""
        with pytest.raises(HostGoneError):
            stream.send(b"x", seconds=5)
        for action in (
            lambda: transport.run(["true"], seconds=5),
            lambda: transport.open(["true"], seconds=5),
            lambda: transport.fetch_file("/etc/hostname", seconds=5),
            lambda: transport.connect_tcp("127.0.0.1", sshd.port, seconds=5),
        ):
            with pytest.raises(HostGoneError) as gone:
                action()
        assert "vf-harness restore --lab LAB`" in gone.value.fix
        assert time.monotonic() - began < 10


def test_guest_is_reached_through_its_host(sshd: Sshd) -> None:
    """A guest's address is known on its host only; the guest's own key is verified all the same."""
    with closing(_connect(sshd.connection)) as host:
        with closing(_connect(sshd.connection, via=host)) as guest:
            ran = guest.run(["sh", "-c", "echo $SSH_CONNECTION"], seconds=5)
            assert ran.stdout.split()[3] == str(sshd.port)
            guest.send_file(b"x", str(sshd.folder / "via"), seconds=5)
        with pytest.raises(RemoteError, match=r"connecting from there to 127\.0\.0\.1 port 1"):
            _connect(replace(sshd.connection, port=1), via=host)
        assert host.run(["true"], seconds=5).status == 0
