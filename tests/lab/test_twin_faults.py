"""Twins that misbehave on purpose: each fault must turn one of our checks red."""

from __future__ import annotations

from contextlib import closing

import pytest

from harness.analysis.expectation import Fail
from harness.errors import LabError, RemoteError
from harness.migration.plan import Marking, Plan, Quiesce, When
from harness.migration.schemes.inplace import InPlace
from harness.run.moving import MovingGuest
from harness.run.verbs import MakeFlow, Migrate
from harness.waiting import wait_for

pytestmark = [
    *(pytest.mark.faults, pytest.mark.about("devices that misbehave")),
    pytest.mark.needs("two-hosts", "twin", "peer", "jumbo"),
]

DUYCKS_ORDER = Plan(Quiesce.BME_CLEARED, When.PRECOPY, Marking.AFTER)


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
    flow: MakeFlow,
    migrate: Migrate,
    fault: dict[str, object],
    is_found: bool,
) -> None:
    """BME reads 0, the pages were marked, the order looks right: only the device's log can tell."""
    bare_guest.twin.misbehave(**fault)
    found = ["times without the right to"] if is_found else []
    left_dead = Fail("Bus Master Enable is lost", *found)
    moved = migrate(bare_guest, flow(9014), by=InPlace(DUYCKS_ORDER), expect=left_dead)
    assert moved.device_log is not None
    assert (moved.device_log.data["misbehaved"] > 0) is is_found, moved.why
    assert ("times without the right to" in moved.why) is is_found, moved.why


def test_a_second_guest_on_a_twin_is_refused(
    bare_guest: MovingGuest, migrate: Migrate, flow: MakeFlow
) -> None:
    """It would take the VF from the first, or hang at its start; nothing of it is started."""
    twin, here = bare_guest.other_twin, bare_guest.instance
    with closing(twin.host.socket_to(f"{twin.folder}/vf")):
        wait_for("the twin to have a guest", lambda: twin.control.ask("status")["client"], within=5)
        with pytest.raises(LabError, match="twin vf0 has a guest already"):
            migrate(bare_guest, flow(64), by=InPlace(DUYCKS_ORDER))
    assert bare_guest.instance is here
    assert bare_guest.stay(flow(64)).receiver.received > 0


def test_a_twin_that_dies_ends_all_service(
    bare_guest: MovingGuest, flow: MakeFlow, migrate: Migrate
) -> None:
    """The host says so, the flow's own record does, and no migration is measured with it."""
    assert bare_guest.stay(flow(64)).receiver.received > 0
    with pytest.raises(RemoteError, match="did not answer to 'misbehave'"):
        bare_guest.twin.misbehave(dies=True)
    assert bare_guest.stay(flow(64)).receiver.received == 0
    with pytest.raises(RemoteError, match="alder: vf0: the twin did not answer to 'status'"):
        migrate(bare_guest, flow(64), by=InPlace(DUYCKS_ORDER))
