"""The agent as it runs on a host: the real zipapp, a real process, real kernel errors."""

from __future__ import annotations

import ast
import base64
import errno
import json
import os
import queue
import signal
import socket
import subprocess
import sys
import threading
import time
import zipfile
from collections.abc import Iterator
from io import BytesIO
from pathlib import Path
from typing import Any

import pytest
from machines import alive, bare_agent, children

from harness.agent import files
from harness.agent.errors import AgentError
from harness.agent.processes import Spawned, start_time
from harness.errors import RemoteError
from harness.remote import zipapp
from harness.remote.agent import AgentClient
from harness.waiting import wait_for

MIB = 1 << 20


@pytest.fixture(scope="module")
def agent(tmp_path_factory: pytest.TempPathFactory) -> Iterator[AgentClient]:
    with bare_agent(tmp_path_factory.mktemp("agent")) as client:
        yield client


def test_hello_names_the_process_that_serves(agent: AgentClient) -> None:
    """The controller tells a restarted agent, or another host, by these."""
    facts = agent.call("hello")
    assert facts["pid"] in children(os.getpid())
    assert facts["hostname"] == socket.gethostname()
    assert facts["euid"] == os.geteuid()
    assert facts["boot"] == Path("/proc/sys/kernel/random/boot_id").read_text().strip()


def test_clock_is_read_between_request_and_reply(agent: AgentClient) -> None:
    """Both processes share a clock here, so a reading outside would be a wrong clock."""
    before, clock, after = time.monotonic_ns(), agent.call("clock"), time.monotonic_ns()
    assert before <= clock["monotonic_ns"] <= after
    assert abs(clock["realtime_ns"] - time.time_ns()) < 1e9


@pytest.mark.parametrize(
    ("verb", "args", "said"),
    [
        ("reboot", {}, "there is no verb 'reboot'"),
        ("read", {"pth": "/etc/passwd"}, "missing a required argument: 'path'"),
        ("read", {"path": 7}, "path is to be str, not 7"),
        ("run", {"argv": "ls /"}, "argv is to be list, not 'ls /'"),
        ("run", {"argv": []}, "a command without words"),
        ("run", {"argv": ["no-such-command"]}, "could not be started"),
    ],
)
def test_a_wrong_request_is_refused_and_the_agent_goes_on(
    agent: AgentClient, verb: str, args: dict[str, Any], said: str
) -> None:
    """An agent that died of a slip in a test would put the host back in the middle of it."""
    with pytest.raises(RemoteError, match=said) as refused:
        agent.call(verb, **args)
    assert refused.value.because
    assert refused.value.fix
    assert agent.call("hello")


def test_a_line_that_is_no_request_is_answered(tmp_path: Path) -> None:
    """Someone who runs the agent by hand must see what it wants, not a traceback."""
    app = tmp_path / "agent.pyz"
    app.write_bytes(zipapp.build().data)
    spoken = subprocess.run(
        [sys.executable, "-I", app, "serve", "--state", tmp_path],
        input=b'hello\n{"id": 1, "verb": "exists", "args": {"path": "/"}}\n[]\n',
        capture_output=True,
        check=True,
    )
    replies = [json.loads(line) for line in spoken.stdout.splitlines()]
    assert [reply["id"] for reply in replies].count(None) == 2
    assert spoken.stderr == b""


@pytest.mark.parametrize(
    ("path", "text", "said"),
    [
        ("/proc/self/oom_score_adj", "5000", r"EINVAL \(Invalid argument\)"),
        ("/sys/class/net/lo/no_such_attribute", "1", r"ENOENT \(No such file"),
        ("/proc/self/no_such_file", "1", r"ENOENT"),
        ("/", "1", r"EISDIR"),
    ],
)
def test_what_the_kernel_refuses_is_named(
    agent: AgentClient, path: str, text: str, said: str
) -> None:
    """`sriov_numvfs` says EBUSY or EINVAL for different reasons; "failed" would hide which."""
    with pytest.raises(RemoteError, match=said):
        agent.call("write", path=path, text=text)


def test_a_file_in_use_is_told_from_a_bad_value(agent: AgentClient, tmp_path: Path) -> None:
    """The kernel's own answer for a file in use, to a real write: a program that runs."""
    program = tmp_path / "sleep"
    program.write_bytes(Path("/bin/sleep").read_bytes())
    program.chmod(0o700)
    with subprocess.Popen([program, "100"]) as running:
        try:
            with pytest.raises(RemoteError, match="ETXTBSY"):
                agent.call("write", path=str(program), text="x")
        finally:
            running.kill()


def test_busy_comes_with_the_rule_of_numvfs() -> None:
    """The refusal everybody meets at `sriov_numvfs` must say what to do about it."""
    refused = files.refused("writing '4' to sriov_numvfs", OSError(errno.EBUSY, ""))
    assert refused.what == "writing '4' to sriov_numvfs: EBUSY (Device or resource busy)"
    assert "from 0 to n and from n to 0 only" in refused.fix


