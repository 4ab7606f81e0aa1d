"""The port that lends the VF has a link, and settings that an administrator makes.

What is right is what Linux's driver of the port says, v6.18, drivers/net/ethernet/intel/ixgbe,
ixgbe_sriov.c and ixgbe_mbx.h; the names of its functions stand at the tests.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from errno import ENOMEM
from pathlib import Path

import pytest
from vf_driver import Guest, guest_with_vf
from vf_rings import MAC, PEER, frame_of

from harness.uapi.ixgbe_vf import (
    CLEAR_TO_SEND,
    FAILURE,
    SUCCESS,
    Api,
    Mailbox,
    Message,
    QueueRegister,
    Register,
    VfControl,
    Xcast,
)

YES, NO = SUCCESS | CLEAR_TO_SEND, FAILURE | CLEAR_TO_SEND
SPOKEN = [Api.V10, Api.V11, Api.V12, Api.V13, Api.V14, Api.V16, Api.V17]
FROM_VF = frame_of(60, head=PEER + MAC)


@pytest.fixture
def guest(tmp_path: Path) -> Iterator[Guest]:
    with guest_with_vf(tmp_path / "dma.log") as guest:
        guest.start()
        yield guest


def told(guest: Guest, *message: int) -> int:
    """The second word of the answer, which is a yes."""
    assert guest.ask(*message) == message[0] | YES
    return guest.device.read(Register.VFMBMEM + 4)


def hears(guest: Guest, size: int = 60) -> bool:
    """Whether a broadcast of that size arrives, which no address keeps away."""
    frame = frame_of(size, head=b"\xff" * 6 + PEER)
    guest.hear(frame)
    return [got.data for got in guest.rx[0].took()] == [frame]


# --- link -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("up", "mbit", "links"),
    [
        (True, 10_000, 0x70000000),
        (True, 1000, 0x60000000),
        (True, 100, 0x50000000),
        (False, 10_000, 0),
    ],
)
def test_the_cable_is_told_and_asks_for_no_reset(
    guest: Guest, up: bool, mbit: int, links: int
) -> None:
    """ixgbe_ping_all_vfs; the bits are IXGBE_LINKS_UP and IXGBE_LINKS_SPEED_82599."""
    guest.device.port.set_link(up, mbit)
    assert guest.device.read(Register.VFLINKS) == links
    assert guest.reply() == Message.PF_CONTROL | CLEAR_TO_SEND
    assert guest.ask(Message.SET_LPE, 1518) == Message.SET_LPE | YES


def test_nothing_comes_in_over_a_cable_that_is_pulled(guest: Guest) -> None:
    """Wherever the other end thinks the frame went; plugged in again, the VF hears at once."""
    frame = memoryview(frame_of(60))
    assert guest.device.port.accepts(frame)
    guest.device.port.set_link(False, 10_000)
    assert not guest.device.port.accepts(frame)
    guest.device.port.set_link(True, 10_000)
    assert guest.device.port.accepts(frame)


# --- what an administrator does -------------------------------------------------------------


def test_what_an_administrator_set_outlives_a_reset(guest: Guest) -> None:
    guest.device.port.set_mac(PEER)
    guest.device.port.set_vlan(7)
    guest.device.port.set_trust(True)
    guest.device.reset()
    assert guest.ask(Message.RESET) == Message.RESET | SUCCESS
    filters = guest.device.port.filters
    assert (filters.mac, filters.vlans) == (PEER, {7})
    guest.ask(Message.API_NEGOTIATE, Api.V17)
    assert told(guest, Message.UPDATE_XCAST_MODE, Xcast.ALLMULTI) == Xcast.ALLMULTI


TAKEN_OUT: dict[str, Callable[[Guest], object]] = {
    "function reset": lambda guest: guest.device.port.vf_was_reset(),
    "port reset": lambda guest: guest.device.port.reset(),
}


@pytest.mark.parametrize("how", TAKEN_OUT)
def test_a_reset_takes_the_address_out_and_the_vfs_own_message_puts_it_back(
    guest: Guest, how: str
) -> None:
    """ixgbe_vf_reset_event and ixgbe_flush_sw_mac_table; ixgbe_vf_reset_msg has it on record.

    A port that kept the address would send the guest's frames to a VF that nobody drives.
    """
    guest.device.port.set_mac(PEER)
    TAKEN_OUT[how](guest)
    assert guest.device.port.filters.mac == bytes(6)
    guest.device.write(Register.VFCTRL, VfControl.RST)
    assert guest.device.port.filters.mac == bytes(6)
    assert guest.ask(Message.RESET) == Message.RESET | SUCCESS
    assert guest.device.port.filters.mac == PEER


@pytest.mark.parametrize("how", TAKEN_OUT)
def test_a_filter_that_a_reset_has_emptied_cannot_be_cleared(guest: Guest, how: str) -> None:
    """ixgbe_del_mac_filter finds no entry; vf_mac_addresses and pf_set_mac stay, however often."""
    port = guest.device.port
    port.set_mac(PEER)
    TAKEN_OUT[how](guest)
    for _ in range(2):
        with pytest.raises(OSError, match="Cannot allocate memory") as refused:
            port.set_mac(bytes(6))
        assert refused.value.errno == ENOMEM
    assert guest.ask(Message.RESET) == Message.RESET | SUCCESS
    port.set_mac(bytes(6))
    assert guest.ask(Message.RESET) == Message.RESET | FAILURE
    port.set_mac(bytes(6))


def test_an_address_of_a_group_is_refused(guest: Guest) -> None:
    """ixgbe_ndo_set_vf_mac: is_valid_ether_addr."""
    with pytest.raises(OSError, match="Invalid argument"):
        guest.device.port.set_mac(b"\xff" * 6)
    assert guest.device.port.filters.mac == MAC


def test_an_address_that_the_vf_chose_comes_back_and_is_not_told_as_given(guest: Guest) -> None:
    """ixgbe_vf_reset_msg: vf_mac_addresses goes into the filter; without pf_set_mac it says no."""
    assert guest.device.port.filters.mac == MAC
    assert guest.ask(Message.RESET) == Message.RESET | FAILURE
    assert [guest.device.read(Register.VFMBMEM + 4 * at) for at in (1, 2)] == [0, 0]
    assert guest.device.port.filters.mac == MAC


def test_a_port_that_is_reset_hears_nobody_until_a_reset(guest: Guest) -> None:
    """ixgbe_reset by way of ixgbe_set_all_vfs: every VF has to begin anew, and is told so."""
    guest.device.port.reset()
    assert guest.device.read(Register.VFMAILBOX) == Mailbox.RSTD | Mailbox.PFSTS
    assert guest.device.read(Register.VFMBMEM) == Message.PF_CONTROL
    assert guest.ask(Message.SET_LPE, 1518) == Message.SET_LPE | FAILURE
    guest.start()
    assert guest.ask(Message.SET_LPE, 1518) == Message.SET_LPE | YES


def test_a_port_that_is_reset_has_cleared_the_vfs_queues(guest: Guest) -> None:
    """ixgbe_stop_adapter_generic turns all queues off, a VF's among them: no more DMA for it.

    With the spoof check off, a ring that went on would let frames out as well.
    """
    guest.device.port.set_spoof_check(False)
    guest.device.port.reset()
    log = guest.device.memory.log
    assert log
    written = log.count
    guest.tx[0].send(FROM_VF)
    assert (guest.sent, log.count) == ([], written)
    for queue in (*guest.device.receiver.queues, *guest.device.transmitter.queues):
        assert not queue.runs
        assert queue.read(QueueRegister.LEN) == 0
    assert guest.device.port.psrtype == 0


def test_a_port_that_is_down_hears_no_vf_and_one_that_is_up_again_does(guest: Guest) -> None:
    """The VF sees the port in reset (RSTI) from ixgbe_down to ixgbe_up_complete."""
    port = guest.device.port
    port.set_up(False)
    assert guest.device.read(Register.VFLINKS) == 0
    guest.device.write(Register.VFMAILBOX, Mailbox.VFU | Mailbox.REQ)
    assert guest.device.read(Register.VFMAILBOX) == Mailbox.RSTI | Mailbox.VFU
    assert (port.receives, port.transmits) == (False, False)
    port.set_up(True)
    assert guest.device.read(Register.VFMAILBOX) == Mailbox.RSTD | Mailbox.PFSTS | Mailbox.VFU
    assert guest.device.read(Register.VFMBMEM) == Message.PF_CONTROL
    port.set_up(True)  # the port is up already: nothing changes
    assert guest.device.read(Register.VFMAILBOX) == Mailbox.VFU
    guest.start()
    assert hears(guest)


def test_what_is_set_while_the_port_is_down_stays_as_it_goes_up(guest: Guest) -> None:
    """Only ixgbe_down resets the port; an MTU that is set meanwhile resets nothing."""
    port = guest.device.port
    port.set_up(False)
    port.set_mac(PEER)
    port.set_vlan(7)
    port.set_mtu(9000)
    port.set_up(True)
    assert (port.filters.mac, port.inserted_vlan, port.largest_frame) == (PEER, 7, 9014)


def test_a_priority_alone_is_a_vlan_of_the_ports(guest: Guest) -> None:
    """ixgbe_ndo_set_vf_vlan, "vlan || qos": each frame gets VLAN 0 with that priority."""
    port = guest.device.port
    port.set_vlan(0, 5)
    assert port.tag(None) == 5 << 13
    told(guest, Message.GET_QUEUES)
    assert guest.device.read(Register.VFMBMEM + 4 * 3) == 1, "it must not tag frames itself"
    port.set_vlan(0)
    assert port.tag(None) is None


def test_trust_that_changes_sends_the_vf_back_to_its_reset(guest: Guest) -> None:
    """ixgbe_ndo_set_vf_trust; "nothing to do" where it is as it was."""
    guest.device.port.set_trust(False)
    assert guest.device.read(Register.VFMAILBOX) == 0
    assert guest.ask(Message.SET_LPE, 1518) == Message.SET_LPE | YES
    guest.device.port.set_trust(True)
    assert guest.reply() == Message.PF_CONTROL
    assert guest.ask(Message.SET_LPE, 1518) == Message.SET_LPE | FAILURE


def test_a_vf_that_is_disabled_neither_hears_nor_sends(guest: Guest) -> None:
    """ixgbe_ndo_set_vf_link_state; its driver has to begin anew, and asks whether it may."""
    guest.device.port.set_state(False)
    assert guest.reply() == Message.PF_CONTROL
    assert not hears(guest)
    guest.start()
    assert told(guest, Message.GET_LINK_STATE) == 0
    guest.tx[0].send(FROM_VF)
    assert guest.sent == []


def test_a_vf_that_is_enabled_again_hears_and_sends_at_once(guest: Guest) -> None:
    """ixgbe_set_vf_rx_tx; only for what it says has its driver to begin anew first."""
    guest.device.port.set_state(False)
    guest.device.port.set_state(True)
    assert hears(guest)
    guest.tx[0].send(FROM_VF)
    assert guest.sent == [FROM_VF]
    assert guest.ask(Message.SET_LPE, 1518) == Message.SET_LPE | FAILURE
    guest.start()
    assert told(guest, Message.GET_LINK_STATE) == 1
