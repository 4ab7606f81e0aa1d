"""A host over SSH, whole: agent sent and started, asked, cut off, closed."""

from __future__ import annotations

import json
import logging
import os
import signal
import socket
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from machines import Sshd, alive, children

from harness.clock import relate
from harness.errors import RemoteError, RestoreError
from harness.remote import CommandError, Host, HostGoneError, connect, zipapp
from harness.remote.relay import connected
from harness.remote.transport import DeadlineError
from harness.waiting import wait_for

MIB = 1 << 20


@pytest.fixture(scope="module")
def sshd(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Sshd]:
    with Sshd(tmp_path_factory.mktemp("sshd")) as server:
        yield server


@pytest.fixture
def own_sshd(tmp_path: Path) -> Iterator[Sshd]:
    """A server whose connections a test may cut."""
    with Sshd(tmp_path) as server:
        yield server


def _connect(sshd: Sshd, folder: Path, via: Host | None = None) -> Host:
    run, state = str(folder / "run"), str(folder / "state")
    return connect("alder", sshd.connection, via=via, folder=run, state=state)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the host keeps what is ours."""
    return tmp_path_factory.mktemp("alder")


@pytest.fixture(scope="module")
def alder(sshd: Sshd, folder: Path) -> Iterator[Host]:
    """A host that is asked, and whose lease is not taken."""
    with _connect(sshd, folder) as host:
        yield host


@pytest.fixture
def lent(sshd: Sshd, tmp_path: Path) -> Iterator[Host]:
    """The same machine with notes of its own, and its lease taken."""
    with _connect(sshd, tmp_path) as host:
        host.lease.take("test", 60)
        yield host


def test_agent_is_sent_once_for_its_owner_alone(alder: Host, sshd: Sshd, folder: Path) -> None:
    """Named by its content: a second connection starts what is there, a new version is sent."""
    app = folder / "run" / zipapp.build().name
    assert app.read_bytes() == zipapp.build().data
    assert (folder / "run").stat().st_mode & 0o777 == 0o700
    sent_at = app.stat().st_mtime_ns
    with _connect(sshd, folder) as again:
        assert again.facts.pid != alder.facts.pid
    assert app.stat().st_mtime_ns == sent_at


def test_host_without_python_is_told_apart(sshd: Sshd, tmp_path: Path) -> None:
    """The agent cannot say so itself; what the shell says must reach the reader."""
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / zipapp.build().name).write_text("raise SystemExit('python3: not found')")
    with pytest.raises(HostGoneError, match="alder: its agent went away during `hello`") as gone:
        _connect(sshd, tmp_path)
    assert "python3: not found" in gone.value.because


def test_old_python_is_told_in_the_agents_own_words(sshd: Sshd, tmp_path: Path) -> None:
    """What an agent says before it can take requests, number or not, answers them all."""
    (tmp_path / "run").mkdir()
    fault = {"what": "python3 is version 3.8", "because": "-", "fix": "install a newer python3"}
    says = f"print({json.dumps(json.dumps({'error': fault}))})"
    (tmp_path / "run" / zipapp.build().name).write_text(says)
    with pytest.raises(RemoteError, match=r"alder: python3 is version 3\.8") as old:
        _connect(sshd, tmp_path)
    assert old.value.fix == "install a newer python3"


def test_commands_are_logged_so_that_they_can_be_pasted(
    alder: Host, caplog: pytest.LogCaptureFixture, tmp_path: Path
) -> None:
    """`commands.log` is what people replay by hand; a comment holds how it went."""
    caplog.set_level(logging.DEBUG, "harness.commands")
    path = tmp_path / "a b"
    alder.run("sh", "-c", "echo $0 | grep -q .", "it's")
    alder.write_text(str(path), "it's 4\n")
    with pytest.raises(CommandError):
        alder.run("false")
    logged = [record.getMessage() for record in caplog.records]
    assert all(line.startswith("[alder] $ ") for line in logged)
    for line, status in zip(logged, (0, 0, 1), strict=True):
        path.unlink(missing_ok=True)
        command = line.removeprefix("[alder] $ ")
        assert subprocess.run(["sh", "-c", command], check=False).returncode == status
        assert not path.exists() or path.read_text() == "it's 4\n"
    assert "# status 1, 0." in logged[2]


def test_failed_command_is_an_error_unless_unchecked(alder: Host) -> None:
    """An unread status is how a failed set-up passes for a failed test."""
    with pytest.raises(CommandError, match=r"alder: `sh -c 'echo no .*` ended with status 4") as no:
        alder.run("sh", "-c", "echo no >&2; exit 4")
    assert no.value.because == "it said: no"
    assert alder.run("sh", "-c", "exit 4", check=False).status == 4
    assert alder.run("cat", stdin="fed\n").stdout == "fed\n"


def test_megabytes_come_through_the_agent(alder: Host) -> None:
    """Both streams, through JSON and SSH at once: one line that is longer than any window."""
    script = "head -c 4194304 /dev/zero | tr '\\0' e >&2 & head -c 4194304 /dev/zero; wait"
    ran = alder.run("sh", "-c", script)
    assert (ran.stdout.count("\0"), ran.stderr.count("e")) == (4 * MIB, 4 * MIB)
    with pytest.raises(RemoteError, match="said more than 4000000 bytes"):
        alder.run("sh", "-c", script, limit_bytes=4_000_000)


def test_hanging_command_is_ended_on_the_host(alder: Host, tmp_path: Path) -> None:
    """The agent's own deadline comes before ours, so the error says what it last said."""
    with pytest.raises(RemoteError, match=r"alder: `sh .*` did not end within 0\.3 s") as late:
        alder.run("sh", "-c", f"echo stuck >&2; echo $$ > {tmp_path}/pid; sleep 100", seconds=0.3)
    assert "stuck" in late.value.because
    assert not alive(int((tmp_path / "pid").read_text()))


