"""Killed at every step, an agent must leave what the next one needs to put the host back."""

from __future__ import annotations

import contextlib
import os
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from machines import alive, bare_agent
from sysfs_port import Port

from harness.agent import journal as journal_module
from harness.agent.errors import AgentError
from harness.agent.journal import Journal
from harness.errors import RemoteError
from harness.remote import HostGoneError
from harness.remote.agent import AgentClient
from harness.waiting import wait_for


@pytest.fixture
def port(tmp_path: Path) -> Port:
    return Port.make(tmp_path / "port")


@contextlib.contextmanager
def holder(folder: Path) -> Iterator[tuple[AgentClient, Callable[..., Any]]]:
    """An agent that has the lease, and what asks it for changes."""
    with bare_agent(folder) as client:
        number = client.call("lease.take", holder="test", seconds=60)

        def change(verb: str, **args: Any) -> Any:
            return client.call(verb, lease=number, **args)

        yield client, change


DOING = [
    f"{when} {what}"
    for when in ("before", "after")
    for what in ("numvfs 2", "unbind vf", "bind vfio-pci")
]
UNDOING = [
    f"{when} {what}"
    for when in ("before", "after")
    for what in ("unbind vfio-pci", "bind vf", "numvfs 0")
]


@pytest.mark.parametrize("when", [*DOING, *UNDOING])
def test_host_is_put_back_wherever_the_agent_was_killed(
    when: str, port: Port, tmp_path: Path
) -> None:
    """SIGKILL before or after any change or undo, then a new agent: the port is as it was.

    A journal written after the change loses it at "after"; an undo that is not safe to repeat
    fails at "after" an undo, since the tree refuses a second bind as the kernel does.
    """
    before = port.now()
    port.crash(when)
    with holder(tmp_path) as (_, change), contextlib.suppress(HostGoneError):
        for one in port.changes():
            change("journal.change", **one)
        change("journal.undo")
    assert (port.path / "crash").read_text() == "never\n", "the agent was not killed there"

    with holder(tmp_path) as (client, change):
        assert change("journal.undo") == []
        assert client.call("journal.pending") == []
    assert port.now() == before


def test_controller_that_goes_away_leaves_nothing_behind(port: Port, tmp_path: Path) -> None:
    """Killed or cut off: the end of its stdin is all the agent gets, and must suffice."""
    before = port.now()
    with holder(tmp_path) as (_, change):
        for one in port.changes():
            change("journal.change", **one)
        process = change("spawn", argv=["sleep", "100"], log=str(tmp_path / "log"))
        assert port.now()["mtu"] == "9000\n"
    assert port.now() == before
    assert not alive(process["pid"]), "a QEMU of ours is left"


def test_undo_goes_back_to_an_entry_and_no_further(port: Port, tmp_path: Path) -> None:
    """Context managers nest: leaving the inner one must not undo the outer one's change."""
    with holder(tmp_path) as (client, change):
        numbers = [change("journal.change", **one) for one in port.changes()]
        assert numbers == [1, 2, 3, 4]
        change("journal.undo", down_to=3)
        assert port.now()["mtu"] == "1500\n"
        assert not (port.path / "virtfn0/driver").is_symlink()
        assert [entry["n"] for entry in client.call("journal.pending")] == [1, 2]
        change("journal.undo", down_to=1, only=True)
        assert [entry["n"] for entry in client.call("journal.pending")] == [2]


def test_an_undo_that_fails_is_kept_and_the_others_go_on(port: Port, tmp_path: Path) -> None:
    """In tp-libvirt three tear-downs stand in a row: when the first raises, the rest is lost."""
    with holder(tmp_path) as (client, change):
        change("journal.change", what="mtu", do=port.mtu("9000\n"), undo=port.mtu("1500\n"))
        broken = {"kind": "run", "argv": ["sh", "-c", "echo stuck >&2; exit 3"]}
        change("journal.change", what="odd", do={"kind": "run", "argv": ["true"]}, undo=broken)
        (failure,) = change("journal.undo")
        assert (failure["n"], failure["what"]) == (2, "odd")
        assert "stuck" in failure["because"]
        assert port.now()["mtu"] == "1500\n"
        assert [entry["what"] for entry in client.call("journal.pending")] == ["odd"]


