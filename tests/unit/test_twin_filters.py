"""Which frames reach the VF, by what its driver asked the port for and what the port granted.

What is granted is what Linux's driver of the port grants, v6.18, drivers/net/ethernet/intel/ixgbe,
ixgbe_sriov.c; the names of its functions stand at the tests.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from vf_driver import Guest, guest_with_vf
from vf_rings import MAC, PEER, frame_of

from harness.uapi.ixgbe_vf import CLEAR_TO_SEND, FAILURE, SUCCESS, Api, Message, Register, Xcast

YES, NO = SUCCESS | CLEAR_TO_SEND, FAILURE | CLEAR_TO_SEND
OTHER, THIRD = bytes.fromhex("020000000003"), bytes.fromhex("020000000004")
NOBODY, BROADCAST = bytes(6), b"\xff" * 6
MDNS, ALL_NODES = bytes.fromhex("01005e0000fb"), bytes.fromhex("333300000001")
SOLICITED = bytes.fromhex("3333ff123456")
GROUPS = {MDNS: 0xFB0, ALL_NODES: 0x010, SOLICITED: 0x563, BROADCAST[:5] + b"\x0f": 0x0FF}
"""And the place of each in the table: ixgbevf_mta_vector, bits 47 to 36 of the address."""


@pytest.fixture
def guest(tmp_path: Path) -> Iterator[Guest]:
    with guest_with_vf(tmp_path / "dma.log") as guest:
        guest.start()
        yield guest


def reaches(guest: Guest, address: bytes, tag: int | None = None) -> bool:
    """Whether a frame to *address* is the VF's; *tag* is that of its VLAN."""
    filtered = guest.device.statistics.filtered
    guest.hear(frame_of(60, head=address + PEER + (b"" if tag is None else tagged(tag))))
    arrived = len(guest.rx[0].took())
    assert arrived + guest.device.statistics.filtered == filtered + 1
    return bool(arrived)


def tagged(tag: int) -> bytes:
    return b"\x81\x00" + tag.to_bytes(2, "big")


def said(guest: Guest, message: int, *words: int, info: int = 0) -> bool:
    """Whether the port says yes; its answer is to that message, and lets the VF go on."""
    answer = guest.ask(message | info << 16, *words)
    assert answer in (message | info << 16 | YES, message | info << 16 | NO)
    return bool(answer & SUCCESS)


def as_words(address: bytes) -> tuple[int, int]:
    """As ixgbevf_set_rar_vf puts it into a message."""
    return int.from_bytes(address[:4], "little"), int.from_bytes(address[4:], "little")


# --- addresses ------------------------------------------------------------------------------


def test_a_vf_hears_its_own_address_and_everybodys(guest: Guest) -> None:
    heard = [reaches(guest, each) for each in (MAC, BROADCAST, OTHER, NOBODY, *GROUPS)]
    assert heard == [True, True, *[False] * 6]


def test_a_vf_without_an_address_hears_broadcasts_alone(guest: Guest) -> None:
    """A VF that a reset took the address from has none, which is not the address of all zeros."""
    guest.device.port.vf_was_reset()
    guest.device.port.receives = True
    assert [reaches(guest, each) for each in (MAC, NOBODY, BROADCAST)] == [False, False, True]


def test_a_vf_that_was_reset_neither_hears_nor_sends_until_it_says_so(guest: Guest) -> None:
    """The chip clears VFRE and VFTE; ixgbe_vf_reset_msg sets them (82599 datasheet, PFVFRE)."""
    guest.device.port.vf_was_reset()
    assert not reaches(guest, BROADCAST)
    assert not guest.device.port.lets_out(MAC, None)
    guest.ask(Message.RESET)
    assert reaches(guest, BROADCAST)
    assert guest.device.port.transmits


