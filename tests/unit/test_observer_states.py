"""The migration states of a VF that the observer sees through QEMU's descriptor."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from pathlib import Path

import pytest
from observed_vf import ADDRESS, OFF, ON, Script, Vf, nothing, run
from observed_vf import sysfs as sysfs

from harness.agent import bme, observer
from harness.agent.device import VfioDevice
from harness.uapi.vfio import DeviceState, state_name

RUNNING, STOP_COPY, STOP = DeviceState.RUNNING, DeviceState.STOP_COPY, DeviceState.STOP


@pytest.fixture
def lent(sysfs: Path, monkeypatch: pytest.MonkeyPatch) -> Vf:
    """A VF whose owner is asked by the observer as QEMU is; this process stands for QEMU."""
    vf = Vf(sysfs)
    monkeypatch.setattr(VfioDevice, "borrow_from", lambda _owner, _vf: vf.borrow())
    return vf


def states(vf: Vf, *steps: Callable[[], object]) -> list[tuple[str, str | None]]:
    """Observe *vf* through a script: the name of each event of its state, and the state before."""
    summary, _ = run(vf, *steps, qemu_pid=os.getpid())
    assert all(event["data"]["vf"] == ADDRESS for event in summary["states"])
    assert summary["events"] == []
    return [(event["name"], event["data"]["was"]) for event in summary["states"]]


def test_each_change_of_a_vfs_migration_state_is_an_event(lent: Vf) -> None:
    """QEMU takes it from one to the next; the first that is seen says where it came from."""
    lent.move_to(RUNNING)
    assert states(
        lent, nothing, lambda: lent.move_to(STOP_COPY), nothing, lambda: lent.move_to(STOP)
    ) == [
        ("vfio state RUNNING", None),
        ("vfio state STOP_COPY", "RUNNING"),
        ("vfio state STOP", "STOP_COPY"),
    ]


def test_a_state_that_changes_between_two_looks_is_seen_at_once(
    lent: Vf, monkeypatch: pytest.MonkeyPatch
) -> None:
    """BME stays as it was: what compares that alone would miss a state of some milliseconds."""
    lent.move_to(RUNNING)
    with lent.register() as register:
        register.sample()
        monkeypatch.setattr(bme, "LOOK_EVERY_NS", 60_000_000_000)
        assert register.sample()[3:] == ("vfio", RUNNING)
        assert register.unchanged_ns()
        lent.move_to(STOP_COPY)
        assert register.unchanged_ns() == 0
        assert register.sample()[3:] == ("vfio", STOP_COPY)


def test_a_change_of_state_is_known_to_the_time_since_the_sample_before(lent: Vf) -> None:
    """On the timeline that is its error bar."""
    lent.move_to(RUNNING)
    path = lent.config.parent.parent / "bme.jsonl"
    spec = {"host": "alder", "vf": ADDRESS, "path": str(path), "qemu_pid": os.getpid()}
    steps = Script(nothing, lambda: threading.Event().wait(0.02), lambda: lent.move_to(STOP))
    first, second = observer.main(spec, steps)["states"]
    assert first["data"]["gap_ns"] == 0
    assert 0 < second["data"]["gap_ns"] <= second["t_ns"] - first["t_ns"]


def test_a_vf_without_migration_is_not_asked_for_a_state(lent: Vf) -> None:
    """Most have none: asking cost an ioctl with each sample."""
    assert states(lent, nothing, lambda: lent.set(OFF), nothing) == []


def test_a_state_that_cannot_be_read_any_more_is_no_change(lent: Vf) -> None:
    """Without the copy nobody knows it; when QEMU is there again it may be the same."""
    lent.move_to(RUNNING)
    fall, rise = (lambda: lent.set(OFF)), (lambda: lent.set(ON))
    assert states(lent, nothing, fall, nothing, rise, nothing, nothing) == [
        ("vfio state RUNNING", None)
    ]


def test_a_state_of_a_newer_kernel_has_its_number_for_a_name() -> None:
    """An observer that ends over a word it does not know has seen nothing."""
    assert (state_name(STOP_COPY), state_name(77)) == ("STOP_COPY", "77")
