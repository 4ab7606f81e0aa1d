"""What a VF and its port say to each other: whose turn it is, the reset, versions, refusals.

What is right is what Linux's driver of the port says, v6.18, drivers/net/ethernet/intel/ixgbe,
ixgbe_sriov.c and ixgbe_mbx.h; the names of its functions stand at the tests.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from vf_driver import Guest, guest_with_vf
from vf_rings import MAC

from harness.uapi.ixgbe_vf import (
    CLEAR_TO_SEND,
    FAILURE,
    FEATURE_IPSEC,
    MAILBOX_WORDS,
    MOST_QUEUES,
    MULTICAST_FILTER_TYPE,
    SUCCESS,
    Api,
    Mailbox,
    Message,
    Register,
    VfControl,
)
from harness.waiting import wait_for

YES, NO = SUCCESS | CLEAR_TO_SEND, FAILURE | CLEAR_TO_SEND
SPOKEN = [Api.V10, Api.V11, Api.V12, Api.V13, Api.V14, Api.V16, Api.V17]
ADD = 1 << 16
LONG_NS = 3600 * 10**9


@pytest.fixture
def probed(tmp_path: Path) -> Iterator[Guest]:
    """A VF whose driver has not said anything yet."""
    with guest_with_vf(tmp_path / "dma.log") as guest:
        yield guest


@pytest.fixture
def guest(probed: Guest) -> Guest:
    probed.start()
    return probed


def words(guest: Guest, count: int = MAILBOX_WORDS) -> list[int]:
    """What is in the mailbox, from its first word on."""
    return [guest.device.read(Register.VFMBMEM + 4 * at) for at in range(count)]


# --- mailbox --------------------------------------------------------------------------------


def test_a_vf_is_told_once_that_its_port_is_there(probed: Guest) -> None:
    """RSTD is cleared by being read; ixgbevf_check_for_rst_vf keeps what it saw itself."""
    assert [probed.device.read(Register.VFMAILBOX) for _ in range(2)] == [Mailbox.RSTD, 0]


def test_a_message_is_taken_and_answered_and_each_is_told_once(guest: Guest) -> None:
    """IXGBE_VFMAILBOX_R2C_BITS; VFU is the VF's own and falls as it lets the port have it."""
    guest.post(Message.GET_LINK_STATE)
    status = [guest.device.read(Register.VFMAILBOX) for _ in range(2)]
    assert status == [Mailbox.PFACK | Mailbox.PFSTS, 0]


def test_the_mailbox_is_the_vfs_from_vfu_on(guest: Guest) -> None:
    """ixgbevf_obtain_mbx_lock_vf reads it back; no message is sent by that, nor by words."""
    guest.device.write(Register.VFMAILBOX, Mailbox.VFU)
    guest.device.write(Register.VFMBMEM, Message.GET_LINK_STATE)
    assert guest.device.read(Register.VFMAILBOX) == Mailbox.VFU
    guest.device.write(Register.VFMAILBOX, 0)
    assert guest.device.read(Register.VFMAILBOX) == 0


@pytest.mark.parametrize("mark", [SUCCESS, FAILURE])
def test_an_answer_that_is_sent_back_is_no_message(guest: Guest, mark: int) -> None:
    """ixgbe_rcv_msg_from_vf, "this is a message we already processed"."""
    guest.post(Message.RESET | mark)
    assert guest.device.read(Register.VFMAILBOX) == Mailbox.PFACK
    assert guest.ask(Message.GET_LINK_STATE) == Message.GET_LINK_STATE | YES


@pytest.mark.parametrize(
    "message",
    [
        *(Message.GET_RETA, Message.GET_RSS_KEY, Message.IPSEC_ADD, Message.IPSEC_DEL),
        *(Message.GET_PF_LINK_STATE, Message.RESET | ADD, 0, 7, 0x13, 0xFFFF),
    ],
)
def test_what_the_port_does_not_do_is_refused(guest: Guest, message: int) -> None:
    """The RSS query is off as ixgbe_enable_sriov leaves it; 0x11 is for E610 alone."""
    assert guest.ask(message, 1) == message | NO


def test_a_late_answer_is_seen_once_it_is_due(guest: Guest) -> None:
    guest.device.port.mailbox.late_ns = 1_000_000
    guest.post(Message.GET_LINK_STATE)
    said = wait_for("the answer", guest.reply, within=5, every_s=0.001)
    assert said == Message.GET_LINK_STATE | YES


def test_a_late_message_rings_when_it_is_there(guest: Guest) -> None:
    """Late is late, and not lost as well: the driver looks when it is interrupted."""
    rung: list[int] = []
    guest.device.port.ring = lambda: rung.append(guest.device.port.mailbox.read_status())
    guest.device.port.mailbox.late_ns = 1_000_000
    guest.device.port.set_link(False, 10_000)
    assert rung == []
    wait_for("the ringing", lambda: guest.turn() or rung, within=5, every_s=0.001)
    assert rung == [Mailbox.PFSTS]


def test_a_silent_port_does_not_ring(guest: Guest) -> None:
    rung: list[bool] = []
    guest.device.port.ring = lambda: rung.append(True)
    guest.device.port.mailbox.silent = True
    guest.device.port.set_link(False, 10_000)
    assert rung == []


