"""The agent uses a VF's end of the mailbox; the model of the port's driver answers."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from vf_driver import Guest, guest_with_vf

from harness.agent import vf_mailbox
from harness.agent.errors import AgentError
from harness.agent.vf_mailbox import VfMailbox
from harness.uapi.ixgbe_vf import CLEAR_TO_SEND, FAILURE, SUCCESS, Mailbox, Message

YES = SUCCESS | CLEAR_TO_SEND


class Opened:
    """The registers of a guest's VF stand here in place of a VFIO descriptor."""

    address = "0000:01:10.0"

    def __init__(self, guest: Guest) -> None:
        self._device = guest.device

    def region_read(self, _index: int, offset: int, length: int) -> bytes:
        return self._device.read(offset).to_bytes(length, "little")

    def region_write(self, _index: int, offset: int, data: bytes) -> None:
        self._device.write(offset, int.from_bytes(data, "little"))


@pytest.fixture
def guest(tmp_path: Path) -> Iterator[Guest]:
    """Yield a VF whose driver has not said anything yet."""
    with guest_with_vf(tmp_path / "dma.log") as guest:
        yield guest


@pytest.fixture
def mailbox(guest: Guest, monkeypatch: pytest.MonkeyPatch) -> VfMailbox:
    for patience in ("_REPLY_SECONDS", "_NO_REPLY_SECONDS", "_QUIET_SECONDS"):
        monkeypatch.setattr(vf_mailbox, patience, 0.05)
    monkeypatch.setattr(vf_mailbox, "_UNTIL_QUIET_SECONDS", 0.2)
    return VfMailbox(Opened(guest))


def test_a_reply_has_all_words_and_nothing_follows_it(mailbox: VfMailbox) -> None:
    """The agent writes zeros behind each message, so that a reply has no older words."""
    assert mailbox.say([Message.RESET])["reply"] == [Message.RESET | FAILURE, *[0] * 15]
    mailbox.say([Message.SET_MULTICAST, *range(1, 16)])
    said = mailbox.say([Message.API_NEGOTIATE, 3])
    assert said == {"reply": [Message.API_NEGOTIATE | YES, 3, *[0] * 14], "after": None}
    assert mailbox.heard() is None


def test_a_vf_that_may_not_send_is_told_once_more(mailbox: VfMailbox) -> None:
    """The agent does not acknowledge that word: ixgbe_rcv_ack_from_vf answers each ACK with it."""
    said = mailbox.say([Message.SET_LPE, 1518])
    assert said["after"] == FAILURE
    assert mailbox.heard() is None


def test_what_the_port_says_unasked_is_heard_once(guest: Guest, mailbox: VfMailbox) -> None:
    mailbox.say([Message.RESET])
    guest.device.port.set_link(False, 10_000)
    assert [mailbox.heard(), mailbox.heard()] == [Message.PF_CONTROL | CLEAR_TO_SEND, None]


def test_the_last_word_of_a_port_is_heard_once_it_is_silent(
    guest: Guest, mailbox: VfMailbox
) -> None:
    mailbox.say([Message.RESET])
    assert mailbox.last_heard() is None
    guest.device.port.set_link(False, 10_000)
    guest.device.port.set_trust(True)
    assert mailbox.last_heard() == Message.PF_CONTROL, "a VF that became trusted starts anew"


def test_a_port_that_never_falls_silent_is_an_error(guest: Guest, mailbox: VfMailbox) -> None:
    """A port whose link flaps tells its VFs so for ever."""

    def heard() -> int:
        guest.device.port.set_link(False, 10_000)
        return 0x100

    mailbox.heard = heard  # type: ignore[method-assign]
    with pytest.raises(AgentError, match="the port does not fall silent") as refused:
        mailbox.last_heard()
    assert "0x100" in refused.value.because


def test_a_message_that_the_port_overwrote_is_an_error(guest: Guest, mailbox: VfMailbox) -> None:
    """The agent would take the reply for that to another message."""
    guest.device.port.set_link(False, 10_000)
    with pytest.raises(AgentError, match="the port said something else meanwhile"):
        mailbox.say([Message.RESET])


def test_a_port_that_takes_nothing_is_an_error(guest: Guest, mailbox: VfMailbox) -> None:
    guest.device.port.mailbox.silent = True
    with pytest.raises(AgentError, match="the port did not take 0x1 from the mailbox"):
        mailbox.say([Message.RESET])


def test_a_mailbox_that_the_port_holds_is_an_error(
    guest: Guest, mailbox: VfMailbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(guest.device.port.mailbox, "_status", int(Mailbox.PFU))
    with pytest.raises(AgentError, match="the mailbox cannot be had") as refused:
        mailbox.say([Message.RESET])
    assert "VFMAILBOX was 0x8 " in refused.value.because


def test_a_reply_that_is_sent_back_gets_none(mailbox: VfMailbox) -> None:
    """The port takes such a reply and says nothing (ixgbe_rcv_msg_from_vf)."""
    assert mailbox.say([Message.RESET | SUCCESS]) == {"reply": None, "after": None}


def test_waiting_for_an_idle_mailbox_says_nothing_else(guest: Guest, mailbox: VfMailbox) -> None:
    """The agent asks an idle mailbox only whether the port has done its work."""
    mailbox.say([Message.RESET])
    mailbox.wait_until_idle()
    assert mailbox.heard() is None
    assert guest.device.port.clear_to_send
    guest.device.port.mailbox.silent = True
    with pytest.raises(AgentError, match="the port did not take 0x80000000"):
        mailbox.wait_until_idle()
