"""Failover: users are cut off while the VF is away, and no longer than the lab allows."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from harness.analysis.expectation import Fail
from harness.analysis.marks import ASKED
from harness.analysis.order.copying import surely_before
from harness.host.software_vf import misbehaving
from harness.migration.handoff import SET
from harness.migration.schemes.failover import Failover

if TYPE_CHECKING:
    from harness.analysis.measured import Direction
    from harness.run.lab import Lab
    from harness.run.moving import MovingGuest
    from harness.run.verbs import MakeFlow, Migrate

JUMBO = [pytest.mark.jumbo, pytest.mark.needs("jumbo")]
FLOWS = [
    pytest.param("round-trip", 64, marks=pytest.mark.smoke),
    pytest.param("round-trip", 1514, marks=pytest.mark.nightly),
    pytest.param("round-trip", 9014, marks=[*JUMBO, pytest.mark.smoke]),
    pytest.param("from-guest", 64, marks=pytest.mark.nightly),
    pytest.param("from-guest", 1514, marks=pytest.mark.nightly),
    pytest.param("from-guest", 9014, marks=JUMBO),
]
SILENT = pytest.mark.about("a port that answers nothing")
LATE = [pytest.mark.needs("twin"), pytest.mark.about("a port that answers late")]
pytestmark = [pytest.mark.failover, pytest.mark.needs("two-hosts", "vf", "peer")]


@pytest.mark.downtime
@pytest.mark.parametrize(("direction", "frame_bytes"), FLOWS)
def test_users_are_cut_off_no_longer_than_the_lab_allows(
    lab: Lab,
    guest: MovingGuest,
    migrate: Migrate,
    flow: MakeFlow,
    direction: Direction,
    frame_bytes: int,
) -> None:
    """Numbered frames run through the whole migration; each gap in them is an outage.

    A filter left on the source swallows every frame while memory is copied; a VF that does not
    come back has no lasting link, and a flow that does not has an outage with an open end.
    """
    moved = migrate(guest, flow(frame_bytes, direction), by=Failover())
    assert moved.served_in("pre-copy") >= lab.topology.limits.served_while_copied, (
        "the standby did not take over while memory was copied"
    )


@pytest.mark.nightly
def test_the_destinations_filter_is_set_when_its_family_needs_it(
    lab: Lab, guest: MovingGuest, migrate: Migrate, flow: MakeFlow
) -> None:
    """Where a function reset takes it out, before QEMU opens the VF; else once the guest runs."""
    moved = migrate(guest, flow(64), by=Failover())
    filter_set = moved.event(SET)
    assert filter_set.source == f"handoff:{moved.migration.destination}"
    if lab.topology.vf_profile.filter_survives_reset.value:
        assert surely_before(moved.event("RESUME"), filter_set), filter_set
    else:
        assert surely_before(filter_set, moved.event(ASKED)), filter_set


@pytest.mark.nightly
@pytest.mark.faults
@pytest.mark.needs("software-vf")
@pytest.mark.parametrize(
    "fault",
    [
        pytest.param({"silent_mailbox": True}, id="never", marks=SILENT),
        pytest.param({"late_mailbox_ms": 3000}, id="late", marks=LATE),
    ],
)
def test_a_port_that_does_not_answer_its_vf_leaves_it_dead(
    lab: Lab,
    guest: MovingGuest,
    flow: MakeFlow,
    migrate: Migrate,
    fault: dict[str, object],
) -> None:
    """The VF's driver waits a second for each answer, and gives up; the guest has its standby.

    The standby serves users of a port that never answers.  A port that is late has heard the VF's
    address by then, and gives the frames to a VF that is dead.
    """
    with misbehaving(lab.device(guest.other_vf), **fault):
        dead = Fail("the guest has no VF with a lasting link")
        moved = migrate(guest, flow(64), by=Failover(), expect=dead)
    if "silent_mailbox" in fault:
        assert moved.migration.flows[0].longest_outage_ms is not None, "the standby serves nobody"
