"""Twins that misbehave on purpose: each fault must turn one of our checks red."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import closing

import pytest

from harness.analysis.audit import Audited
from harness.audit.ways import Way
from harness.errors import LabError, MigrationError, RemoteError
from harness.guest.faults import refuse_sleep
from harness.migration import quiescing
from harness.migration.plan import Marking, Plan, Quiesce, When
from harness.run.moving import MovingGuest
from harness.run.record import Moved
from harness.traffic.flow import Flow
from harness.traffic.running import start
from harness.waiting import WaitError, let_pass, wait_for

pytestmark = [
    *(pytest.mark.faults, pytest.mark.about("devices that misbehave")),
    pytest.mark.needs("two-hosts", "twin", "peer", "jumbo"),
]

DUYCKS_ORDER = Plan(Quiesce.BME_CLEARED, When.PRECOPY, Marking.AFTER)


def test_a_frame_that_is_changed_in_memory_is_counted_as_corrupted(
    bare_guest: MovingGuest, flow: Callable[..., Flow]
) -> None:
    """Nothing on the wire was wrong: only the payload's own checksum can tell."""
    bare_guest.twin.misbehave(corrupts=3)
    records = bare_guest.stay(flow(9014, "to-guest"))
    assert records.receiver.corrupted == 3
    assert bare_guest.stay(flow(9014, "to-guest")).receiver.corrupted == 0


@pytest.mark.parametrize(
    ("fault", "is_found"),
    [
        pytest.param({"ignores_bme": True}, True, id="goes on"),
        pytest.param({"late_ms": 300}, True, id="writes late"),
        pytest.param({}, False, id="behaves"),
    ],
)
def test_a_device_that_writes_after_bme_was_cleared_is_found(
    bare_guest: MovingGuest,
    flow: Callable[..., Flow],
    migrate: Callable[..., Moved],
    fault: dict[str, object],
    is_found: bool,
) -> None:
    """BME reads 0, the pages were marked, the order looks right: only the device's log can tell."""
    bare_guest.twin.misbehave(**fault)
    moved = migrate(bare_guest, flow(9014), plan=DUYCKS_ORDER)
    assert (moved.memory["misbehaved"] > 0) is is_found, moved.why
    assert ("times without the right to" in moved.why) is is_found, moved.why


@pytest.mark.parametrize(
    "fault", [{"silent_mailbox": True}, {"late_mailbox_ms": 3000}], ids=["never", "late"]
)
def test_a_port_that_does_not_answer_its_vf_leaves_it_dead(
    bare_guest: MovingGuest,
    flow: Callable[..., Flow],
    migrate: Callable[..., Moved],
    fault: dict[str, object],
) -> None:
    """The driver waits one second for an answer: then it has no VF, and its users notice."""
    bare_guest.other_twin.misbehave(**fault)
    moved = migrate(bare_guest, flow(64), plan=Plan(Quiesce.ACPI_SUSPEND, When.BEFORE))
    assert moved.memory["differ"] == 0, moved.why
    assert moved.migration.flows[0].longest_outage_ms is None, moved.why
    assert moved.verdict.word == "fail", moved.why


def test_a_guest_that_will_not_sleep_says_why(
    bare_guest: MovingGuest,
    flow: Callable[..., Flow],
    migrate: Callable[..., Moved],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A device that is busy refuses, and QEMU is told nothing: only the guest knows."""
    monkeypatch.setattr(quiescing, "ASLEEP_SECONDS", 3)
    refuse_sleep(bare_guest.machine)
    with pytest.raises(MigrationError, match="did not fall asleep within 3 s") as awake:
        migrate(bare_guest, flow(64), plan=Plan(Quiesce.ACPI_SUSPEND, When.BEFORE))
    assert "Read-only file system" in awake.value.because


@pytest.mark.parametrize("fault", [{"ignores_bme": True}, {"late_ms": 1000}], ids=["on", "late"])
def test_a_device_that_is_not_silent_without_bme_fails_its_audit(
    bare_guest: MovingGuest, audit: Callable[..., Audited], fault: dict[str, object]
) -> None:
    """Its register says that it must not write: the memory under its rings says that it does."""
    bare_guest.twin.misbehave(**fault)
    found = audit(bare_guest, Way.BME_CLEARED)
    assert not found.is_master
    assert found.evidence.accesses
    assert len(found.faults) == 1, found


def test_a_second_guest_on_a_twin_is_refused(
    bare_guest: MovingGuest, migrate: Callable[..., Moved], flow: Callable[..., Flow]
) -> None:
    """It would take the VF from the first, or hang at its start; nothing of it is started."""
    twin, here = bare_guest.other_twin, bare_guest.instance
    with closing(twin.host.socket_to(f"{twin.folder}/vf")):
        wait_for("the twin to have a guest", lambda: twin.control.ask("status")["client"], within=5)
        with pytest.raises(LabError, match="twin vf0 has a guest already"):
            migrate(bare_guest, flow(64), plan=DUYCKS_ORDER)
    assert bare_guest.instance is here
    assert bare_guest.stay(flow(64)).receiver.received > 0


def test_a_lost_interrupt_is_an_outage(bare_guest: MovingGuest, flow: Callable[..., Flow]) -> None:
    """The queue's vector stays masked until its driver has been there: one loss stops it."""
    assert bare_guest.stay(flow(64)).receiver.received > 0
    ends = bare_guest.ends()
    with start(flow(64), ends.peer_end, ends.guest_end) as running:
        running.wait_until_served(5)
        bare_guest.twin.misbehave(loses=1)
        let_pass(0.5)  # what arrived before that is written by then
        with pytest.raises(WaitError, match="frames of flow round-trip-64 to arrive"):
            running.wait_until_served(1)


def test_a_twin_that_dies_ends_all_service(
    bare_guest: MovingGuest, flow: Callable[..., Flow], migrate: Callable[..., Moved]
) -> None:
    """The host says so, the flow's own record does, and no migration is measured with it."""
    assert bare_guest.stay(flow(64)).receiver.received > 0
    with pytest.raises(RemoteError, match="did not answer to 'misbehave'"):
        bare_guest.twin.misbehave(dies=True)
    assert bare_guest.stay(flow(64)).receiver.received == 0
    with pytest.raises(RemoteError, match="alder: vf0: the twin did not answer to 'status'"):
        migrate(bare_guest, flow(64), plan=DUYCKS_ORDER)
