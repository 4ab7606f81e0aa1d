"""In place on real VFIO: QEMU drives it where the kernel can, and says so where it cannot."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from harness.migration.schemes.vfio import VfioMigration

if TYPE_CHECKING:
    from harness.run.lab import Lab
    from harness.run.moving import MovingGuest
    from harness.run.verbs import MakeFlow, Migrate

pytestmark = [
    *(pytest.mark.nightly, pytest.mark.inplace, pytest.mark.about("migration by VFIO")),
    pytest.mark.needs("two-hosts", "sriov", "peer", "jumbo"),
]

UNHURRIED_PPS = 50
"""A guest that its emulator holds up for some 70 ms answers so few all the same: at 200 a second
one was seen to get all requests and leave 26 unanswered.  What is lost here is QEMU's doing."""


@pytest.mark.jumbo
def test_a_vf_whose_state_nobody_can_save_is_not_migrated(
    lab: Lab, bare_guest: MovingGuest, migrate: Migrate, flow: MakeFlow
) -> None:
    """Stock drivers have no migration for such a VF: QEMU must refuse, and harm nobody.

    A guest that is moved all the same arrives with a VF that knows nothing of its rings.  One that
    is lost by asking is what is looked for: there is no second try.
    """
    jumbo = flow(9014, rate_pps=UNHURRIED_PPS)
    refused = replace(lab.limits, status="refused")
    moved = migrate(bare_guest, jumbo, by=VfioMigration(), limits=refused, tries=1)
    assert "migration is not supported in kernel" in str(moved.migration.qemu_reason)
    assert [each.lost for each in moved.migration.flows] == [0]
    assert moved.bme_seen("vfio") == {True}
    assert bare_guest.instance.host.name == moved.migration.source
    assert bare_guest.instance.state == "running"
    assert bare_guest.stay(flow(9014)).receiver.received > 0
