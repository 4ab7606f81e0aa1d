"""A VF receives where the 82599 can mix its frame size with the port's: the jumbo rule.

Ref: Linux, ixgbe_sriov.c, ixgbe_set_vf_lpe and ixgbe_set_vf_rx_tx.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import pytest
from test_twin_port import NO, SPOKEN, YES, hears
from vf_driver import Guest, guest_with_vf

from harness.devices import I82599
from harness.uapi.ixgbe_vf import Api, Message


@pytest.fixture
def guest(tmp_path: Path) -> Iterator[Guest]:
    with guest_with_vf(tmp_path / "dma.log") as guest:
        guest.start()
        yield guest


@pytest.fixture
def jumbo_guest(tmp_path: Path) -> Iterator[Guest]:
    """The port has an MTU of 9000, the VF one of 1500."""
    with guest_with_vf(tmp_path / "dma.log", port_mtu=9000) as guest:
        guest.start()
        yield guest


JUMBO_RULE = [  # MTU of the port, of the VF; the VF receives with version 1.0, with a later one
    (1500, 68, True, True),
    (1500, 1500, True, True),
    (1500, 1501, False, False),
    (1500, 9000, False, False),
    (1501, 1500, False, True),
    (9000, 1500, False, True),
    (9000, 9000, False, True),
    (9000, 9710, False, True),
    (9710, 9710, False, True),
]


@pytest.mark.parametrize("version", SPOKEN)
@pytest.mark.parametrize(("port_mtu", "vf_mtu", "old", "new"), JUMBO_RULE)
def test_a_vf_receives_where_the_82599_can_mix_the_two_sizes(
    tmp_path: Path, port_mtu: int, vf_mtu: int, old: bool, new: bool, version: Api
) -> None:
    """ixgbe_set_vf_lpe: a size that is refused turns the VF's receiver off as well (VFRE)."""
    right = old if version == Api.V10 else new
    with guest_with_vf(tmp_path / "dma.log", port_mtu=port_mtu) as guest:
        guest.start()
        assert hears(guest)
        guest.ask(Message.API_NEGOTIATE, version)
        said = guest.ask(Message.SET_LPE, vf_mtu + 18)
        assert said == Message.SET_LPE | (YES if right else NO)
        assert (hears(guest), hears(guest, vf_mtu + 14)) == (right, right)


@pytest.mark.parametrize("frame_bytes", [0, 67, 9729, 0xFFFFFFFF])
@pytest.mark.parametrize("deaf", [False, True])
def test_a_size_that_there_is_not_leaves_the_receiver_alone(
    guest: Guest, frame_bytes: int, deaf: bool
) -> None:
    """ETH_MIN_MTU and IXGBE_MAX_JUMBO_FRAME_SIZE come before the rule."""
    guest.ask(Message.SET_LPE, 9018 if deaf else 1518)
    assert guest.ask(Message.SET_LPE, frame_bytes) == Message.SET_LPE | NO
    assert hears(guest) == (not deaf)


def test_a_size_that_is_right_turns_the_receiver_on_again(guest: Guest) -> None:
    guest.ask(Message.SET_LPE, 9018)
    assert not hears(guest)
    guest.ask(Message.SET_LPE, 1518)
    assert hears(guest)


EVENTS: dict[str, Callable[[Guest], object]] = {
    "reset message": lambda guest: guest.ask(Message.RESET),
    "state": lambda guest: guest.device.port.set_state(True),
    "port reset": lambda guest: guest.device.port.reset(),
}


@pytest.mark.parametrize("event", EVENTS)
@pytest.mark.parametrize("port_mtu", [1500, 9000])
def test_on_a_jumbo_port_a_vf_is_deaf_until_it_says_its_size_again(
    tmp_path: Path, port_mtu: int, event: str
) -> None:
    """ixgbe_set_vf_rx_tx clears VFRE each time; on a port without jumbo frames it sets it.

    A reset of the port takes the VF's broadcasts (VMOLR) and its rings away as well.
    """
    with guest_with_vf(tmp_path / "dma.log", port_mtu=port_mtu) as guest:
        guest.start()
        EVENTS[event](guest)
        assert hears(guest) == (port_mtu == 1500 and event != "port reset")
        guest.start()
        assert hears(guest)


def test_the_largest_frame_grows_with_what_a_vf_says_and_shrinks_with_the_port(
    jumbo_guest: Guest,
) -> None:
    """ixgbe_set_vf_lpe only raises MAXFRS; ixgbe_set_rx_buffer_len writes the port's own."""
    assert (hears(jumbo_guest, 9014), hears(jumbo_guest, 9015)) == (True, False)
    jumbo_guest.ask(Message.SET_LPE, 9728)
    jumbo_guest.ask(Message.SET_LPE, 1518)
    assert hears(jumbo_guest, 9724)
    jumbo_guest.device.port.set_mtu(1500)
    jumbo_guest.start()
    assert (hears(jumbo_guest, 1514), hears(jumbo_guest, 1515)) == (True, False)


@pytest.mark.parametrize(("port_mtu", "vf_mtu"), [(9000, 9000), (9000, 1500), (1500, 1000)])
def test_the_largest_frame_is_the_one_that_the_profile_names(
    tmp_path: Path, port_mtu: int, vf_mtu: int
) -> None:
    """Twins and profile are read side by side: a test of one must hold for the other."""
    with guest_with_vf(tmp_path / "dma.log", port_mtu=port_mtu) as guest:
        guest.start(mtu=vf_mtu)
        sizes = (vf_mtu + 14, vf_mtu + 15, port_mtu + 14, port_mtu + 15, 1514, 1515)
        takes = partial(I82599.vf_takes, vf_mtu=vf_mtu, port_mtu=port_mtu)
        assert [hears(guest, size) for size in sizes] == [takes(size) for size in sizes]


def test_the_largest_frame_is_a_standard_one_at_least(guest: Guest) -> None:
    """ixgbe_set_rx_buffer_len, "at least the size of a standard frame"."""
    guest.device.port.set_mtu(1000)
    guest.start()
    assert (hears(guest, 1514), hears(guest, 1515)) == (True, False)
