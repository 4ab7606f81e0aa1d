"""Memory: does every byte of it arrive?  Both sides are compared page by page after the stop."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from harness.analysis.expectation import Fail
from harness.guest.faults import change_byte
from harness.migration.move import Moment
from harness.migration.schemes.failover import Failover

if TYPE_CHECKING:
    from harness.guest.instance import Instance
    from harness.run.lab import Lab
    from harness.run.moving import MovingGuest
    from harness.run.verbs import MakeFlow, Migrate

PAGE_FRAME = 0x1234

pytestmark = [
    *(pytest.mark.failover, pytest.mark.dma, pytest.mark.jumbo),
    pytest.mark.needs("two-hosts", "vf", "peer", "jumbo"),
]


def test_every_page_arrives(lab: Lab, guest: MovingGuest, migrate: Migrate, flow: MakeFlow) -> None:
    """What the VF wrote last and nobody marked would differ; so would what QEMU itself loses.

    Pages that the hypervisor writes by itself are told by the guest's own registers.
    """
    patient = replace(lab.limits, longest_outage_ms=None)
    moved = migrate(guest, flow(9014), by=Failover(), compare_memory=True, limits=patient)
    assert moved.memory["pages"] == guest.spec.memory_mib * 256
    assert moved.memory["differ"] == 0, moved.why


@pytest.mark.faults
def test_one_byte_that_changes_at_the_destination_is_found_and_its_page_named(
    guest: MovingGuest, migrate: Migrate, flow: MakeFlow
) -> None:
    """A comparison that misses it would miss a page that was lost."""

    def change(_source: Instance, successor: Instance) -> None:
        """Change the byte, and change it back when it was seen: that page may be the kernel's."""
        change_byte(successor, PAGE_FRAME)

    faults = {Moment.STANDING: change, Moment.DIGESTED: change}
    expected = Fail("1 of", "the guest's page frames 0x1234")
    moved = migrate(guest, flow(64), by=Failover(), at=faults, compare_memory=True, expect=expected)
    assert moved.memory["page_frames"] == [PAGE_FRAME], moved.why
    assert moved.memory.get("unexplained", [PAGE_FRAME]) == [PAGE_FRAME], "no device wrote there"