@pytest.mark.parametrize(
    ("given", "trusted", "asked", "granted"),
    [
        (NOBODY, False, OTHER, True),
        (MAC, False, MAC, True),
        (MAC, False, OTHER, False),
        (MAC, True, OTHER, True),
        (NOBODY, True, NOBODY, False),
        (NOBODY, False, MDNS, False),
        (MAC, True, BROADCAST, False),
    ],
)
def test_an_address_is_granted_or_the_old_one_stays(
    guest: Guest, given: bytes, trusted: bool, asked: bytes, granted: bool
) -> None:
    """ixgbe_set_vf_mac_addr: valid, and no other than an administrator gave to who is untrusted."""
    guest.device.port.set_mac(given)
    guest.device.port.set_trust(trusted)
    guest.start()
    assert said(guest, Message.SET_MAC_ADDR, *as_words(asked)) == granted
    assert (reaches(guest, OTHER), reaches(guest, MAC)) == (
        (asked == OTHER, asked == MAC) if granted else (False, True)
    )


def test_the_address_of_a_trusted_vf_takes_the_place_of_the_one_given(guest: Guest) -> None:
    """The driver has one record, vf_mac_addresses: a reset is answered with it.

    And without trust any other is refused again, the one that was given first included.
    """
    guest.device.port.set_mac(MAC)
    guest.device.port.set_trust(True)
    guest.start()
    said(guest, Message.SET_MAC_ADDR, *as_words(OTHER))
    guest.device.port.set_trust(False)
    assert guest.ask(Message.RESET) == Message.RESET | SUCCESS
    words = [guest.device.read(Register.VFMBMEM + 4 * at) for at in (1, 2)]
    assert words == [*as_words(OTHER)]
    assert not said(guest, Message.SET_MAC_ADDR, *as_words(MAC))
    assert reaches(guest, OTHER)


@pytest.mark.parametrize("given", [OTHER, NOBODY])
def test_an_administrators_address_is_in_the_filter_at_once(guest: Guest, given: bytes) -> None:
    """ixgbe_ndo_set_vf_mac; the driver is not told, which is how a filter is moved away."""
    guest.device.port.set_mac(given)
    assert guest.reply() is None
    assert (reaches(guest, MAC), reaches(guest, OTHER)) == (False, given == OTHER)
    assert reaches(guest, BROADCAST)


# --- further addresses ----------------------------------------------------------------------


def test_further_addresses_are_a_list_that_begins_with_index_1(guest: Guest) -> None:
    """ixgbe_set_vf_macvlan_msg; the VF's own address is none of them."""
    for index, address in ((1, OTHER), (2, THIRD)):
        assert said(guest, Message.SET_MACVLAN, *as_words(address), info=index)
    assert [reaches(guest, each) for each in (MAC, OTHER, THIRD)] == [True, True, True]
    said(guest, Message.SET_MACVLAN, *as_words(THIRD), info=1)
    assert [reaches(guest, each) for each in (MAC, OTHER, THIRD)] == [True, False, True]
    assert said(guest, Message.SET_MACVLAN, info=0)
    assert [reaches(guest, each) for each in (MAC, OTHER, THIRD)] == [True, False, False]


@pytest.mark.parametrize("asked", [NOBODY, MDNS])
@pytest.mark.parametrize("index", [1, 2])
def test_a_further_address_that_is_none_leaves_the_list(
    guest: Guest, asked: bytes, index: int
) -> None:
    said(guest, Message.SET_MACVLAN, *as_words(OTHER), info=1)
    assert not said(guest, Message.SET_MACVLAN, *as_words(asked), info=index)
    assert (reaches(guest, asked), reaches(guest, OTHER)) == (False, True)


@pytest.mark.parametrize("trusted", [False, True])
def test_with_an_address_that_was_given_further_ones_need_trust(
    guest: Guest, trusted: bool
) -> None:
    """To clear the list is no request for one, and is always granted."""
    guest.device.port.set_mac(MAC)
    guest.device.port.set_trust(trusted)
    guest.start()
    assert said(guest, Message.SET_MACVLAN, *as_words(OTHER), info=1) == trusted
    assert reaches(guest, OTHER) == trusted
    assert said(guest, Message.SET_MACVLAN, info=0)