def test_what_the_kernel_refused_is_not_undone(port: Port, tmp_path: Path) -> None:
    """Somebody's VFs are there: our write is refused, and our undo would destroy theirs."""
    missing = {"kind": "write", "path": "/proc/no_such_attribute", "text": "2"}
    theirs = {"kind": "write", "path": str(port.path / "sriov_numvfs"), "text": "0"}
    (port.path / "sriov_numvfs").write_text("7\n")
    with holder(tmp_path) as (client, change):
        with pytest.raises(RemoteError, match="ENOENT"):
            change("journal.change", what="VFs", do=missing, undo=theirs)
        assert client.call("journal.pending") == []
    assert port.now()["sriov_numvfs"] == "7\n"


def test_a_command_that_failed_is_undone(port: Port, tmp_path: Path) -> None:
    """It may have done half of its work, which a write(2) that was refused has not."""
    half = {"kind": "run", "argv": ["sh", "-c", f"echo 9000 > {port.path}/mtu; exit 1"]}
    with holder(tmp_path) as (_, change):
        with pytest.raises(RemoteError, match="ended with status 1"):
            change("journal.change", what="mtu", do=half, undo=port.mtu("1500\n"))
        assert port.now()["mtu"] == "9000\n"
    assert port.now()["mtu"] == "1500\n"


@pytest.mark.parametrize(
    "undo",
    [
        {"kind": "shell", "text": "rm -rf /"},
        {"kind": "write", "path": "/x"},
        {"kind": "run", "argv": "true"},
        {"kind": "run", "argv": ["true"], "unless": {"path": "/x"}},
        {},
    ],
)
def test_a_step_that_could_not_be_undone_is_not_begun(
    undo: dict[str, Any], port: Port, tmp_path: Path
) -> None:
    """A slip in an undo must show when the test is written, not when the host is put back."""
    with holder(tmp_path) as (client, change):
        with pytest.raises(RemoteError, match="is not a step"):
            change("journal.change", what="mtu", do=port.mtu("9000\n"), undo=undo)
        assert client.call("journal.pending") == []
    assert port.now()["mtu"] == "1500\n"


