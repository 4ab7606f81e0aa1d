"""Two VFs of one port at work at once, in one guest: frames for the one are not the other's."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest

from harness.run.moving import MovingGuest
from harness.run.second_vf import take_second
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
    two_vf_guest: MovingGuest, ends: tuple[Endpoint, Endpoint], flow: Callable[..., Flow]
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
    flow: Callable[..., Flow],
    meant: int,
) -> None:
    """Two guests of one port are told apart by nothing but this filter."""
    here, there = ends[meant], ends[1 - meant]
    assert two_vf_guest.stay(flow(64, "to-guest"), guest_end=here).receiver.received > 0
    astray = replace(here, interface=there.interface)  # the same frames, looked for at the other
    records = two_vf_guest.stay(flow(64, "to-guest"), guest_end=astray)
    assert records.sender.sent > 0
    assert records.receiver.received == 0
