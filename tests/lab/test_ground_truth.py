"""A device's own record is held against what the harness says of the device from outside."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from harness.analysis.marks import RELEASED
from harness.analysis.memory import read_log
from harness.analysis.order import dma_order
from harness.migration.schemes.failover import Failover
from harness.twin.dma_log import Kind

if TYPE_CHECKING:
    from harness.run.lab import Lab
    from harness.run.moving import MovingGuest
    from harness.run.verbs import MakeFlow, Migrate

pytestmark = [
    *(pytest.mark.dma, pytest.mark.jumbo),
    pytest.mark.needs("two-hosts", "sriov", "peer", "jumbo", "dma-log"),
]


def test_the_rings_in_the_log_are_the_guests(lab: Lab, guest: MovingGuest, flow: MakeFlow) -> None:
    """A log of another VF, or of another guest, would prove nothing of this one."""
    vf = guest.instance.vf
    assert vf is not None
    device = lab.device(vf)
    before = len(read_log(device.dma_log()))
    rings = vf.receive_rings(qemu_pid=guest.instance.pid)
    guest.stay(flow(9014, "to-guest"))
    logged = read_log(device.dma_log())[before:]
    used = logged[logged["kind"] == Kind.RX_WRITEBACK]["address"]
    assert len(used) > 0
    assert all(any(at in ring.memory for ring in rings) for at in used)


@pytest.mark.failover
def test_a_vf_that_was_let_go_wrote_nothing_more(
    lab: Lab, guest: MovingGuest, migrate: Migrate, flow: MakeFlow
) -> None:
    """The observer's word for the moment of release is held against the device's own log.

    A write after BME fell is one that no copy of memory can have seen for sure.  And each page that
    the comparison names as lost must be one that the device wrote: else something else lost it.
    """
    from harness.lab.chip_vf import chip_vf

    patient = replace(lab.limits, longest_outage_ms=None)
    moved = migrate(guest, flow(9014), by=Failover(), compare_memory=True, limits=patient)
    left = guest.other_vf  # where the guest came from; one that was lost is moved anew
    assert left is not None
    truth, log = chip_vf(lab.topology, left), moved.device_log
    assert truth is not None
    assert log is not None
    assert log.data["writes"] > 0, "frames came in until the VF was let go"
    assert log.data["misbehaved"] == 0, moved.why
    fell_ns, master = truth.mastered()[-1]
    assert master is False
    assert log.t_ns <= fell_ns + log.uncertainty_ns, "the device wrote after its BME had fallen"
    (released,) = [each for each in moved.conducted.measured.events if each.name == RELEASED]
    assert abs(fell_ns - released.t_ns) <= released.uncertainty_ns, "observer and device disagree"
    assert [each.outcome for each in dma_order(moved.conducted.measured)] == ["kept"]
    assert moved.memory["unexplained"] == [], moved.why