def test_with_further_addresses_the_vf_may_send_from_them(guest: Guest) -> None:
    """ixgbe_set_vf_macvlan_msg turns the spoof check off, "to avoid false positives"."""
    said(guest, Message.SET_MACVLAN, *as_words(OTHER), info=1)
    frame = frame_of(60, head=PEER + OTHER)
    guest.tx[0].send(frame)
    assert guest.sent == [frame]


# --- VLANs ----------------------------------------------------------------------------------


def test_frames_of_a_vlan_arrive_while_it_is_asked_for(guest: Guest) -> None:
    """Whatever their priority; an untagged frame and one of VLAN 0 are always let in."""
    tags = [None, 0, 0x7000, 7, 0xE007, 8]
    always = [True, True, True]
    assert [reaches(guest, MAC, tag) for tag in tags] == [*always, False, False, False]
    assert said(guest, Message.SET_VLAN, 0xF007, info=1)
    assert [reaches(guest, MAC, tag) for tag in tags] == [*always, True, True, False]
    assert said(guest, Message.SET_VLAN, 7, info=0)
    assert [reaches(guest, MAC, tag) for tag in tags] == [*always, False, False, False]


def test_a_vlan_does_not_make_other_addresses_the_vfs(guest: Guest) -> None:
    said(guest, Message.SET_VLAN, 7, info=1)
    heard = [reaches(guest, each, 7) for each in (MAC, OTHER, BROADCAST, MDNS)]
    assert heard == [True, False, True, False]
    assert not reaches(guest, BROADCAST, 8)


def test_vlan_0_cannot_be_removed(guest: Guest) -> None:
    """ixgbe_set_vf_vlan_msg says yes and does nothing: it holds what has no tag."""
    assert said(guest, Message.SET_VLAN, 0, info=0)
    assert reaches(guest, MAC, 0)


def test_an_administrators_vlan_is_the_only_one(guest: Guest) -> None:
    """ixgbe_ndo_set_vf_vlan: the VF has no say in it, and no frame without a tag is its own."""
    guest.device.port.set_vlan(9)
    guest.start()
    assert [said(guest, Message.SET_VLAN, 7, info=add) for add in (0, 1)] == [False, False]
    assert [reaches(guest, MAC, tag) for tag in (9, 7, 0, None)] == [True, False, False, False]
    guest.device.port.set_vlan(0)
    assert [reaches(guest, MAC, tag) for tag in (9, 7, 0, None)] == [False, False, True, True]
    assert said(guest, Message.SET_VLAN, 7, info=1)


# --- groups ---------------------------------------------------------------------------------


@pytest.mark.parametrize(("address", "place"), GROUPS.items())
def test_a_group_is_heard_by_its_place_in_the_table(
    guest: Guest, address: bytes, place: int
) -> None:
    """Others that share the place come with it; a driver drops them, as the table cannot."""
    said(guest, Message.SET_MULTICAST, place, info=1)
    assert reaches(guest, address)
    assert reaches(guest, b"\x03\1\2\3" + bytes([address[4] ^ 0x0F, address[5]]))
    assert not reaches(guest, address[:4] + bytes([address[4] ^ 0x10, address[5]]))
    guest.start()
    said(guest, Message.SET_MULTICAST, place ^ 1, info=1)
    assert not reaches(guest, address)


@pytest.mark.parametrize("count", range(5))
def test_a_list_has_as_many_places_as_it_says_two_to_a_word(guest: Guest, count: int) -> None:
    """ixgbe_set_vf_multicasts reads it as 16-bit numbers, the low half of a word first."""
    first, second, third, fourth = GROUPS.values()
    words = [second << 16 | first, fourth << 16 | third]
    said(guest, Message.SET_MULTICAST, *words, info=count)
    assert [reaches(guest, each) for each in GROUPS] == [at < count for at in range(4)]


