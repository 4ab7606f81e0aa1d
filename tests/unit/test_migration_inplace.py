"""Scheme ``inplace`` where it does not come to its end: QEMUs as over QMP, twins as they are."""

from __future__ import annotations

import socket
import subprocess
import threading
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path

import pytest
from qmp_server import Arguments, connected
from two_ends import MAC, End, move_between
from two_ends import ends as ends

from harness.errors import LabError, MeasurementError, RemoteError
from harness.guest.qmp import QmpEvent
from harness.host.twin import Twin
from harness.host.twin_control import TwinControl, TwinRefused
from harness.host.vf import NO_MAC
from harness.migration import move
from harness.migration.memory import LoggedComparison, last_said
from harness.migration.outcome import GONE, Outcome
from harness.migration.plan import Marking, Plan, Quiesce, When
from harness.migration.schemes.inplace import InPlace
from harness.topology import MacAddress
from harness.twin.control import Control, ControlConnection
from harness.twin.device import Device
from harness.twin.dma_log import HEAD, RECORD, DmaLog, Kind
from harness.twin.port import Port

TRACKED = Plan(when=When.BEFORE, marking=Marking.AS_WRITTEN)


@pytest.fixture
def devices(tmp_path: Path) -> Iterator[list[Device]]:
    """The devices of two twins, that of the source first."""
    logs = [DmaLog(str(tmp_path / f"{number}.log"), 8) for number in range(2)]
    yield [Device(port=Port(mtu=9000), send=lambda _: True, log=log) for log in logs]
    for log in logs:
        log.close()


@contextmanager
def twin_of(end: End, device: Device, folder: str = "/run/vf0") -> Iterator[Twin]:
    near, far = socket.socketpair()
    connection = ControlConnection(far, Control(device, lambda: False))

    def serve() -> None:
        while connection.serve():
            pass

    serving = threading.Thread(target=serve)
    serving.start()
    try:
        yield Twin(end.instance.host, "vf0", folder, "vfh0-vf0", TwinControl("vf0", near))
    finally:
        near.close()
        serving.join(5)
        connection.close()
    assert not serving.is_alive()


def migrated(ends: tuple[End, End], devices: list[Device], plan: Plan = TRACKED) -> Outcome:
    with ExitStack() as stack:
        twins = [
            stack.enter_context(twin_of(end, device))
            for end, device in zip(ends, devices, strict=True)
        ]
        for end, twin in zip(ends, twins, strict=True):
            end.instance.vf = twin
        comparison = LoggedComparison(twins[0])
        return InPlace(plan).migrate(move_between(ends, comparison=comparison))


def test_an_access_that_found_the_log_full_was_made(ends: tuple[End, End], tmp_path: Path) -> None:
    """A twin that goes on beyond its log would pass for a silent one."""
    with closing(DmaLog(str(tmp_path / "full"), 1)) as log:
        device = Device(port=Port(mtu=9000), send=lambda _: True, log=log)
        with twin_of(ends[0], device) as twin:
            for _ in range(3):
                log.add(0x1000, 16, Kind.RX_DATA, 0)
            assert (twin.log_position, twin.accesses) == (1, 3)


def test_a_log_that_is_shorter_than_its_twin_says_is_none(
    ends: tuple[End, End], tmp_path: Path
) -> None:
    """What is cut off would pass for a device that was silent by then."""
    ends[0].machine.programs["sh"] = lambda argv: (subprocess.run(argv, check=False).returncode, "")
    file = tmp_path / "dma.log"
    with closing(DmaLog(str(file), 8)) as log:
        device = Device(port=Port(mtu=9000), send=lambda _: True, log=log)
        with twin_of(ends[0], device, str(tmp_path)) as twin:
            for _ in range(3):
                log.add(0x1000, 16, Kind.RX_DATA, 0)
            whole = HEAD.size + 3 * RECORD.size
            assert len(twin.dma_log()) == whole
            (tmp_path / "vf0").mkdir()
            (tmp_path / "vf0" / "dma.log").write_bytes(file.read_bytes()[: whole - 1])
            with (
                twin_of(ends[0], device, str(tmp_path / "vf0")) as cut,
                pytest.raises(RemoteError, match=f"of twin vf0 has {whole - 1} bytes"),
            ):
                cut.dma_log()


