"""The 82599's jumbo rule, by the frames that arrive and not by what the driver says."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from harness.devices import I82599
from harness.host.port_side import put_back
from harness.run.lab import Lab
from harness.run.moving import MovingGuest
from harness.run.verbs import MakeFlow

pytestmark = [pytest.mark.jumbo, pytest.mark.needs("two-hosts", "jumbo-rule", "peer", "jumbo")]

HEADER = 14
LARGEST = I82599.vf_max_mtu.value


@pytest.fixture(scope="module", params=[1500, 9000, LARGEST])
def port_mtu(request: pytest.FixtureRequest, staying_guest: MovingGuest) -> Iterator[int]:
    """The port of the guest's VF with that MTU, for all tests that want it."""
    interface = staying_guest.ends().guest_end.interface
    with put_back(staying_guest.port_side) as side:
        side.set_mtu(request.param)
        yield request.param
    staying_guest.machine.restart(interface)
    staying_guest.machine.set_mtu(interface, staying_guest.spec.mtu)


@pytest.fixture
def guest(staying_guest: MovingGuest, port_mtu: int) -> MovingGuest:
    """A guest with an MTU of 1500, whose driver has begun anew on that port.

    Until a driver has begun anew the port refuses all that it says.
    """
    del port_mtu
    interface = staying_guest.ends().guest_end.interface
    staying_guest.machine.restart(interface)
    assert staying_guest.machine.set_mtu(interface, 1500)
    return staying_guest


@pytest.mark.parametrize("vf_mtu", [1500, 9000, LARGEST, LARGEST + 1])
def test_frames_arrive_where_port_and_vf_agree(
    lab: Lab, guest: MovingGuest, flow: MakeFlow, port_mtu: int, vf_mtu: int
) -> None:
    """The real driver asks the port for each MTU; what is refused must not arrive either.

    Ref: ixgbe_set_vf_lpe.  A port that refuses a frame size also turns the VF's receiver off: the
    VF is deaf from then on, with the MTU that it had.
    """
    profile = lab.topology.vf_profile
    accepted = guest.machine.set_mtu(guest.ends().guest_end.interface, vf_mtu)
    assert accepted == profile.vf_receives(port_mtu=port_mtu, vf_mtu=vf_mtu)
    frame_bytes = min(vf_mtu if accepted else 1500, lab.topology.wire_mtu) + HEADER
    records = guest.stay(flow(frame_bytes, "to-guest"))
    assert records.sender.unsent == 0, "the wire does not carry it: what the VF does is not known"
    deaf = not accepted and vf_mtu <= LARGEST  # a larger one the driver refuses without asking
    assert (records.receiver.received == 0) == deaf
