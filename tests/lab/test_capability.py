"""Registers that a topology describes are watched while their VF migrates, change by change."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from harness.analysis.order.copying import surely_before
from harness.migration.schemes.failover import Failover

if TYPE_CHECKING:
    from harness.run.moving import MovingGuest
    from harness.run.verbs import MakeFlow, Migrate

pytestmark = [
    pytest.mark.failover,
    pytest.mark.about("described registers"),
    pytest.mark.needs("two-hosts", "vf", "peer", "msix"),
]


def test_a_driver_that_lets_its_vf_go_turns_its_interrupts_off(
    guest: MovingGuest, migrate: Migrate, flow: MakeFlow
) -> None:
    """A register of a real capability: off before the guest is stopped, on where it runs again."""
    moved = migrate(guest, flow(64), by=Failover())
    source = moved.registers("msix.CONTROL", moved.migration.source)
    destination = moved.registers("msix.CONTROL", moved.migration.destination)
    assert next(iter(source)) == "ON", source
    assert surely_before(source["OFF"], moved.event("STOP")), source
    assert next(iter(destination)) == "OFF", destination
    assert surely_before(moved.event("RESUME"), destination["ON"]), destination
