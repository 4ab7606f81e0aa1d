"""The port's side of a twin, by what the real driver makes of it and by the frames that arrive."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest

from harness.run.moving import MovingGuest
from harness.traffic.flow import Flow
from harness.twin.driver import IXGBE_6_12
from harness.uapi.ixgbe_vf import Api
from harness.waiting import wait_for

pytestmark = [pytest.mark.jumbo, pytest.mark.needs("twin", "ixgbevf", "peer", "jumbo")]

NOTICED_S = 15
"""The driver looks at its link every two seconds, and resets a VF once in ten."""


@pytest.fixture
def guest(staying_guest: MovingGuest) -> Iterator[MovingGuest]:
    """A guest whose port is as it was before, and whose driver has begun anew with it."""
    yield staying_guest
    ask = staying_guest.twin.control.ask
    ask("set_link", up=True)
    ask("set_vlan", vlan=0)
    ask("set_trust", trusted=False)
    ask("set_api", newest=IXGBE_6_12.newest_api)
    ask("set_mac", mac=staying_guest.spec.mac)
    staying_guest.machine.restart(staying_guest.ends().guest_end.interface)


@pytest.fixture
def arrives(guest: MovingGuest, flow: Callable[..., Flow]) -> Callable[[], bool]:
    """Whether frames of 9014 bytes get into the guest."""
    return lambda: guest.stay(flow(9014, "to-guest")).receiver.received > 0


def link(guest: MovingGuest) -> tuple[bool, int]:
    """Carrier and speed, as the guest's kernel tells them."""
    return guest.machine.link(guest.ends().guest_end.interface)


def test_the_cables_state_and_speed_are_what_the_driver_says(
    guest: MovingGuest, arrives: Callable[[], bool]
) -> None:
    """VFLINKS is read when the port rings; nothing arrives over a link that is down."""
    ask = guest.twin.control.ask
    assert link(guest) == (True, 10_000)
    ask("set_link", up=False)
    wait_for("no link", lambda: link(guest), within=NOTICED_S, until=(False, -1).__eq__)
    ask("set_link", up=True, mbit=1000)
    wait_for("a slow link", lambda: link(guest), within=NOTICED_S, until=(True, 1000).__eq__)
    assert arrives()


@pytest.mark.parametrize("newest", [Api.V10, Api.V11, Api.V13], ids=lambda api: api.name)
def test_a_driver_speaks_what_an_older_port_knows(
    guest: MovingGuest, arrives: Callable[[], bool], newest: Api
) -> None:
    """It asks for less until it is understood; without API 1.1 a jumbo port leaves it deaf.

    Ref: ixgbevf_negotiate_api; ixgbe_set_vf_lpe.
    """
    guest.twin.control.ask("set_api", newest=newest)
    guest.machine.restart(guest.ends().guest_end.interface)
    assert guest.twin.control.ask("status")["vf"]["api"] == newest
    assert arrives() == (newest >= Api.V11)


def test_an_address_that_the_administrator_gave_is_kept_unless_the_vf_is_trusted(
    guest: MovingGuest, arrives: Callable[[], bool]
) -> None:
    """What the driver is refused the guest is told, and frames go on as before.

    Ref: ixgbe_set_vf_mac_addr.
    """
    interface, own = guest.ends().guest_end.interface, "02:00:00:00:00:99"
    change = ["/usr/bin/ip", "link", "set", "dev", interface, "address", own]
    assert guest.machine.host.run(*change, check=False).status != 0
    assert arrives()
    guest.twin.control.ask("set_trust", trusted=True)
    guest.machine.restart(interface)
    guest.machine.host.run(*change)
    assert guest.twin.control.ask("status")["vf"]["mac"] == own
    guest.machine.host.run(*change[:-1], guest.spec.mac)


def test_a_vlan_of_the_ports_takes_the_vf_out_of_the_others_reach(
    guest: MovingGuest, arrives: Callable[[], bool]
) -> None:
    """Its frames are tagged on the wire and untagged in the guest, which is told nothing."""
    assert arrives()
    guest.twin.control.ask("set_vlan", vlan=7)
    assert not arrives()
    guest.twin.control.ask("set_vlan", vlan=0)
    assert arrives()