def test_entry_is_on_the_disk_before_the_change(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A power cut is no SIGKILL: without fsync of file *and* folder there may be no journal.

    Every fsync is noted with what it was of; the change looks at what was noted until then.
    """
    synced: list[str] = []
    fsync = os.fsync

    def note(file: int) -> None:
        synced.append(str(Path(f"/proc/self/fd/{file}").readlink()))
        fsync(file)

    monkeypatch.setattr(os, "fsync", note)
    state = tmp_path / "state"
    journal = Journal(str(state))
    seen: list[list[str]] = []

    def look(_: dict[str, Any]) -> None:
        assert (state / "journal.jsonl").read_text().endswith("}\n")
        seen.append(list(synced))

    nothing = {"kind": "run", "argv": ["true"]}
    journal.change("first", nothing, nothing, look)
    assert seen[0] == [str(state / "journal.jsonl"), str(state), str(tmp_path)]
    journal.change("second", nothing, nothing, look)
    assert seen[1][3:] == [str(state / "journal.jsonl")]
    synced.clear()
    journal.undo(look)
    assert synced == 2 * [str(state / "journal.jsonl")], "each step is marked as soon as done"


def _entries(state: Path, *whats: str) -> Journal:
    journal = Journal(str(state))
    for what in whats:
        journal.record(what, {"kind": "write", "path": str(state / what), "text": "undone"})
    return journal


def test_a_line_torn_by_a_crash_is_dropped(tmp_path: Path) -> None:
    """It was being written when the power went, so its change was never made."""
    journal = _entries(tmp_path, "first")
    file = tmp_path / "journal.jsonl"
    file.write_bytes(file.read_bytes() + b'{"n": 2, "boot": "x", "wh')
    assert [entry["what"] for entry in journal.pending()] == ["first"]
    nothing = {"kind": "run", "argv": ["true"]}
    assert journal.record("second", nothing) == 2
    assert [entry["what"] for entry in journal.pending()] == ["first", "second"]


def test_a_damaged_journal_stops_everything(tmp_path: Path) -> None:
    """Going on without knowing what was changed is how labs lose hosts."""
    _entries(tmp_path, "first", "second")
    file = tmp_path / "journal.jsonl"
    file.write_bytes(b"\0\0\0" + file.read_bytes()[3:])
    with pytest.raises(AgentError, match="cannot be read") as damaged:
        Journal(str(tmp_path)).record("third", {"kind": "run", "argv": ["true"]})
    assert str(file) in damaged.value.what
    with pytest.raises(AgentError, match="cannot be read"):
        Journal(str(tmp_path)).pending()


def test_a_reboot_undoes_what_does_not_outlive_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After a reboot `sriov_numvfs` is what the host's own set-up made it: not ours to write."""
    journal = _entries(tmp_path, "on-disk")
    for undo in (
        {"kind": "write", "path": "/sys/bus/pci/devices/x/sriov_numvfs", "text": "0"},
        {"kind": "run", "argv": ["ip", "link", "del", "x"]},
        {"kind": "end", "pid": 1, "started": 1},
        {"kind": "run", "argv": ["systemctl", "enable", "x"], "durable": True},
    ):
        journal.record("volatile", undo)
    monkeypatch.setattr(journal_module, "boot_id", lambda: "another boot")
    performed: list[dict[str, Any]] = []
    assert journal.undo(performed.append) == []
    assert [step.get("argv", step.get("path")) for step in performed] == [
        ["systemctl", "enable", "x"],
        str(tmp_path / "on-disk"),
    ]
    assert journal.pending() == []


def test_a_new_lease_begins_a_new_journal(port: Port, tmp_path: Path) -> None:
    """It would grow for ever otherwise; but only when nothing is pending in it."""
    state = tmp_path / "state"
    _entries(state, "left by a crash")
    with holder(tmp_path) as (client, change):
        (left,) = client.call("journal.pending")
        assert left["what"] == "left by a crash"
        assert change("journal.change", **port.changes()[0]) == 2
    with holder(tmp_path) as (_, change):
        assert change("journal.change", **port.changes()[0]) == 1
    assert "left by a crash" in (state / "journal.previous.jsonl").read_text()


def test_two_agents_number_their_entries_apart(tmp_path: Path) -> None:
    """Two entries of one number would be settled by one line, and one change stay for ever."""
    first, second = Journal(str(tmp_path)), Journal(str(tmp_path))
    nothing = {"kind": "run", "argv": ["true"]}
    numbers = [journal.record("x", nothing) for journal in (first, second, first)]
    assert numbers == [1, 2, 3]


def test_spawned_process_outlives_its_agent_and_is_ended_by_the_next(tmp_path: Path) -> None:
    """QEMU goes on when the agent is killed; whoever restores must find it and end it."""
    with holder(tmp_path) as (client, change):
        process = change("spawn", argv=["sleep", "100"], log=str(tmp_path / "log"))
        os.kill(client.call("hello")["pid"], signal.SIGKILL)
        wait_for("the agent is gone", lambda: _gone(client), within=5)
    assert alive(process["pid"])
    with holder(tmp_path) as (_, change):
        assert change("journal.undo") == []
    assert not alive(process["pid"])


def _gone(client: AgentClient) -> bool:
    with contextlib.suppress(HostGoneError):
        client.call("hello")
        return False
    return True
