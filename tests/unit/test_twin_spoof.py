"""A VF may send from its own addresses, and in its own VLANs.

What is right is what Linux's driver of the port sets up, 6.12, drivers/net/ethernet/intel/ixgbe,
ixgbe_sriov.c; the names of its functions stand at the tests.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from vf_driver import Guest, guest_with_vf
from vf_rings import MAC, PEER, frame_of

from harness.twin.control import Control
from harness.uapi.ixgbe_vf import (
    CLEAR_TO_SEND,
    POPTS_IXSM,
    POPTS_TXSM,
    SUCCESS,
    TUCMD_IPV4,
    TUCMD_L4T_TCP,
    Message,
    Register,
    TxCommand,
    VfControl,
)

OTHER = bytes.fromhex("020000000003")
PLAIN = frame_of(60, head=PEER + MAC)
SPOOFED = frame_of(60, head=PEER + OTHER)
TAGGED = TxCommand.RS | TxCommand.VLE


@pytest.fixture
def guest(tmp_path: Path) -> Iterator[Guest]:
    with guest_with_vf(tmp_path / "dma.log") as guest:
        guest.start()
        yield guest


def tagged(tag: int, frame: bytes = PLAIN) -> bytes:
    return frame[:12] + b"\x81\0" + tag.to_bytes(2, "big") + frame[12:]


def asks(guest: Guest, message: Message, *words: int, info: int = 0) -> bool:
    """Say whether the port grants a request."""
    first = message | info << 16
    return guest.ask(first, *words) == first | SUCCESS | CLEAR_TO_SEND


def further_address(guest: Guest, mac: bytes = OTHER, *, index: int = 1) -> bool:
    words = (int.from_bytes(part, "little") for part in (mac[:4], mac[4:]))
    return asks(guest, Message.SET_MACVLAN, *words, info=index)


def leaves(guest: Guest, *parts: bytes, tag: int | None = None) -> bool:
    """Say whether a frame leaves with the descriptor's *tag*; else it counts as spoofed."""
    already, spoofed = len(guest.sent), guest.device.statistics.spoofed
    if tag is not None:
        guest.tx[0].put_context(vlan=tag)
    guest.tx[0].send(*parts, command=TxCommand.RS if tag is None else TAGGED)
    frame = b"".join(parts)
    left = guest.sent[already:]
    assert left in ([], [frame if tag is None else tagged(tag, frame)])
    assert guest.device.statistics.spoofed == spoofed + (not left)
    return bool(left)


# --- VLANs ----------------------------------------------------------------------------------


def test_a_tag_leaves_while_the_vf_has_a_filter_for_it(guest: Guest) -> None:
    """The port checks VLANs together with addresses (ixgbe_ndo_set_vf_spoofchk)."""
    assert not leaves(guest, PLAIN, tag=100)
    assert asks(guest, Message.SET_VLAN, 100, info=1)
    assert (leaves(guest, PLAIN, tag=100), leaves(guest, PLAIN, tag=101)) == (True, False)
    assert leaves(guest, PLAIN, tag=0xE000 | 100), "whatever its priority"
    assert asks(guest, Message.SET_VLAN, 100, info=0)
    assert not leaves(guest, PLAIN, tag=100)


@pytest.mark.parametrize("cut", [1, 11, 13, 14, 15, 16, 40])
def test_a_tag_that_the_guest_wrote_into_its_frame_is_held_against_it_too(
    guest: Guest, cut: int
) -> None:
    """A guest that turns tx-vlan-offload off would get out of its VLANs; buffers end anywhere."""
    frame = tagged(0x6000 | 100)
    assert not leaves(guest, frame[:cut], frame[cut:])
    asks(guest, Message.SET_VLAN, 100, info=1)
    assert leaves(guest, frame[:cut], frame[cut:])


@pytest.mark.parametrize("tag", [0, 0xE000])
def test_a_priority_tag_and_no_tag_are_no_vlan(guest: Guest, tag: int) -> None:
    """VLAN 0 is the VF's from its reset on, and cannot be removed (ixgbe_set_vf_vlan_msg)."""
    assert asks(guest, Message.SET_VLAN, 0, info=0)
    assert leaves(guest, PLAIN, tag=tag)
    assert leaves(guest, tagged(tag))
    assert leaves(guest, PLAIN)


def test_a_short_frame_with_the_type_of_a_tag_is_one_of_vlan_0(guest: Guest) -> None:
    """The VF pads such a frame with zeros, which make VLAN 0."""
    guest.tx[0].send(tagged(0)[:14])
    assert guest.sent == [tagged(0)[:14].ljust(60, b"\0")]


def test_each_segment_of_another_vlan_is_dropped_and_counted(guest: Guest) -> None:
    data = PLAIN[:12] + b"\x08\0" + bytes([0x45]) + bytes(300)
    kind = TUCMD_IPV4 | TUCMD_L4T_TCP
    guest.tx[0].put_context(network=20, transport=20, segment=100, kind=kind, vlan=100)
    guest.tx[0].send(data, command=TAGGED | TxCommand.TSE, options=POPTS_IXSM | POPTS_TXSM)
    assert (guest.sent, guest.device.statistics.spoofed) == ([], 3)
    assert guest.device.read(Register.VFGPTC) == 0


def test_a_reset_takes_the_vlans_away(guest: Guest) -> None:
    """A VF's reset clears its VLANs (ixgbe_vf_reset_event); ixgbevf_restore_vlan asks anew."""
    asks(guest, Message.SET_VLAN, 100, info=1)
    guest.start()
    assert not leaves(guest, PLAIN, tag=100)


