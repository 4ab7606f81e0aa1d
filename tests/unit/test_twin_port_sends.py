"""A twin's port pads, checks, tags and counts the frames that the VF sends."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from vf_driver import Guest, guest_with_vf
from vf_rings import MAC, PEER, frame_of

from harness.uapi.ixgbe_vf import Message, Register, TxCommand

FROM_VF = PEER + MAC
RS, VLE = TxCommand.RS, TxCommand.VLE


def frame(size: int) -> bytes:
    return frame_of(size, head=FROM_VF)


@pytest.fixture
def guest(tmp_path: Path) -> Iterator[Guest]:
    with guest_with_vf(tmp_path / "dma.log") as guest:
        guest.start(descriptors=8, queues=2)
        yield guest


@pytest.mark.parametrize("size", [14, 59])
def test_a_short_frame_is_filled_up_with_zeros(guest: Guest, size: int) -> None:
    """HLREG0.TXPADEN; Ethernet's least is 64 bytes with the checksum."""
    guest.tx[0].send(frame(size))
    assert guest.sent == [frame(size).ljust(60, b"\0")]


@pytest.mark.parametrize("size", [1, 13, 9725])
def test_a_frame_of_no_size_that_there_is_is_dropped_and_done_with(guest: Guest, size: int) -> None:
    """The driver gets its buffer back, and the next frame is sent."""
    guest.tx[0].send(FROM_VF[:size].ljust(size, b"\1"))
    guest.tx[0].send(frame(60))
    assert (guest.sent, guest.tx[0].done()) == ([frame(60)], [0, 1])
    assert guest.device.statistics.malformed == 1


@pytest.mark.parametrize("cut", [6, 9, 14])
def test_a_frame_from_another_address_is_dropped_where_that_is_checked(
    guest: Guest, cut: int
) -> None:
    """ixgbe_ndo_set_vf_spoofchk; the address may lie in two buffers."""
    spoofed = PEER + b"\2\0\0\0\0\3" + frame(60)[12:]
    guest.tx[0].send(spoofed[:cut], spoofed[cut:])
    assert (guest.sent, guest.tx[0].done()) == ([], [1])
    assert guest.device.statistics.spoofed == 1
    guest.device.port.set_spoof_check(False)
    guest.tx[0].send(spoofed[:cut], spoofed[cut:])
    assert guest.sent == [spoofed]


def test_a_port_that_is_disabled_for_the_vf_sends_none_of_its_frames(guest: Guest) -> None:
    """ixgbe_ndo_set_vf_link_state: VFTE is cleared, whoever the frame is from."""
    guest.device.port.set_spoof_check(False)
    guest.device.port.set_state(False)
    guest.tx[0].send(frame(60))
    assert (guest.sent, guest.tx[0].done()) == ([], [0])


def test_a_frame_is_not_sent_over_a_cable_that_is_pulled(guest: Guest) -> None:
    """The ring stands still, and the port's driver resets the port (ixgbe_watchdog_flush_tx)."""
    guest.device.port.set_link(False, 10_000)
    guest.tx[0].send(frame(60))
    assert (guest.sent, guest.tx[0].done()) == ([], [])
    assert guest.device.port.clear_to_send
    guest.device.port.set_link(True, 10_000)
    assert (guest.sent, guest.device.port.clear_to_send) == ([], False)


def test_a_cable_that_is_pulled_from_an_idle_vf_costs_no_reset(guest: Guest) -> None:
    guest.device.port.set_link(False, 10_000)
    guest.device.port.set_link(True, 10_000)
    guest.tx[0].send(frame(60))
    assert guest.sent == [frame(60)]


def test_a_frame_that_the_wire_does_not_take_is_counted_as_that(guest: Guest) -> None:
    """VFGPTC is what went out; the driver is done with it all the same."""
    guest.takes = False
    guest.tx[0].send(frame(60))
    assert (guest.device.statistics.unsent, guest.tx[0].done()) == (1, [0])
    assert guest.device.read(Register.VFGPTC) == 0


def test_the_counters_tell_frames_and_bytes_as_they_left(guest: Guest) -> None:
    """With their padding, their tags and their checksums."""
    guest.ask(1 << 16 | Message.SET_VLAN, 7)
    guest.tx[0].put_context(vlan=7)
    guest.tx[0].put_frame(frame(100), command=RS | VLE)
    guest.tx[0].send(frame(20))
    counted = [Register.VFGPTC, Register.VFGOTC_LSB, Register.VFGOTC_MSB]
    assert [guest.device.read(each) for each in counted] == [2, 104 + 60 + 2 * 4, 0]


@pytest.mark.parametrize("size", [60, 9724])
def test_a_tag_is_put_in_where_the_driver_asks_for_it(guest: Guest, size: int) -> None:
    """From the context, with its priority; it makes the largest frame longer by itself."""
    guest.ask(1 << 16 | Message.SET_VLAN, 7)
    guest.tx[0].put_context(vlan=0x6007)
    guest.tx[0].send(frame(size), command=RS | VLE)
    guest.tx[0].send(frame(size))
    assert guest.sent == [FROM_VF + b"\x81\0\x60\7" + frame(size)[12:], frame(size)]


@pytest.mark.parametrize("command", [RS, RS | VLE])
def test_the_ports_own_vlan_outranks_the_drivers(guest: Guest, command: int) -> None:
    """IXGBE_VMVIR_VLANA_DEFAULT, "always use default VLAN": else a guest gets out of its VLAN."""
    guest.device.port.set_vlan(9)
    guest.tx[0].put_context(vlan=7)
    guest.tx[0].send(frame(60), command=command)
    assert guest.sent == [FROM_VF + b"\x81\0\0\x09" + frame(60)[12:]]
