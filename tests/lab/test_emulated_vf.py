"""A VF that QEMU itself emulates and moves with its machine: the failure that nobody tells of."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from harness.analysis.expectation import Fail
from harness.analysis.measured import Direction
from harness.migration.scheme import Patience
from harness.migration.schemes.plain import Plain
from harness.uapi.pci_regs import Command

if TYPE_CHECKING:
    from harness.run.moving import MovingGuest
    from harness.run.verbs import MakeFlow, Migrate

pytestmark = [
    *(pytest.mark.faults, pytest.mark.bme, pytest.mark.about("VFs that QEMU emulates")),
    pytest.mark.needs("two-hosts", "twin", "peer"),
]

LOST = "its COMMAND was 0x0406 at alder and is 0x0000 at birch: Bus Master Enable is lost"

HASTY = Plain(patience=Patience(served_s=3))
"""A flow that does not come back is waited for 3 s, and not 20 s."""


@pytest.mark.parametrize(
    ("direction", "shows_a_link"),
    [("round-trip", True), pytest.param("from-guest", False, marks=pytest.mark.nightly)],
)
def test_a_vf_that_lost_bus_master_enable_on_its_way_fails_the_migration(
    port_guest: MovingGuest,
    flow: MakeFlow,
    migrate: Migrate,
    direction: Direction,
    shows_a_link: bool,
) -> None:
    """QEMU says completed, and a guest that only answers is told nothing: its VF has a link.

    One that sends finds out, but cannot mend it.  A driver that is bound anew can: nothing else
    was wrong there.
    """
    vf, here = port_guest.own_vf, port_guest.instance
    assert vf is not None
    assert vf.command(here) == Command.MASTER | Command.MEMORY | Command.INTX_DISABLE
    assert port_guest.stay(flow(64)).receiver.received > 0
    stays_away = f"flow {direction}-64: it never came back"
    moved = migrate(port_guest, flow(64, direction), by=HASTY, expect=Fail(stays_away, LOST))
    moved.conducted.outcome.check()
    assert vf.has_link(port_guest.machine) is shows_a_link
    vf.bind_anew(port_guest.machine)
    assert port_guest.stay(flow(64)).receiver.received > 0


@pytest.mark.nightly
def test_with_its_command_written_back_the_vf_sends_again(
    port_guest: MovingGuest, flow: MakeFlow, migrate: Migrate
) -> None:
    """The other side of the check: that register stopped it, and is no reason any more.

    It is not whole: MSI-X is lost, too, so nobody hears that its frames left, and its ring fills.
    """
    assert port_guest.own_vf is not None
    port_guest.own_vf.keep_command(port_guest.machine)
    moved = migrate(port_guest, flow(64, "from-guest"), by=HASTY, expect=None)
    moved.conducted.outcome.check()
    assert "COMMAND" not in moved.why
    assert moved.served_in("after") > 0, moved.why