def test_small_files_come_and_go(agent: AgentClient, tmp_path: Path) -> None:
    """What sysfs work is made of: attributes, links, folders."""
    path = str(tmp_path / "new" / "attribute")
    agent.call("mkdir", path=str(tmp_path / "new"))
    assert not agent.call("exists", path=path)
    agent.call("write", path=path, text="vfio-pci\n")
    assert agent.call("read", path=path) == "vfio-pci\n"
    agent.call("write", path=path, text="")
    assert agent.call("read", path=path) == "", "what was there before is gone"
    assert Path(path).stat().st_mode & 0o777 == 0o600
    Path(tmp_path, "driver").symlink_to("new/attribute")
    assert agent.call("readlink", path=str(tmp_path / "driver")) == "new/attribute"
    assert agent.call("listdir", path=str(tmp_path)) == ["driver", "new"]
    agent.call("unlink", path=path)
    assert not agent.call("exists", path=path)
    assert agent.call("exists", path=str(tmp_path / "driver")), "a dangling link is something"


def test_reading_suits_procfs_and_binary(agent: AgentClient, tmp_path: Path) -> None:
    """A read of megabytes is ENOMEM to procfs, and `config` of a device is not text."""
    assert agent.call("read", path="/proc/sys/kernel/ostype") == "Linux\n"
    config = bytes(range(256))
    (tmp_path / "config").write_bytes(config)
    read = agent.call("read", path=str(tmp_path / "config"), binary=True)
    assert base64.b64decode(read) == config
    with pytest.raises(RemoteError, match="is not text"):
        agent.call("read", path=str(tmp_path / "config"))
    with pytest.raises(RemoteError, match="longer than 100 bytes"):
        agent.call("read", path=str(tmp_path / "config"), limit_bytes=100)


def test_a_command_that_hangs_is_killed_with_all_it_started(
    agent: AgentClient, tmp_path: Path
) -> None:
    """Killing the shell alone would leave what it waits for to spoil the next test."""
    script = "sleep 100 & echo $! > child; echo last words >&2; sleep 100"
    began = time.monotonic()
    with pytest.raises(RemoteError, match=r"did not end within 0\.5 s") as late:
        agent.call("run", argv=["sh", "-c", f"cd {tmp_path}; {script}"], seconds=0.5)
    assert time.monotonic() - began < 10
    assert "last words" in late.value.because
    child = int((tmp_path / "child").read_text())
    wait_for("the grandchild is gone", lambda: not alive(child), within=10)


def test_what_a_command_leaves_behind_does_not_hold_it_up(
    agent: AgentClient, tmp_path: Path
) -> None:
    """A daemon that inherits stdout keeps the pipe open; waiting for its end hung peers' labs."""
    script = f"echo said; sleep 100 & echo $! > {tmp_path}/child"
    began = time.monotonic()
    result = agent.call("run", argv=["sh", "-c", script], seconds=20)
    assert (result["status"], result["stdout"]) == (0, "said\n")
    assert time.monotonic() - began < 10
    os.kill(int((tmp_path / "child").read_text()), signal.SIGKILL)


def test_both_streams_are_drained_while_stdin_is_fed(agent: AgentClient) -> None:
    """4 MiB on each is far above any pipe: reading one after the other would stand still."""
    script = "cat; head -c 4194304 /dev/zero | tr '\\0' e >&2"
    result = agent.call("run", argv=["sh", "-c", script], stdin_text="i" * 4 * MIB)
    assert result["stdout"] == "i" * 4 * MIB
    assert result["stderr"] == "e" * 4 * MIB


def test_a_flood_is_ended_with_advice(agent: AgentClient) -> None:
    """Without a limit the agent's memory, and then the host's, would go."""
    with pytest.raises(RemoteError, match=r"`yes` said more than 100000 bytes") as flood:
        agent.call("run", argv=["yes"], limit_bytes=100_000)
    assert "redirect its output to a file" in flood.value.fix


def test_a_status_is_told_and_a_signal_too(agent: AgentClient) -> None:
    """Killed and failed are two things; a shell would make 137 of the one."""
    assert agent.call("run", argv=["sh", "-c", "exit 7"])["status"] == 7
    assert agent.call("run", argv=["sh", "-c", "kill -9 $$"])["status"] == -9


def test_messages_are_not_translated(agent: AgentClient) -> None:
    """What commands say is read by programs, on hosts set up in any language."""
    assert "LC_ALL=C\n" in agent.call("run", argv=["env"])["stdout"]


