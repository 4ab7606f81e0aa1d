"""A guest that a test has left unwell is replaced, so that the next test does not find it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from harness.audit.ways import Way
from harness.errors import RemoteError
from harness.guest.faults import panic, refuse_sleep
from harness.migration.outcome import GONE, state_of
from harness.waiting import wait_for

if TYPE_CHECKING:
    from harness.run.moving import MovingGuest
    from harness.run.verbs import MakeFlow, StopVf

pytestmark = [pytest.mark.nightly, pytest.mark.needs("two-hosts", "vf", "peer")]


@pytest.mark.faults
@pytest.mark.bme
def test_a_guest_whose_audit_breaks_off_is_replaced(
    bare_guest: MovingGuest, audit: StopVf, flow: MakeFlow
) -> None:
    """Nobody knows what such a step has left of its VF: the next test must not find that."""
    before = bare_guest.instance
    refuse_sleep(bare_guest.machine)
    with pytest.raises(RemoteError, match=r"guest: .* ended with status"):
        audit(bare_guest, Way.DEVICE_SUSPEND)
    assert bare_guest.instance is not before
    assert bare_guest.stay(flow(64)).receiver.received > 0


@pytest.mark.faults
def test_a_guest_that_has_ended_is_replaced_before_it_is_used(
    bare_guest: MovingGuest, flow: MakeFlow
) -> None:
    """A test that lost its guest must not take all that come after it along."""
    panic(bare_guest.machine)
    wait_for("its QEMU to end", lambda: state_of(bare_guest.instance) == GONE, within=20)
    assert bare_guest.stay(flow(64)).receiver.received > 0