def test_a_twins_filter_that_a_reset_has_emptied_counts_as_cleared(
    ends: tuple[End, End], devices: list[Device]
) -> None:
    """As a port's does; what else its port refuses is an error all the same."""
    with twin_of(ends[0], devices[0]) as twin:
        twin.set_filter(MAC)
        devices[0].port.vf_was_reset()
        twin.set_filter(NO_MAC)
        assert twin.control.ask("status")["vf"]["mac"] == NO_MAC
        with pytest.raises(TwinRefused, match="vf0: the twin refused 'set_mac'"):
            twin.set_filter(MacAddress("01:00:5e:00:00:01"))


def test_the_last_pass_is_the_last_that_qemu_announced(ends: tuple[End, End]) -> None:
    """One that was announced before it would excuse what was written since."""
    events = [QmpEvent("STOP", {}, 1), QmpEvent("STOP", {}, 2), QmpEvent("RESUME", {}, 3)]
    host = ends[0].instance.host
    assert last_said(host, events, "STOP").realtime_ns == 2
    with pytest.raises(MeasurementError, match="alder: QEMU did not say 'MIGRATION device'"):
        last_said(host, events, "MIGRATION device")


def steps_of(outcome: Outcome) -> list[str]:
    return [note.name for note in outcome.notes]


def test_one_that_fails_is_an_outcome_with_what_was_planned(
    ends: tuple[End, End], devices: list[Device]
) -> None:
    """The plan stands in the report; and the twin, which the guest keeps, writes as before."""
    source, destination = ends
    connected(source.monitor, destination.monitor, fails="Broken pipe")
    outcome = migrated(ends, devices)
    assert (outcome.status, outcome.reason) == ("failed", "Broken pipe")
    assert steps_of(outcome) == ["in place"]
    assert not devices[0].memory.tracked
    assert "migrate-continue" not in source.asked


def test_one_that_gets_stuck_is_cancelled(
    ends: tuple[End, End], devices: list[Device], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A guest that writes faster than QEMU copies never comes to its last pass."""
    monkeypatch.setattr(move, "SECONDS_AT_LEAST", 0.2)
    monitor = ends[0].monitor
    monitor.reacts["migrate"] = lambda _: monitor.then.append(lambda: monitor.step("active"))
    monitor.reacts["migrate_cancel"] = lambda _: monitor.then.append(
        lambda: monitor.step("cancelled")
    )
    outcome = migrated(ends, devices)
    assert outcome.status == "cancelled"
    assert outcome.reason is not None
    assert "for the migration to be pre-switchover" in outcome.reason
    assert steps_of(outcome) == ["in place", "gave up waiting"]
    assert not devices[0].memory.tracked


def test_a_source_that_ends_is_an_outcome(ends: tuple[End, End], devices: list[Device]) -> None:
    """So does a guest that panics as its VF is stopped."""
    monitor = ends[0].monitor
    monitor.reacts["migrate"] = lambda _: monitor.then.append(monitor.end)
    outcome = migrated(ends, devices)
    assert (outcome.status, outcome.source_state) == ("failed", GONE)
    assert steps_of(outcome) == ["in place", "gave up waiting"]


def test_a_source_that_ends_while_a_step_is_taken_is_an_outcome(
    ends: tuple[End, End], devices: list[Device]
) -> None:
    """It is asked how far it has come, and is not there any more."""
    monitor = ends[0].monitor
    monitor.reacts["migrate"] = lambda _: monitor.step("active")
    monitor.reacts["query-migrate"] = lambda _: monitor.end()
    outcome = migrated(ends, devices, Plan(Quiesce.BME_CLEARED, When.PRECOPY, Marking.NONE))
    assert (outcome.status, outcome.source_state) == ("failed", GONE)
    assert steps_of(outcome) == ["in place", "gave up waiting"]


def test_steps_that_came_after_the_stop_are_another_experiment(
    ends: tuple[End, End], devices: list[Device]
) -> None:
    """A machine that copied faster than the step was taken; in the table it would be a lie."""
    monitor = ends[0].monitor

    def migrate(_: Arguments) -> object:
        monitor.step("active")
        monitor.emit("STOP")
        monitor.migration = {"status": "active", "ram": {"dirty-sync-count": 2}}
        return {}

    monitor.reacts["migrate"] = migrate
    with pytest.raises(LabError, match="QEMU stopped the guest before the plan's steps") as other:
        migrated(ends, devices, Plan(Quiesce.BME_CLEARED, When.PRECOPY, Marking.NONE))
    assert "bme-cleared pre-copy, marked none" in other.value.because