def test_requests_are_served_side_by_side(agent: AgentClient) -> None:
    """A slow command must not hold up the clock readings or the lease."""
    done: queue.SimpleQueue[str] = queue.SimpleQueue()

    def slow() -> None:
        agent.call("run", argv=["sleep", "0.5"])
        done.put("slow")

    thread = threading.Thread(target=slow)
    thread.start()
    agent.call("hello")
    done.put("quick")
    thread.join()
    assert [done.get(), done.get()] == ["quick", "slow"]


def test_spawned_process_is_ended_by_pid_and_start_time(agent: AgentClient, tmp_path: Path) -> None:
    """Pids come round again: a pid alone could end somebody else's process."""
    made = agent.call("spawn", argv=["sleep", "100"], log=str(tmp_path / "log"))
    pid, started = made["pid"], made["started"]
    assert os.getsid(pid) == pid, "it must not get the signals of the agent's session"
    assert agent.call("end", pid=pid, started=started + 1) == "gone"
    assert alive(pid), "that was another process's start time"
    assert agent.call("end", pid=pid, started=started) == "SIGTERM"
    assert not alive(pid)
    assert agent.call("end", pid=pid, started=started) == "gone"
    assert not Path(f"/proc/{pid}").exists(), "a zombie is left"


def test_a_stubborn_process_is_killed_with_its_group(agent: AgentClient, tmp_path: Path) -> None:
    """QEMU has helpers; a wedged one ignores SIGTERM."""
    script = f"trap '' TERM; sleep 100 & echo $! > {tmp_path}/child; while :; do sleep 1; done"
    made = agent.call("spawn", argv=["sh", "-c", script], log=str(tmp_path / "log"))
    wait_for("it runs", lambda: (tmp_path / "child").exists(), within=5)
    how = agent.call("end", pid=made["pid"], started=made["started"], seconds=0.2)
    assert how == "SIGKILL"
    child = int((tmp_path / "child").read_text())
    wait_for("its helper is gone", lambda: not alive(child), within=10)


def test_spawn_keeps_its_output_for_its_owner_alone(agent: AgentClient, tmp_path: Path) -> None:
    """QEMU's last words are in that log, and stderr is where they are."""
    log = tmp_path / "qemu.log"
    agent.call("spawn", argv=["sh", "-c", "echo said; echo so >&2"], log=str(log))
    wait_for("both lines", log.read_text, until=lambda text: text == "said\nso\n", within=5)
    assert log.stat().st_mode & 0o777 == 0o600
    with pytest.raises(RemoteError, match="no such command"):
        agent.call("spawn", argv=["no-such-qemu"], log=str(log))


def test_nothing_is_spawned_before_its_end_is_journalled(tmp_path: Path) -> None:
    """A QEMU started before its entry is on the disk is nobody's after a crash in between."""

    def full_disk(what: str, undo: dict[str, object]) -> int:
        assert alive(int(str(undo["pid"]))), f"{what}: the entry must name the real process"
        raise AgentError("the disk is full", because="-", fix="-")

    with pytest.raises(AgentError, match="full"):
        Spawned(full_disk).spawn(["touch", str(tmp_path / "ran")], log=str(tmp_path / "log"))
    wait_for("no child is left", lambda: not _gates(), within=5)
    assert not (tmp_path / "ran").exists()


def _gates() -> list[int]:
    named = [(pid, Path(f"/proc/{pid}/cmdline").read_bytes()) for pid in children(os.getpid())]
    return [pid for pid, words in named if b"gate" in words]


def test_start_time_survives_odd_names(tmp_path: Path) -> None:
    """Field 2 of /proc/PID/stat may hold spaces and brackets; splitting it naively goes wrong."""
    odd = tmp_path / "a) Z 1 (b"
    odd.symlink_to("/bin/sleep")
    with subprocess.Popen([odd, "100"]) as process:
        try:
            assert start_time(process.pid) >= start_time(os.getpid()) > 0
        finally:
            process.kill()
    assert start_time(process.pid) == 0


def test_zipapp_is_the_same_for_the_same_sources() -> None:
    """Its name is a hash of it; a time stamp inside would have it sent anew for each run."""
    first = zipapp.build()
    zipapp.build.cache_clear()
    assert zipapp.build() == first


def test_zipapp_can_be_read_by_python_3_9() -> None:
    """Hosts have older Pythons than we do; one `match` or `except*` would end the agent there."""
    with zipfile.ZipFile(BytesIO(zipapp.build().data)) as archive:
        names = archive.namelist()
        for name in names:
            tree = ast.parse(archive.read(name), name, feature_version=(3, 9))
            futures = "from __future__ import annotations"
            assert name == "__main__.py" or futures in ast.unparse(tree) or not _annotated(tree)
    assert "harness/agent/serve.py" in names
    assert "harness/errors.py" not in names, "what the agent may not import must not be there"


def _annotated(tree: ast.AST) -> bool:
    return any(isinstance(node, (ast.AnnAssign, ast.FunctionDef)) for node in ast.walk(tree))
