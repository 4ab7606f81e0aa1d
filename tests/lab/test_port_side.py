"""A port's settings for a VF show in the VF's driver and in the frames that arrive.

The same tests run on twins and on ports, through the VF's ``port_side``.  A test of what only a
twin's port can do needs a twin.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace

import pytest

from harness.host.port_side import LinkState, put_back
from harness.run.moving import MovingGuest
from harness.run.verbs import MakeFlow
from harness.topology import MacAddress
from harness.traffic.running import start
from harness.uapi.ixgbe_vf import Api
from harness.waiting import let_pass, wait_for

pytestmark = [pytest.mark.jumbo, pytest.mark.needs("two-hosts", "vf", "peer", "jumbo")]

OTHER = MacAddress("02:00:00:00:00:99")
NO_LINK = (False, -1)

NOTICED_S = 30
"""A driver looks at its link every two seconds, and resets a VF once in ten.

Ref: Linux, drivers/net/ethernet/intel/ixgbevf/ixgbevf_main.c, ixgbevf_watchdog_update_link.
"""


@pytest.fixture
def guest(staying_guest: MovingGuest) -> Iterator[MovingGuest]:
    """Yield a guest; afterwards its port is as it was before, and its driver is restarted."""
    with put_back(staying_guest.port_side):
        yield staying_guest
    staying_guest.machine.restart(staying_guest.ends().guest_end.interface)


@pytest.fixture
def arrives(guest: MovingGuest, flow: MakeFlow) -> Callable[[], bool]:
    """Return a function that says whether frames of 9014 bytes arrive in the guest."""
    return lambda: guest.stay(flow(9014, "to-guest")).receiver.received > 0


def link(guest: MovingGuest) -> tuple[bool, int]:
    """Carrier and speed, as the guest's kernel tells them."""
    return guest.machine.link(guest.ends().guest_end.interface)


def wait_for_link(guest: MovingGuest, wanted: tuple[bool, int]) -> None:
    """Wait until the guest's kernel tells *wanted*, carrier and speed; no driver is restarted."""
    wait_for(
        f"a link of {wanted}", lambda: link(guest), within=NOTICED_S, every_s=0.2,
        until=wanted.__eq__,
    )  # fmt: skip


@pytest.mark.about("link of the port")
@pytest.mark.needs("ixgbevf")  # igbvf was seen to notice nothing for half a minute
def test_the_ports_link_is_what_the_driver_says(
    guest: MovingGuest, arrives: Callable[[], bool]
) -> None:
    """VFLINKS is read when the port rings; nothing arrives over a link that is down."""
    before = link(guest)
    assert before[0]
    guest.port_side.set_up(False)
    wait_for_link(guest, NO_LINK)
    assert not arrives()
    guest.port_side.set_up(True)
    wait_for_link(guest, before)
    assert arrives()


@pytest.mark.about("speed of the cable")
@pytest.mark.needs("twin")  # a real cable has one speed
def test_the_cables_speed_is_what_the_driver_says(
    guest: MovingGuest, arrives: Callable[[], bool]
) -> None:
    """A cable of another speed has the port interrupt the VF, and VFLINKS has the new speed."""
    before = link(guest)
    guest.twin.control.ask("set_link", up=True, mbit=1000)
    wait_for_link(guest, (True, 1000))
    assert arrives()
    guest.twin.control.ask("set_link", up=True, mbit=before[1])
    wait_for_link(guest, before)


@pytest.fixture
def port_speaks(guest: MovingGuest) -> Iterator[Callable[[Api], None]]:
    """Yield a function that sets the newest API of the twin's port; the API is put back."""
    before = guest.twin.control.ask("status")["administered"]["api"]
    yield lambda newest: guest.twin.control.ask("set_api", newest=newest)
    guest.twin.control.ask("set_api", newest=before)


@pytest.mark.about("older mailbox APIs")
@pytest.mark.needs("twin", "ixgbevf")  # a port speaks what its driver speaks
@pytest.mark.parametrize("newest", [Api.V10, Api.V11, Api.V13], ids=lambda api: api.name)
def test_a_driver_speaks_what_an_older_port_knows(
    guest: MovingGuest,
    arrives: Callable[[], bool],
    port_speaks: Callable[[Api], None],
    newest: Api,
) -> None:
    """Ixgbevf asks for an older API until its port agrees.

    A VF below API 1.1 receives nothing from a port with a jumbo MTU.
    Ref: ixgbevf_negotiate_api; ixgbe_set_vf_lpe.
    """
    port_speaks(newest)
    guest.machine.restart(guest.ends().guest_end.interface)
    assert guest.twin.control.ask("status")["vf"]["api"] == newest
    assert arrives() == (newest >= Api.V11)


