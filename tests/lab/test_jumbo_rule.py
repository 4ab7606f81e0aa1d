"""The 82599's jumbo rule, by the frames that arrive and not by what the driver says."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest

from harness.devices import I82599
from harness.run.moving import MovingGuest
from harness.traffic.flow import Flow

pytestmark = [pytest.mark.jumbo, pytest.mark.needs("twin", "ixgbevf", "peer", "jumbo")]

HEADER = 14
LARGEST = I82599.vf_max_mtu.value


@pytest.fixture
def guest_on(staying_guest: MovingGuest) -> Iterator[Callable[[int], MovingGuest]]:
    """A guest with an MTU of 1500, whose driver has begun anew on a port with the given one."""
    interface = staying_guest.ends().guest_end.interface

    def on(port_mtu: int) -> MovingGuest:
        staying_guest.twin.set_port_mtu(port_mtu)
        staying_guest.machine.restart(interface)  # until then the port refuses every message
        assert staying_guest.machine.set_mtu(interface, 1500)
        return staying_guest

    yield on
    on(staying_guest.spec.mtu)
    staying_guest.machine.set_mtu(interface, staying_guest.spec.mtu)


@pytest.mark.parametrize("vf_mtu", [1500, 9000, LARGEST, LARGEST + 1])
@pytest.mark.parametrize("port_mtu", [1500, 9000, LARGEST])
def test_frames_arrive_where_port_and_vf_agree(
    guest_on: Callable[[int], MovingGuest], flow: Callable[..., Flow], port_mtu: int, vf_mtu: int
) -> None:
    """The real driver asks the port for each MTU; what is refused must not arrive either.

    Ref: ixgbe_set_vf_lpe.  A port that refuses a frame size also turns the VF's receiver off: the
    VF is deaf from then on, with the MTU that it had.
    """
    guest = guest_on(port_mtu)
    accepted = guest.machine.set_mtu(guest.ends().guest_end.interface, vf_mtu)
    assert accepted == I82599.vf_receives(port_mtu=port_mtu, vf_mtu=vf_mtu)
    frame_bytes = (vf_mtu if accepted else 1500) + HEADER
    arrived = guest.stay(flow(frame_bytes, "to-guest")).receiver.received
    deaf = not accepted and vf_mtu <= LARGEST  # a larger one the driver refuses without asking
    assert (arrived == 0) == deaf


def test_a_port_that_is_reset_is_served_again_by_the_drivers_own_doing(
    staying_guest: MovingGuest, flow: Callable[..., Flow]
) -> None:
    """The VF is no more clear to send; its driver has to notice, reset it, and say its frame size.

    Until then a VF of a jumbo port receives nothing, and neither side says so.
    """
    assert staying_guest.stay(flow(9014, "to-guest")).receiver.received > 0
    staying_guest.twin.control.ask("reset_port")
    assert staying_guest.stay(flow(9014, "to-guest")).receiver.received == 0
    staying_guest.twin.wait_until_clear_to_send()
    assert staying_guest.stay(flow(9014, "to-guest"), seconds=3).receiver.received > 0