def test_with_a_port_vlan_every_frame_is_in_it(guest: Guest) -> None:
    """VMVIR puts its tag in front of the guest's own, and outranks the descriptor's."""
    asks(guest, Message.SET_VLAN, 100, info=1)
    guest.device.port.set_vlan(9)
    guest.tx[0].put_context(vlan=100)
    guest.tx[0].send(PLAIN, command=TAGGED)
    guest.tx[0].send(tagged(200))
    guest.tx[0].send(PLAIN)
    assert guest.sent == [tagged(9), tagged(9, tagged(200)), tagged(9)]
    assert not asks(guest, Message.SET_VLAN, 9, info=0)
    guest.tx[0].send(SPOOFED)
    assert (len(guest.sent), guest.device.statistics.spoofed) == (3, 1)


def test_without_the_port_vlan_again_its_tag_is_another_vlans(guest: Guest) -> None:
    """ixgbe_disable_port_vlan gives VLAN 0 back; what the VF asked for itself is there still."""
    asks(guest, Message.SET_VLAN, 100, info=1)
    for vlan in (9, 10, 0):
        guest.device.port.set_vlan(vlan)
        assert guest.device.port.filters.vlans == {100, vlan}
    assert [leaves(guest, PLAIN, tag=tag) for tag in (9, 10, 100, 0)] == [False, False, True, True]


def test_there_is_room_for_so_many_vlans(guest: Guest) -> None:
    """VLAN 0 has one of IXGBE_VLVF_ENTRIES; a VF may ask again for a VLAN that it has."""
    assert all(asks(guest, Message.SET_VLAN, vlan, info=1) for vlan in range(1, 64))
    assert [asks(guest, Message.SET_VLAN, 64, info=add) for add in (1, 0)] == [False, False]
    assert (leaves(guest, PLAIN, tag=63), leaves(guest, PLAIN, tag=64)) == (True, False)
    assert asks(guest, Message.SET_VLAN, 63, info=1)
    assert asks(guest, Message.SET_VLAN, 63, info=0)
    assert asks(guest, Message.SET_VLAN, 64, info=1)
    assert (leaves(guest, PLAIN, tag=63), leaves(guest, PLAIN, tag=64)) == (False, True)


# --- whether there is a check ---------------------------------------------------------------


def checks(guest: Guest) -> tuple[bool, bool]:
    """Say whether the port holds back a false address, and a VLAN without a filter."""
    return not leaves(guest, SPOOFED), not leaves(guest, PLAIN, tag=100)


def test_an_administrator_turns_both_checks_off_and_on(guest: Guest) -> None:
    assert checks(guest) == (True, True)
    control = Control(guest.device, lambda: True)
    control.set_spoof_check(False)
    assert checks(guest) == (False, False)
    guest.start()
    assert checks(guest) == (False, False)
    control.set_spoof_check(True)
    assert checks(guest) == (True, True)


def test_a_further_address_turns_both_checks_off(guest: Guest) -> None:
    """ixgbe_set_vf_macvlan_msg does so "to avoid false positives", if it grants the address."""
    assert not further_address(guest, b"\1\0\0\0\0\3")
    assert further_address(guest, index=0)
    assert checks(guest) == (True, True)
    assert further_address(guest)
    assert checks(guest) == (False, False)


def reset(guest: Guest) -> None:
    """Reset the VF, and say so: it sends nothing before that."""
    guest.device.write(Register.VFCTRL, VfControl.RST)
    guest.ask(Message.RESET)


EVENTS: dict[str, tuple[Callable[[Guest], object], bool]] = {
    "the list is cleared": (lambda guest: further_address(guest, index=0), False),
    "reset": (lambda guest: guest.start(), False),
    "reset of the function": (reset, False),
    "trust": (lambda guest: guest.device.port.set_trust(True), False),
    "reset of the port": (lambda guest: guest.device.port.reset(), True),
    "an administrator": (lambda guest: guest.device.port.set_spoof_check(True), True),
}  # fmt: skip


@pytest.mark.parametrize("event", EVENTS)
def test_what_turns_the_checks_on_again(guest: Guest, event: str) -> None:
    """The port's start turns the checks on; a VF's reset does only where there is a port VLAN."""
    further_address(guest)
    happen, on = EVENTS[event]
    happen(guest)
    guest.set_master(True)
    for ring in guest.tx:
        ring.configure()
    assert guest.device.port.checks_spoofing == on
    further_there = OTHER in guest.device.port.filters.macvlans
    expected = (on and not further_there, on)
    guest.device.port.set_mac(MAC)
    assert checks(guest) == expected


def test_a_reset_turns_the_checks_on_where_there_is_a_port_vlan(guest: Guest) -> None:
    """ixgbe_vf_reset_event leaves the checks off that an administrator turned off."""
    for wanted in (True, False):
        guest.device.port.set_vlan(9)
        guest.device.port.set_spoof_check(wanted)
        further_address(guest)
        assert not guest.device.port.checks_spoofing
        guest.start()
        assert guest.device.port.checks_spoofing == wanted


def test_with_the_checks_on_again_further_addresses_are_the_vfs_own(guest: Guest) -> None:
    """The port checks against all filters of the VF's pool, the further addresses included."""
    further_address(guest)
    guest.device.port.set_spoof_check(True)
    third = frame_of(60, head=PEER + bytes.fromhex("020000000004"))
    assert [leaves(guest, frame) for frame in (PLAIN, SPOOFED, third)] == [True, True, False]


def test_a_vf_without_an_address_sends_nothing(guest: Guest) -> None:
    """A filter of zeros lets no frame in or out."""
    guest.device.port.set_mac(bytes(6))
    assert not leaves(guest, PLAIN)
    assert not leaves(guest, frame_of(60, head=PEER + bytes(6)))