@pytest.mark.about("addresses and trust")
def test_an_address_that_the_administrator_gave_is_kept_unless_the_vf_is_trusted(
    guest: MovingGuest, arrives: Callable[[], bool]
) -> None:
    """The port refuses another address, the guest is told so, and frames arrive as before.

    A trusted VF gets the address that it asks for.
    Ref: ixgbe_set_vf_mac_addr; igb_set_vf_mac_filter.
    """
    interface = guest.ends().guest_end.interface
    assert not guest.machine.set_mac(interface, OTHER)
    assert arrives()
    guest.port_side.set_trust(True)
    guest.machine.restart(interface)
    assert guest.machine.set_mac(interface, OTHER)
    assert guest.port_side.settings.mac == OTHER
    assert guest.machine.set_mac(interface, guest.spec.mac)
    assert arrives()


@pytest.mark.about("VLAN of the port")
def test_a_vlan_of_the_ports_takes_the_vf_out_of_the_others_reach(
    guest: MovingGuest, arrives: Callable[[], bool]
) -> None:
    """The port tags the VF's frames on the wire; the guest sees no tag, and is told nothing."""
    assert arrives()
    guest.port_side.set_vlan(7)
    assert not arrives()
    guest.port_side.set_vlan(0)
    assert arrives()


@pytest.mark.about("spoof check")
@pytest.mark.needs("vf-spoof-check")
def test_what_a_vf_sends_with_anothers_address_arrives_only_unchecked(
    guest: MovingGuest, flow: MakeFlow
) -> None:
    """The port drops such frames and tells nobody; the guest counts them as sent.

    Ref: ixgbe_ndo_set_vf_spoofchk.
    """

    def sent(mac: str) -> bool:
        end = replace(guest.ends().guest_end, mac=mac)
        records = guest.stay(flow(9014, "from-guest"), guest_end=end)
        assert records.sender.sent > 0
        return records.receiver.received > 0

    assert sent(guest.spec.mac)
    assert not sent(OTHER)
    guest.port_side.set_spoof_check(False)
    assert sent(OTHER)
    guest.port_side.set_spoof_check(True)
    assert not sent(OTHER)


@pytest.mark.about("link state of a VF")
@pytest.mark.needs("vf-link-state")
def test_a_vf_that_is_disabled_has_no_carrier(
    guest: MovingGuest, arrives: Callable[[], bool]
) -> None:
    """The port tells the VF's driver, and the driver its guest; cable and other VFs go on.

    Frames from the wire are no part of this: on a jumbo port a disabled VF receives again as soon
    as its driver says its frame size anew, because ixgbe_set_vf_lpe sets VFRE whatever the state.
    Ref: ixgbe_ndo_set_vf_link_state; ixgbevf_up_complete, link_state.
    """
    before = link(guest)
    guest.port_side.set_link_state(LinkState.DISABLE)
    wait_for(
        "no carrier", lambda: link(guest), within=NOTICED_S, every_s=0.2, until=lambda it: not it[0]
    )
    guest.port_side.set_link_state(LinkState.AUTO)
    wait_for_link(guest, before)
    assert arrives()


@pytest.mark.about("resets of the port")
def test_a_port_that_is_reset_is_served_again_by_the_drivers_own_doing(
    guest: MovingGuest, flow: MakeFlow
) -> None:
    """The port's reset takes the VF's right to send; the VF's driver has to notice and begin anew.

    Until then a VF of a jumbo port receives nothing, and neither driver says so.
    """
    ends = guest.ends()
    with start(flow(9014), ends.peer_end, ends.guest_end) as running:
        running.wait_until_served(5)
        guest.port_side.reset()
        let_pass(0.5)  # frames that arrived before the reset are recorded by then
        running.wait_until_served(NOTICED_S)
        records = running.stop()
    assert records.receiver.received < records.sender.sent


@pytest.mark.nightly
@pytest.mark.about("function resets of the port")
@pytest.mark.needs("sriov", "ixgbevf")  # igbvf was seen to give up: "PF still resetting"
def test_a_port_that_the_kernel_resets_serves_again_once_its_driver_begins_anew(
    guest: MovingGuest, flow: MakeFlow
) -> None:
    """A function reset takes the port's filters and its VFs' queues, and its driver is not told.

    Ref: Linux, drivers/pci/pci.c, pci_reset_function(); ixgbe has no ``reset_prepare``.
    """
    port, ends = guest.function_of_port.port, guest.ends()
    with start(flow(9014), ends.peer_end, ends.guest_end) as running:
        running.wait_until_served(5)
        port.reset_by_sysfs()
        let_pass(0.5)
        arrived = running.arrived
        let_pass(1)
        assert running.arrived == arrived, "frames arrived after the function reset of the port"
        guest.port_side.reset()
        running.wait_until_served(NOTICED_S)