def test_a_late_answer_is_lost_where_the_port_is_reset_before(guest: Guest) -> None:
    """Delivered after it, it would tell the VF that it is still clear to send."""
    guest.device.port.mailbox.late_ns = LONG_NS
    guest.post(Message.GET_LINK_STATE)
    assert guest.device.read(Register.VFMAILBOX) == Mailbox.PFACK
    assert guest.device.has_late_work
    guest.device.port.mailbox.late_ns = 0
    guest.device.port.reset()
    assert not guest.device.has_late_work


def test_a_silent_port_neither_takes_nor_answers(guest: Guest) -> None:
    """A driver's timeout is what that is for; afterwards all is as before."""
    guest.device.port.mailbox.silent = True
    guest.post(Message.GET_LINK_STATE)
    guest.device.port.set_link(False, 10_000)
    assert guest.device.read(Register.VFMAILBOX) == 0
    guest.device.port.mailbox.silent = False
    assert guest.ask(Message.GET_LINK_STATE) == Message.GET_LINK_STATE | YES


# --- resets ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("given", "answer"),
    [
        (MAC, [Message.RESET | SUCCESS, 0x00000002, 0x0100]),
        (bytes(6), [Message.RESET | FAILURE, 0, 0]),
    ],
)
def test_a_reset_is_answered_with_the_address_that_was_given(
    probed: Guest, given: bytes, answer: list[int]
) -> None:
    """ixgbe_vf_reset_msg; without one ixgbevf makes its own up, and CTS it would not know."""
    probed.device.port.set_mac(given)
    probed.post(Message.RESET, *range(1, MAILBOX_WORDS))
    assert probed.device.read(Register.VFMAILBOX) & Mailbox.PFSTS
    assert words(probed) == [*answer, MULTICAST_FILTER_TYPE, *[0] * (MAILBOX_WORDS - 4)]


@pytest.mark.parametrize("message", [each for each in Message if each != Message.RESET])
def test_nothing_is_done_for_a_vf_that_has_not_been_reset(probed: Guest, message: Message) -> None:
    """Its first word alone comes back, and without CTS: ixgbevf takes that for a reset."""
    assert probed.ask(message, 1518) == message | FAILURE
    assert words(probed, 2) == [FAILURE, 1518], "who is not clear to send is not to read either"


@pytest.mark.parametrize("how", ["VFCTRL", "message", "FLR"])
def test_a_reset_forgets_what_the_vf_asked_for(guest: Guest, how: str) -> None:
    """ixgbe_vf_reset_event: addresses, VLANs, multicast, version.

    The message alone has the VF's own address in the filter again, from the driver's record.
    """
    guest.ask(Message.SET_VLAN | ADD, 7)
    guest.ask(Message.SET_MACVLAN | ADD, 0x02, 0x0900)
    guest.ask(Message.SET_MULTICAST | ADD, 0xFB0)
    reset: dict[str, Callable[[], object]] = {
        "VFCTRL": lambda: guest.device.write(Register.VFCTRL, VfControl.RST),
        "message": lambda: guest.ask(Message.RESET),
        "FLR": guest.device.reset,
    }
    reset[how]()
    filters = guest.device.port.filters
    address = MAC if how == "message" else bytes(6)
    assert (filters.mac, filters.macvlans, filters.multicast) == (address, [], set())
    assert filters.vlans == {0}
    assert guest.ask(Message.GET_QUEUES) == Message.GET_QUEUES | NO


# --- versions -------------------------------------------------------------------------------


@pytest.mark.parametrize("version", [*range(10), 0xFFFFFFFF])
def test_a_version_is_agreed_on_where_the_port_speaks_it(guest: Guest, version: int) -> None:
    """ixgbe_negotiate_vf_api.  A refusal leaves the old one: ixgbevf asks for the next lower."""
    said = guest.ask(Message.API_NEGOTIATE, version)
    assert said == Message.API_NEGOTIATE | (YES if version in SPOKEN else NO)
    assert guest.device.port.api == (version if version in SPOKEN else Api.V17)


@pytest.mark.parametrize("newest", SPOKEN)
def test_an_older_port_refuses_what_is_newer(guest: Guest, newest: Api) -> None:
    guest.device.port.administered.api = newest
    agreed = [each for each in SPOKEN if guest.ask(Message.API_NEGOTIATE, each) & SUCCESS]
    assert agreed == [each for each in SPOKEN if each <= newest]


@pytest.mark.parametrize(
    ("message", "since"),
    [
        (Message.GET_QUEUES, Api.V11),
        (Message.UPDATE_XCAST_MODE, Api.V12),
        (Message.GET_LINK_STATE, Api.V12),
        (Message.FEATURES_NEGOTIATE, Api.V17),
    ],
)
def test_a_message_is_for_the_versions_that_have_it(
    guest: Guest, message: Message, since: Api
) -> None:
    for version in SPOKEN:
        guest.ask(Message.API_NEGOTIATE, version)
        assert guest.ask(message, 1) == message | (YES if version >= since else NO)


@pytest.mark.parametrize("vlan", [0, 7])
def test_queues_and_features_are_told(guest: Guest, vlan: int) -> None:
    """ixgbe_get_vf_queues: to each direction, whether the port tags, the default one.

    Of the features that are asked for IPsec is granted (IXGBE_SUPPORTED_FEATURES).
    """
    guest.device.port.set_vlan(vlan)
    guest.ask(Message.GET_QUEUES, 9, 9, 9, 9)
    assert words(guest, 5)[1:] == [MOST_QUEUES, MOST_QUEUES, bool(vlan), 0]
    guest.ask(Message.FEATURES_NEGOTIATE, 0b11)
    assert words(guest, 2)[1] == FEATURE_IPSEC