def test_the_table_keeps_a_list_until_a_reset(guest: Guest) -> None:
    """ixgbe_set_vf_multicasts only adds to it; ixgbe_set_rx_mode writes it anew."""
    said(guest, Message.SET_MULTICAST, GROUPS[MDNS], info=1)
    said(guest, Message.SET_MULTICAST, GROUPS[SOLICITED], info=1)
    assert (reaches(guest, MDNS), reaches(guest, SOLICITED)) == (True, True)
    guest.ask(Message.RESET)
    said(guest, Message.SET_MULTICAST, GROUPS[SOLICITED], info=1)
    assert (reaches(guest, MDNS), reaches(guest, SOLICITED)) == (False, True)


def test_a_list_is_as_long_as_a_message(guest: Guest) -> None:
    """IXGBE_MAX_VF_MC_ENTRIES is 30, in the fifteen words behind the first."""
    guest.start(descriptors=64)
    said(guest, Message.SET_MULTICAST, *range(0x00010000, 0x001E0000, 0x00020002), info=40)
    groups = [b"\1\0\0\0" + (place << 4).to_bytes(2, "little") for place in range(32)]
    assert [reaches(guest, each) for each in groups] == [place < 30 for place in range(32)]


# --- modes ----------------------------------------------------------------------------------


def test_a_vf_that_wants_no_groups_has_a_list_that_does_not_count(guest: Guest) -> None:
    """ROMPE: mode NONE clears it, another mode sets it, a list sets it whatever the mode is.

    A mode that is the same as before changes nothing.
    """
    said(guest, Message.SET_MULTICAST, GROUPS[MDNS], info=1)
    heard = [reaches(guest, MDNS)]
    for mode in (Xcast.NONE, Xcast.MULTI, Xcast.NONE):
        said(guest, Message.UPDATE_XCAST_MODE, mode)
        heard.append(reaches(guest, MDNS))
    said(guest, Message.SET_MULTICAST, GROUPS[MDNS], info=1)
    assert [*heard, reaches(guest, MDNS)] == [True, True, True, False, True]


@pytest.mark.parametrize(
    ("trusted", "version", "mode", "granted"),
    [
        (False, Api.V13, Xcast.NONE, Xcast.NONE),
        (False, Api.V13, Xcast.MULTI, Xcast.MULTI),
        (False, Api.V13, Xcast.ALLMULTI, Xcast.MULTI),
        (False, Api.V13, Xcast.PROMISC, Xcast.MULTI),
        (False, Api.V12, Xcast.ALLMULTI, Xcast.MULTI),
        (False, Api.V12, Xcast.PROMISC, None),
        (True, Api.V12, Xcast.ALLMULTI, Xcast.ALLMULTI),
        (True, Api.V12, Xcast.PROMISC, None),
        (True, Api.V17, Xcast.ALLMULTI, Xcast.ALLMULTI),
        (True, Api.V17, Xcast.PROMISC, None),
        (True, Api.V17, 4, None),
    ],
)
def test_all_groups_need_trust_and_a_promiscuous_vf_there_is_not(
    guest: Guest, trusted: bool, version: Api, mode: int, granted: Xcast | None
) -> None:
    """ixgbe_update_vf_xcast_mode: "promisc introduced in 1.3 version", and never on an 82599."""
    guest.device.port.set_trust(trusted)
    guest.start()
    guest.ask(Message.API_NEGOTIATE, version)
    assert said(guest, Message.UPDATE_XCAST_MODE, mode) == (granted is not None)
    if granted is not None:
        assert guest.device.read(Register.VFMBMEM + 4) == granted
    heard = [reaches(guest, each) for each in (MDNS, OTHER, MAC, BROADCAST)]
    assert heard == [granted == Xcast.ALLMULTI, False, True, True]


def test_a_mode_that_is_refused_leaves_the_old_one(guest: Guest) -> None:
    guest.device.port.set_trust(True)
    guest.start()
    assert said(guest, Message.UPDATE_XCAST_MODE, Xcast.ALLMULTI)
    assert not said(guest, Message.UPDATE_XCAST_MODE, Xcast.PROMISC)
    assert reaches(guest, MDNS)
    assert said(guest, Message.UPDATE_XCAST_MODE, Xcast.NONE)
    assert (reaches(guest, MDNS), reaches(guest, BROADCAST)) == (False, True)
