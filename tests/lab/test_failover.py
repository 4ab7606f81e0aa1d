"""Failover: users are cut off while the VF is away, and no longer than the lab allows."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from harness.run.moving import MovingGuest
    from harness.run.record import Moved
    from harness.traffic.flow import Direction, Flow

JUMBO = [pytest.mark.jumbo, pytest.mark.needs("jumbo")]
pytestmark = [pytest.mark.failover, pytest.mark.needs("two-hosts", "sriov", "iommu", "peer")]


@pytest.mark.downtime
@pytest.mark.smoke
@pytest.mark.parametrize(
    "frame_bytes",
    [64, 1514, pytest.param(9014, marks=[pytest.mark.jumbo, pytest.mark.needs("jumbo")])],
)
@pytest.mark.parametrize("direction", ["round-trip", "from-guest"])
def test_users_are_cut_off_no_longer_than_the_lab_allows(
    guest: MovingGuest,
    migrate: Callable[..., Moved],
    flow: Callable[..., Flow],
    frame_bytes: int,
    direction: Direction,
) -> None:
    """Numbered frames run through the whole migration; each gap in them is an outage.

    A filter left on the wrong port, a standby that never takes over, a VF that does not come back:
    each shows as an outage above the lab's limit or as one that never ends.
    """
    moved = migrate(guest, flow(frame_bytes, direction))
    assert moved.verdict.word == "pass", moved.why
