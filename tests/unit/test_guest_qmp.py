"""QMP for code that is not asynchronous, spoken with a server that behaves as QEMU's does."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import pytest
from qmp_server import Arguments, Monitor, RefusedError

from harness.errors import MigrationError, RemoteError
from harness.guest import qmp as module
from harness.guest.qmp import Qmp, QmpEvent
from harness.waiting import wait_for


@pytest.fixture
def monitor() -> Iterator[Monitor]:
    with closing(Monitor()) as monitor:
        yield monitor


@pytest.fixture
def qmp(monitor: Monitor, tmp_path: Path) -> Iterator[Qmp]:
    with closing(Qmp("alder", monitor.near, tmp_path / "qmp.jsonl")) as qmp:
        yield qmp


def named(name: str) -> Callable[[QmpEvent], bool]:
    return lambda event: event.name == name


def logged(path: Path) -> list[tuple[str, object]]:
    return [(line["kind"], line["what"]) for line in map(json.loads, path.read_text().splitlines())]


def test_an_answer_is_what_qemu_returned(qmp: Qmp, monitor: Monitor) -> None:
    """Arguments that get lost on the way would leave QEMU with its defaults."""
    monitor.reacts["query-version"] = lambda _: {"qemu": {"major": 10}}

    assert qmp.execute("query-version") == {"qemu": {"major": 10}}
    qmp.execute("migrate", {"uri": "tcp:198.19.0.2:4444"})
    assert monitor.asked == [("query-version", {}), ("migrate", {"uri": "tcp:198.19.0.2:4444"})]


def test_events_that_come_before_the_first_command_are_kept(qmp: Qmp, monitor: Monitor) -> None:
    """A guest that stops while nobody asks anything has still stopped."""
    monitor.emit("STOP")
    monitor.emit("RESUME")

    qmp.execute("query-status")  # answered after both
    assert [event.name for event in qmp.events] == ["STOP", "RESUME"]


def test_an_event_keeps_its_stamp_and_data(qmp: Qmp, monitor: Monitor) -> None:
    """Microseconds taken for nanoseconds put every event of a migration at its beginning."""
    monitor.emit("UNPLUG_PRIMARY", **{"device-id": "vf0"})

    event = qmp.wait_for("the unplug", named("UNPLUG_PRIMARY"), within=5)
    assert event == QmpEvent("UNPLUG_PRIMARY", {"device-id": "vf0"}, 1_700_000_000_000_001_000)


def test_the_title_of_a_migration_event_is_its_step(qmp: Qmp, monitor: Monitor) -> None:
    """All of them have one name: without the step a timeline shows nothing."""
    monitor.announces_steps = True
    monitor.step("wait-unplug")
    monitor.emit("MIGRATION_PASS", **{"pass": 2})

    qmp.wait_for("the pass", named("MIGRATION_PASS"), within=5)
    assert [event.title for event in qmp.events] == ["MIGRATION wait-unplug", "MIGRATION_PASS"]


def test_waiting_sees_an_event_that_has_come_already(qmp: Qmp, monitor: Monitor) -> None:
    """What was announced between two calls must not be waited for once more."""
    monitor.emit("STOP")
    qmp.execute("query-status")

    assert qmp.wait_for("the stop", named("STOP"), within=0).name == "STOP"


def test_waiting_ends_when_the_event_comes(qmp: Qmp, monitor: Monitor) -> None:
    """Waiting that looks only at what is there already would run out."""
    later = threading.Timer(0.1, lambda: monitor.emit("RESUME"))
    later.start()
    assert qmp.wait_for("the guest to run on", named("RESUME"), within=5).name == "RESUME"
    later.join()


def test_events_before_since_are_not_taken_for_new_ones(qmp: Qmp, monitor: Monitor) -> None:
    """The end of the migration before would be taken for the end of this one."""
    monitor.emit("MIGRATION", status="completed")
    qmp.execute("query-status")
    since = len(qmp.events)
    with pytest.raises(MigrationError, match="events seen: none"):
        qmp.wait_for("the end", named("MIGRATION"), within=0.05, since=since)

    monitor.emit("MIGRATION", status="failed")
    ending = qmp.wait_for("the end", named("MIGRATION"), within=5, since=since)
    assert ending.data == {"status": "failed"}


def test_a_wait_that_runs_out_lists_the_events_that_did_come(qmp: Qmp, monitor: Monitor) -> None:
    """They say how far it got, which is the first thing that anybody asks."""
    monitor.emit("MIGRATION", status="setup")
    monitor.emit("UNPLUG_PRIMARY")
    qmp.execute("query-status")

    with pytest.raises(MigrationError) as late:
        qmp.wait_for("the guest to stop", named("STOP"), within=0.05)
    assert late.value.what == "alder: waited up to 0.05 s for the guest to stop"
    assert late.value.because == ("the time is up; events seen: MIGRATION setup, UNPLUG_PRIMARY")


def test_a_refusal_is_quoted_in_qemus_words(qmp: Qmp, monitor: Monitor, tmp_path: Path) -> None:
    """QEMU knows why, and nothing that we could say replaces it."""

    def refuse(_: Arguments) -> object:
        raise RefusedError("0000:01:10.0: VFIO migration is not supported in kernel")

    monitor.reacts["migrate"] = refuse
    with pytest.raises(MigrationError) as refused:
        qmp.execute("migrate", {"uri": "tcp:198.19.0.2:4444"})
    assert refused.value.what == "alder: QEMU refused migrate"
    assert "0000:01:10.0: VFIO migration is not supported in kernel" in refused.value.because
    assert [kind for kind, _ in logged(tmp_path / "qmp.jsonl")] == ["sent", "refused"]
    assert qmp.execute("query-status")["status"] == "running", "the connection goes on"


def test_an_answer_that_does_not_come_is_an_error_and_may_still_come_later(
    qmp: Qmp, monitor: Monitor, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A QEMU whose main loop is stuck would otherwise hang the whole run."""
    monkeypatch.setattr(module, "ANSWER_SECONDS", 0.1)
    monitor.ignores.add("stop")
    with pytest.raises(RemoteError, match=r"alder: QEMU did not answer to stop within 0\.1 s"):
        qmp.execute("stop")

    monkeypatch.setattr(module, "ANSWER_SECONDS", 5)
    monitor.say({"return": {"late": True}, "id": "__qmp#00000"})
    assert qmp.execute("query-status")["status"] == "running", "not the late answer"


