"""Two VFs of one port at work at once, in one guest: frames for the one are not the other's."""

from __future__ import annotations

from dataclasses import replace

import pytest

from harness.host.port_side import put_back
from harness.host.software_vf import misbehaving
from harness.run.lab import Lab
from harness.run.moving import MovingGuest
from harness.run.second_vf import take_second
from harness.run.verbs import MakeFlow
from harness.topology import MacAddress
from harness.traffic.flow import Endpoint, Flow
from harness.traffic.running import start
from harness.waiting import let_pass

pytestmark = [
    pytest.mark.about("two VFs at once"),
    pytest.mark.needs("two-hosts", "two-vfs", "peer"),
]

SECOND_MAC, SECOND_ADDRESS = MacAddress("52:54:00:12:34:57"), "198.18.0.200"


@pytest.fixture(scope="module")
def ends(two_vf_guest: MovingGuest) -> tuple[Endpoint, Endpoint]:
    """The guest's ends of flows through its own VF, and through a second VF of the same port."""
    second = take_second(two_vf_guest, SECOND_MAC, SECOND_ADDRESS)
    return two_vf_guest.ends().guest_end, second


def test_two_vfs_of_a_port_are_served_at_once(
    two_vf_guest: MovingGuest, ends: tuple[Endpoint, Endpoint], flow: MakeFlow
) -> None:
    """All frames of both flows arrive, each at the VF whose address it has."""
    peer = two_vf_guest.ends().peer_end
    with (
        start(replace(flow(64, "to-guest"), name="first"), peer, ends[0]) as first,
        start(replace(flow(64, "to-guest"), name="second"), peer, ends[1]) as second,
    ):
        let_pass(1)
        both = first.stop(), second.stop()
    assert [each.receiver.received for each in both] == [each.sender.sent for each in both]
    assert all(each.sender.sent > 0 for each in both)


@pytest.mark.parametrize("meant", [0, 1], ids=["own", "second"])
def test_frames_for_one_vf_never_arrive_at_the_other(
    two_vf_guest: MovingGuest,
    ends: tuple[Endpoint, Endpoint],
    flow: MakeFlow,
    meant: int,
) -> None:
    """Two guests of one port are told apart by nothing but this filter."""
    here, there = ends[meant], ends[1 - meant]
    assert two_vf_guest.stay(flow(64, "to-guest"), guest_end=here).receiver.received > 0
    assert astray(two_vf_guest, flow(64, "to-guest"), here, there) == 0


@pytest.mark.about("a VLAN of two VFs")
def test_two_vfs_meet_where_the_port_has_both_in_one_vlan(
    two_vf_guest: MovingGuest, ends: tuple[Endpoint, Endpoint], flow: MakeFlow
) -> None:
    """The port tags what a VF sends, and takes the tag out before the other VF receives it."""
    assert two_vf_guest.instance.vf is not None
    first, second = two_vf_guest.instance.vf.port_side, two_vf_guest.spare.port_side

    def meet() -> bool:
        return arrived(two_vf_guest, flow(64, "to-guest"), *ends) > 0

    with put_back(first), put_back(second):
        assert meet()
        first.set_vlan(7)
        assert not meet()
        second.set_vlan(7)
        assert meet()
        first.set_vlan(8)
        assert not meet()


@pytest.mark.nightly
@pytest.mark.faults
@pytest.mark.about("a switch that leaks")
@pytest.mark.needs("sriov", "software-vf")
def test_frames_that_a_switch_leaks_to_another_vf_are_found_there(
    lab: Lab, two_vf_guest: MovingGuest, ends: tuple[Endpoint, Endpoint], flow: MakeFlow
) -> None:
    """Looking for frames at the other VF would show nothing if that VF could not show them."""
    with misbehaving(lab.device(two_vf_guest.spare), hears_all=True):
        assert astray(two_vf_guest, flow(64, "to-guest"), *ends) > 0


def arrived(guest: MovingGuest, flow: Flow, sender: Endpoint, receiver: Endpoint) -> int:
    """Send frames from one VF of the guest to the other, and count those that arrive."""
    records = guest.stay(flow, peer_end=sender, guest_end=receiver)
    assert records.sender.sent > 0
    return records.receiver.received


def astray(guest: MovingGuest, flow: Flow, here: Endpoint, there: Endpoint) -> int:
    """Send frames to *here*, and count how many of them are received at *there*."""
    records = guest.stay(flow, guest_end=replace(here, interface=there.interface))
    assert records.sender.sent > 0
    return records.receiver.received