def test_clocks_are_related_within_the_round_trip(alder: Host) -> None:
    """Both are one machine here, so the true offset is 0 and must lie within the error bar."""
    relation = relate(alder.clock_readings(20))
    assert abs(relation.offset_ns) <= relation.uncertainty_ns
    assert relation.uncertainty_ns < 100e6
    assert alder.realtime_minus_monotonic_ns() > 0


def test_socket_to_reaches_a_unix_socket_there(alder: Host, tmp_path: Path) -> None:
    """QMP: a greeting from that side first, then both ways, then the end seen on both sides."""
    path = str(tmp_path / "qmp")
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(path)
        listener.listen()
        with alder.socket_to(path) as near:
            far, _ = listener.accept()
            with far:
                far.sendall(b'{"QMP": {}}\n')
                assert near.recv(100) == b'{"QMP": {}}\n'
                data = os.urandom(MIB)
                sender = threading.Thread(target=near.sendall, args=(data,))
                sender.start()
                received = b""
                while len(received) < MIB:
                    received += far.recv(1 << 16)
                sender.join()
                assert received == data
            assert near.recv(100) == b"", "QEMU has ended, and we must see it"


def test_end_of_our_side_is_seen_over_there(alder: Host, tmp_path: Path) -> None:
    """QEMU serves one QMP client at a time: one that never seems to leave locks out the next."""
    path = str(tmp_path / "qmp")
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(path)
        listener.listen()
        near = alder.socket_to(path)
        far, _ = listener.accept()
        with far:
            near.close()
            assert far.recv(100) == b""


def test_socket_that_nobody_serves_is_an_error(alder: Host, tmp_path: Path) -> None:
    """It must not look like a QEMU that closed the connection."""
    with pytest.raises(RemoteError, match=r"alder: connecting to .*/none: ENOENT"):
        alder.socket_to(str(tmp_path / "none"))


def test_a_relay_that_says_nothing_is_waited_for_no_longer_than_asked(alder: Host) -> None:
    """A guest whose SSH server works and whose programs hang would hold up a run for good."""
    stream = alder.transport.open(["sleep", "60"], seconds=10)
    with pytest.raises(DeadlineError, match=r"alder: starting a relay was not over after 0\.3 s"):
        connected("alder", stream, 0.3)
    assert stream.receive() == b"", "it was left open"


def test_a_relay_that_ends_at_once_is_no_late_one(alder: Host) -> None:
    """More seconds would not help it."""
    stream = alder.transport.open(["sh", "-c", "echo no python >&2"], seconds=10)
    with pytest.raises(HostGoneError, match="the relay ended before it began") as failed:
        connected("alder", stream, 30)
    assert "no python" in failed.value.because


def test_small_files_and_large_ones(alder: Host, folder: Path) -> None:
    """Records are bytes, attributes are text, and a case's folder is made on the way."""
    path = alder.scratch("case-1/record")
    alder.send(b"\0record", path)
    assert alder.fetch(path) == b"\0record"
    assert alder.listdir(str(folder / "run" / "case-1")) == ["record"]
    alder.write_text(path, "text")
    assert alder.read_text(path) == "text"
    alder.unlink(path)
    assert not alder.exists(path)