def test_waiting_ends_at_once_when_qemu_ends(qmp: Qmp, monitor: Monitor) -> None:
    """Deadlines of migrations are minutes; the guest's QEMU is not coming back."""
    began = time.monotonic()
    later = threading.Timer(0.1, monitor.end)
    later.start()
    monitor.emit("STOP")
    with pytest.raises(MigrationError, match="QEMU closed its connection; events seen: STOP"):
        qmp.wait_for("the guest to run on", named("RESUME"), within=30)
    assert time.monotonic() - began < 10
    later.join()


def test_the_last_words_of_a_qemu_that_ends_are_kept(qmp: Qmp, monitor: Monitor) -> None:
    """SHUTDOWN comes in the same breath as the end of the connection, and says why."""
    for number in range(200):
        monitor.emit("MIGRATION_PASS", **{"pass": number})
    monitor.emit("SHUTDOWN", guest=False, reason="host-error")
    monitor.end()

    assert qmp.wait_for("the end", named("SHUTDOWN"), within=5).data["reason"] == "host-error"
    assert len(qmp.events) == 201


def test_a_command_to_a_qemu_that_has_ended_says_so(qmp: Qmp, monitor: Monitor) -> None:
    """It raises at once, whether the connection is known to be gone or not yet."""
    monitor.end()
    for _ in range(2):
        with pytest.raises(module.QemuGoneError, match="alder: the QMP connection failed"):
            qmp.execute("query-status")


def test_a_command_under_way_when_qemu_ends_is_an_error(qmp: Qmp, monitor: Monitor) -> None:
    """Its answer will not come; waiting out the deadline would hide why."""
    monitor.ignores.add("migrate")
    later = threading.Timer(0.1, monitor.end)
    later.start()
    began = time.monotonic()
    with pytest.raises(module.QemuGoneError, match="the QMP connection failed"):
        qmp.execute("migrate")
    assert time.monotonic() - began < 10
    later.join()


def test_a_socket_that_is_not_there_is_an_error(tmp_path: Path) -> None:
    """QEMU ended before it listened: its log says why, and is named."""
    with pytest.raises(module.QemuGoneError) as gone:
        Qmp("alder", str(tmp_path / "none"), tmp_path / "qmp.jsonl")
    assert "QEMU ended or never started" in gone.value.fix


def test_a_server_that_does_not_greet_is_an_error() -> None:
    """Another program on that socket, or a QEMU that is stuck before its main loop."""
    with closing(Monitor(greets=False)) as mute:
        with pytest.raises(RemoteError, match=r"did not answer to the greeting within 0\.1 s"):
            Qmp("alder", mute.near, seconds=0.1)
        wait_for("the connection to be given up", lambda: mute.near.fileno() < 0, within=5)


def test_the_log_tells_what_was_said_in_order(qmp: Qmp, monitor: Monitor, tmp_path: Path) -> None:
    """It is read when a migration failed, and must hold both sides."""
    monitor.emit("STOP")
    qmp.execute("cont", {"force": True})
    qmp.close()

    told = logged(tmp_path / "qmp.jsonl")
    assert {kind for kind, _ in told} == {"sent", "event", "answered"}
    assert ("sent", {"execute": "cont", "arguments": {"force": True}}) in told
    assert [kind for kind, _ in told].index("sent") < [kind for kind, _ in told].index("answered")
    assert qmp.log_text() == (tmp_path / "qmp.jsonl").read_text()


def test_closing_twice_does_no_harm(qmp: Qmp, monitor: Monitor) -> None:
    """An instance that is ended by its test is ended once more with the lab."""
    qmp.close()
    qmp.close()
    with pytest.raises(module.QemuGoneError):
        qmp.execute("query-status")
    assert monitor.asked == []


def test_closing_after_qemu_has_ended_does_no_harm(qmp: Qmp, monitor: Monitor) -> None:
    """Putting a host back closes what is left, and must not stumble over what is gone."""
    monitor.end()
    with pytest.raises(MigrationError):
        qmp.wait_for("anything", lambda _: False, within=5)
    qmp.close()
