"""Bus Master Enable: set while the guest uses its VF, clear before the last pages are copied."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from harness.analysis.expectation import Fail
from harness.analysis.order import dma_order
from harness.guest.faults import master_unowned
from harness.migration.move import Moment
from harness.migration.schemes.failover import Failover

if TYPE_CHECKING:
    from harness.run.moving import MovingGuest
    from harness.run.verbs import MakeFlow, Migrate

pytestmark = [pytest.mark.bme, pytest.mark.needs("two-hosts", "vf", "peer")]


def test_a_vf_masters_the_bus_while_its_guest_uses_it(guest: MovingGuest) -> None:
    """A check that found BME clear here would find it clear at any time, and prove nothing."""
    assert guest.instance.vf is not None
    assert guest.instance.vf.is_master()


@pytest.mark.failover
def test_dma_has_stopped_before_the_last_pages_are_copied(
    guest: MovingGuest, migrate: Migrate, flow: MakeFlow
) -> None:
    """What a VF writes after its page's last copy is missing on the other side.

    The order that loses no page: DMA off, then pages marked, then copied.  BME on the source is
    sampled through the whole migration, and must be seen falling before QEMU stops the guest.
    """
    moved = migrate(guest, flow(1514), by=Failover())
    orders = dma_order(moved.conducted.measured)
    assert [order.outcome for order in orders] == ["kept"], orders
    assert moved.bme_seen("vfio", "device") == {True, False}, "the observer did not see BME fall"


@pytest.mark.failover
@pytest.mark.nightly
def test_the_vf_masters_the_bus_again_at_the_destination(
    guest: MovingGuest, migrate: Migrate, flow: MakeFlow
) -> None:
    """A VF that comes back without BME has a link and moves no frame."""
    moved = migrate(guest, flow(64), by=Failover())
    assert guest.instance.host.name == moved.migration.destination
    assert guest.instance.vf is not None
    assert guest.instance.vf.is_master()


@pytest.mark.failover
@pytest.mark.faults
def test_a_vf_that_masters_the_bus_while_pages_are_copied_fails_by_name(
    guest: MovingGuest, migrate: Migrate, flow: MakeFlow
) -> None:
    """QEMU lets no scheme skip its wait for the unplug: BME is set again after it, by hand.

    It says `completed` all the same.
    """
    fault = {Moment.PRECOPY: master_unowned}
    broken = Fail("DMA order broken: VF ")
    moved = migrate(guest, flow(64), by=Failover(), at=fault, expect=broken)
    assert moved.migration.status == "completed"
    assert [line for line in moved.verdict.excerpt if "COMMAND" in line and "bme:" in line]
