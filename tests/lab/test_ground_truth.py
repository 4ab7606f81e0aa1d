"""What the device itself wrote down, held against what the harness says of it from outside."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import pytest

from harness.analysis.memory import read_log
from harness.analysis.phases import RELEASED

if TYPE_CHECKING:
    from harness.run.lab import Lab
    from harness.run.moving import MovingGuest
    from harness.run.record import Moved
    from harness.traffic.flow import Flow

pytestmark = [
    *(pytest.mark.dma, pytest.mark.jumbo),
    pytest.mark.needs("two-hosts", "sriov", "peer", "jumbo", "dma-log"),
]


@pytest.mark.failover
def test_a_vf_that_was_let_go_wrote_nothing_more(
    lab: Lab, guest: MovingGuest, migrate: Callable[..., Moved], flow: Callable[..., Flow]
) -> None:
    """The observer's word for the moment of release is held against the device's own log.

    A write after BME fell is one that no copy of memory can have seen for sure.  And each page that
    the comparison names as lost must be one that the device wrote: else something else lost it.
    """
    from harness.lab.ground_truth import chip_log

    left = guest.instance.vf
    assert left is not None
    moved = migrate(guest, flow(9014), compare_memory=True, longest_outage_ms=None)
    truth = chip_log(lab.topology, left)
    assert truth is not None
    log, fell = read_log(truth.dma_log()), truth.mastered()[-1]
    writes = log["t_ns"][log["writes"]]
    assert len(writes) > 1000, "frames of 9014 bytes came in"
    assert fell[1] is False
    assert writes.max() < fell[0], "the device wrote after its Bus Master Enable had fallen"
    (released,) = [each for each in moved.conducted.measured.events if each.name == RELEASED]
    early_ns = fell[0] - released.t_ns
    assert abs(early_ns) <= released.uncertainty_ns, "the observer and the device disagree"
    assert moved.memory["misbehaved"] == 0, moved.why
    assert moved.memory["unexplained"] == [], moved.why
