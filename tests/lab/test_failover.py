"""Failover: users are cut off while the VF is away, and no longer than the lab allows."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from harness.analysis.measured import Direction
    from harness.run.lab import Lab
    from harness.run.moving import MovingGuest
    from harness.run.record import Moved
    from harness.traffic.flow import Flow

JUMBO = [pytest.mark.jumbo, pytest.mark.needs("jumbo")]
FLOWS = [
    pytest.param("round-trip", 64, marks=pytest.mark.smoke),
    pytest.param("round-trip", 1514, marks=pytest.mark.nightly),
    pytest.param("round-trip", 9014, marks=[*JUMBO, pytest.mark.smoke]),
    pytest.param("from-guest", 64, marks=pytest.mark.nightly),
    pytest.param("from-guest", 1514, marks=pytest.mark.nightly),
    pytest.param("from-guest", 9014, marks=JUMBO),
]
pytestmark = [pytest.mark.failover, pytest.mark.needs("two-hosts", "vf", "peer")]


@pytest.mark.downtime
@pytest.mark.parametrize(("direction", "frame_bytes"), FLOWS)
def test_users_are_cut_off_no_longer_than_the_lab_allows(
    lab: Lab,
    guest: MovingGuest,
    migrate: Callable[..., Moved],
    flow: Callable[..., Flow],
    direction: Direction,
    frame_bytes: int,
) -> None:
    """Numbered frames run through the whole migration; each gap in them is an outage.

    A filter left on the source swallows every frame while memory is copied; a VF that does not
    come back has no lasting link, and a flow that does not has an outage with an open end.
    """
    moved = migrate(guest, flow(frame_bytes, direction))
    assert moved.verdict.word == "pass", moved.why
    assert moved.served_in("pre-copy") >= lab.topology.limits.served_while_copied, (
        "the standby did not take over while memory was copied"
    )