def test_changes_are_undone_down_to_the_one_named(lent: Host, tmp_path: Path) -> None:
    """What could not be undone must be an error of its own kind: exit code 12 stands on it."""
    attribute = tmp_path / "mtu"
    attribute.write_text("1500")
    steps = [{"kind": "write", "path": str(attribute), "text": mtu} for mtu in ("1500", "9000")]
    number = lent.change("jumbo frames", do=steps[1], undo=steps[0])
    assert [entry["what"] for entry in lent.pending()] == ["jumbo frames"]
    assert attribute.read_text() == "9000"
    lent.undo(number)
    assert attribute.read_text() == "1500"

    broken = {"kind": "run", "argv": ["sh", "-c", "echo stuck >&2; false"]}
    lent.change("broken", do={"kind": "run", "argv": ["true"]}, undo=broken)
    with pytest.raises(RestoreError, match="alder: not undone: broken") as failed:
        lent.undo()
    assert "stuck" in failed.value.because


def test_ended_process_is_no_longer_journalled(lent: Host, tmp_path: Path) -> None:
    """Else each QEMU of a long run would be looked for when the host is put back."""
    qemu = lent.spawn(["sleep", "100"], log=str(tmp_path / "log"))
    assert alive(qemu.pid)
    assert lent.end(qemu) == "SIGTERM"
    assert not alive(qemu.pid)
    assert lent.pending() == []


def test_host_that_went_away_puts_itself_back(own_sshd: Sshd, tmp_path: Path) -> None:
    """The connection is cut in the middle of everything: calls end, and the agent tidies up."""
    attribute = tmp_path / "mtu"
    alder = _connect(own_sshd, tmp_path)
    alder.lease.take("test", 60)
    steps = [{"kind": "write", "path": str(attribute), "text": mtu} for mtu in ("1500", "9000")]
    alder.change("jumbo frames", do=steps[1], undo=steps[0])
    alder.start("links", {"path": alder.scratch("links")})
    recorders = children(alder.facts.pid)
    waiting = threading.Timer(0.3, own_sshd.cut_connections)
    waiting.start()
    assert not alder.is_gone
    with pytest.raises(HostGoneError, match="alder: its agent went away during `sleep 20`"):
        alder.run("sleep", "20")
    assert alder.is_gone
    with pytest.raises(HostGoneError, match="during `read /etc/hostname`"):
        alder.read_text("/etc/hostname")
    wait_for("agent is gone", lambda: not alive(alder.facts.pid), within=10)
    assert attribute.read_text() == "1500"
    assert not any(alive(pid) for pid in recorders)
    alder.close()


def test_guest_has_an_agent_too_through_its_host(alder: Host, sshd: Sshd, tmp_path: Path) -> None:
    """The whole way, agent and SFTP included, through one channel of another connection."""
    with _connect(sshd, tmp_path / "guest", via=alder) as guest:
        assert guest.run("sh", "-c", "echo $SSH_CONNECTION").stdout.split()[3] == str(sshd.port)
        assert guest.facts.pid != alder.facts.pid


def test_resident_agent_is_found_again(sshd: Sshd, tmp_path: Path) -> None:
    """A guest's connections end with its migration; what records inside it must not."""
    run, state = str(tmp_path / "run"), str(tmp_path / "state")
    path = tmp_path / "links"

    def guest(seconds: float = 60) -> Host:
        return connect(
            "guest", sshd.connection, resident=True, folder=run, state=state, seconds=seconds
        )

    with guest() as before:
        resident = before.facts.pid
        recorder = before.start("links", {"path": str(path)})
    try:
        with guest() as after:
            assert after.facts.pid == resident
            assert after.ask("stop", recorder=recorder._number)["lost"] == 0
        assert path.read_text()
        os.kill(resident, signal.SIGSTOP)  # the kernel still takes connections in for it
        with pytest.raises(DeadlineError, match=r"guest: `hello` was not over after [0-2]\.\d+ s"):
            guest(seconds=3)
    finally:
        os.kill(resident, signal.SIGKILL)


def test_closing_leaves_no_thread_behind(sshd: Sshd, tmp_path: Path) -> None:
    """A run opens hundreds of connections; one thread left by each is the end of it."""
    before = set(threading.enumerate())
    with _connect(sshd, tmp_path) as host:
        host.run("true")
    left = wait_for(
        "threads end", lambda: set(threading.enumerate()) - before, until=lambda t: not t, within=5
    )
    assert left == set()
