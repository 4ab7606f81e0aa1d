"""A capability that no VF has, as a patched QEMU or driver would invent one, on the timeline."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from harness.analysis.expectation import Fail
from harness.analysis.order.copying import surely_before
from harness.guest.config_space import read_config, write_config, write_config_once_down
from harness.migration.plan import Marking, Plan, Quiesce, When
from harness.migration.schemes.inplace import InPlace

if TYPE_CHECKING:
    from harness.run.lab import Lab
    from harness.run.moving import MovingGuest
    from harness.run.verbs import MakeFlow, Migrate

pytestmark = [
    *(pytest.mark.inplace, pytest.mark.about("an invented capability")),
    pytest.mark.needs("two-hosts", "twin", "peer", "jumbo", "migration-capability"),
]

DOWN_FIRST = Plan(Quiesce.LINK_DOWN, When.PRECOPY, Marking.AFTER, passes=1, gap_s=1)


def test_a_guest_says_in_an_invented_capability_that_it_is_ready(
    lab: Lab, bare_guest: MovingGuest, migrate: Migrate, flow: MakeFlow
) -> None:
    """The order of 2015: the VF is taken down, its driver writes VF_STATUS, the guest is stopped.

    The guest finds the capability in its VF as in any device, so QEMU passes it on.
    """
    invented = lab.topology.capabilities["migration"]
    assert read_config(bare_guest.machine, invented.offset, 1)[0] == invented.twin_id
    write_config(bare_guest.machine, *invented.written("CAP", "ENABLE"))
    write_config_once_down(
        bare_guest.machine, *invented.written("VF_STATUS", "READY_FOR_MIGRATION")
    )
    left_dead = Fail("Bus Master Enable is lost")
    moved = migrate(bare_guest, flow(64), by=InPlace(DOWN_FIRST), expect=left_dead)
    seen = moved.registers("migration.VF_STATUS", moved.migration.source)
    assert list(moved.registers("migration.CAP", moved.migration.source)) == ["ENABLE"]
    assert list(seen) == ["WAIT_FOR_MIGRATION", "READY_FOR_MIGRATION"]
    assert surely_before(moved.event("quiesce"), seen["READY_FOR_MIGRATION"])
    assert surely_before(seen["READY_FOR_MIGRATION"], moved.event("STOP"))
