"""The messages that move a VF's MAC filter are those of iproute2, and refusals are explained."""

from __future__ import annotations

import ctypes
import os
import socket
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from errno import EINVAL, ENOMEM, EOPNOTSUPP, EPERM

import pytest

from harness.agent.errors import AgentError
from harness.agent.netlink import attributes, link_message
from harness.agent.vf_filter import (
    NOT_THERE,
    FilterRefused,
    PortFilters,
    errno_said,
    link_request,
    macs_in,
    meaning,
    packed,
    set_mac_request,
    set_vf_mac,
    vf_macs,
)
from harness.uapi import rtnetlink

NO_MAC = "00:00:00:00:00:00"
MAC = "52:54:00:12:34:56"

# `strace -e write=all ip link set lo vf 3 mac 52:54:00:12:34:56` of iproute2 6.1, lo being link 1;
# it sends RTM_NEWLINK (16) where RTM_SETLINK (19), which creates nothing, says what is meant.
SET_BY_IPROUTE2 = bytes.fromhex(
    "50000000 1000 0500 b3f7036b 00000000"  # nlmsghdr: length, type, flags, sequence, pid
    "00 00 0000 01000000 00000000 00000000"  # ifinfomsg
    "3000 1600  2c00 0100  2800 0100"  # VFINFO_LIST, VF_INFO, VF_MAC
    "03000000 525400123456" + "00" * 26
)

# Before that it asked for the link by name; the name's three bytes are padded to four.
GET_BY_IPROUTE2 = bytes.fromhex(
    "30000000 1200 0100 b2f7036b 00000000"
    "00 00 0000 00000000 00000000 00000000"
    "0800 1d00 09000000  0700 0300 6c6f0000"  # EXT_MASK (VFs, no statistics), IFNAME
)

# What Linux 6.12 answered about the port of an emulated 82576 with two VFs: the header, the name
# and the list of VFs, each of which holds a dozen attributes.
LINK_WITH_TWO_VFS = bytes.fromhex(
    "0806000010000000cd000000fe00000000000100020000004310010000000000"
    "090003006574683000000000"
    "8c011600"
    "c4000100"
    "2800010000000000525400000163000000000000000000000000000000000000000000000000000024000d00"
    "ffffffffffff0000000000000000000000000000000000000000000000000000100002000000000000000000"
    "00000000100006000000000000000000000000000c00030000000000000000000c0004000000000001000000"
    "0c00050000000000000000000c00070000000000ffffffff0c000900000000000000000018000c0014000100"
    "10000000000000000000000081000000"
    "c4000100"
    "2800010001000000525400000011000000000000000000000000000000000000000000000000000024000d00"
    "ffffffffffff0000000000000000000000000000000000000000000000000000100002000100000000000000"
    "00000000100006000100000000000000000000000c00030001000000000000000c0004000100000001000000"
    "0c00050001000000000000000c00070001000000ffffffff0c000900010000000000000018000c0014000100"
    "01000000000000000000000081000000"
)


def test_the_request_is_what_iproute2_sends() -> None:
    """A wrong length or nesting is refused at best, and at worst sets another VF's address."""
    request = set_mac_request(0x6B03F7B3, 1, 3, packed(MAC))
    assert request[:4] == SET_BY_IPROUTE2[:4]
    assert request[4:6] == b"\x13\x00"
    assert request[6:] == SET_BY_IPROUTE2[6:]


def test_the_question_is_what_iproute2_asks() -> None:
    """Without the mask the kernel leaves the VFs out, and every port seems to have none."""
    assert link_request(0x6B03F7B2, name="lo") == GET_BY_IPROUTE2


def test_a_recorded_answer_holds_each_vfs_address() -> None:
    """Each VF's entry holds a broadcast address too, which a careless reader takes for the MAC."""
    assert macs_in(LINK_WITH_TWO_VFS) == {0: "52:54:00:00:01:63", 1: "52:54:00:00:00:11"}


def test_the_flag_bits_of_a_nested_type_are_not_part_of_it() -> None:
    """Kernels set NLA_F_NESTED (0x8000) on some lists: their type would be unknown."""
    assert list(attributes(bytes.fromhex("0800 1680 01020304 0500 0300 ff000000"))) == [
        (22, b"\x01\x02\x03\x04"),
        (3, b"\xff"),
    ]


def test_attributes_of_length_zero_end() -> None:
    """A length shorter than its own header would be read again and again."""
    assert len(list(attributes(bytes(16)))) == 4


@pytest.mark.parametrize("mac", ["", "52:54:00:12:34", "52-54-00-12-34-56", "52:54:00:12:34:5g"])
def test_what_is_no_mac_address_is_refused(mac: str) -> None:
    """The kernel takes the first six bytes of whatever it gets."""
    with pytest.raises(AgentError, match="is no MAC address"):
        packed(mac)


@pytest.fixture
def own_network() -> Iterator[ThreadPoolExecutor]:
    """A thread in a network namespace of its own, which goes with the thread."""
    unshare = ctypes.CDLL(None, use_errno=True).unshare
    clone_newnet = 0x40000000
    with ThreadPoolExecutor(max_workers=1) as thread:
        if thread.submit(unshare, clone_newnet).result() != 0:
            pytest.skip("needs root: no network namespace can be made")
        yield thread


def test_a_port_without_vfs_has_no_filters(own_network: ThreadPoolExecutor) -> None:
    """The kernel's whole answer is parsed here, about a link of a kind that is everywhere."""
    assert own_network.submit(vf_macs, "lo").result() == {}


def test_a_port_that_cannot_is_named_with_the_reason(own_network: ThreadPoolExecutor) -> None:
    """The usual mistake is the VF's own interface, or a bridge, in place of the port."""
    with pytest.raises(AgentError) as caught:
        own_network.submit(set_vf_mac, "lo", 3, MAC).result()
    assert caught.value.what == f"lo: VF 3: setting its MAC address to {MAC}: " + os.strerror(
        EOPNOTSUPP
    )
    assert caught.value.fix == "name the port (PF) that the VF belongs to"


def test_a_socket_stays_usable_after_a_refusal(own_network: ThreadPoolExecutor) -> None:
    """A refused request leaves an answer behind; the next one must not be given that."""

    def ask_twice() -> dict[int, str]:
        with PortFilters("lo") as filters:
            with pytest.raises(AgentError):
                filters.set_mac(0, MAC)
            return filters.macs()

    assert own_network.submit(ask_twice).result() == {}


class Kernel:
    """A kernel that knows the link of that name, and refuses to set a VF's address with *number*.

    Ports that refuse it so are no everyday thing; what it says is laid out as <linux/netlink.h>.
    """

    def __init__(self, number: int) -> None:
        self.number = number
        self._asked = b""

    def send(self, request: bytes) -> None:
        self._asked = request

    def recv(self, _: int) -> bytes:
        asked = rtnetlink.Nlmsghdr.from_buffer_copy(self._asked)
        if asked.nlmsg_type == rtnetlink.RouteMessage.GETLINK:
            return link_message(rtnetlink.RouteMessage.NEWLINK, 0, asked.nlmsg_seq, 7)
        body = bytes(rtnetlink.Nlmsgerr(error=-self.number))
        length = ctypes.sizeof(asked) + len(body)
        said = rtnetlink.Nlmsghdr(
            nlmsg_len=length, nlmsg_type=rtnetlink.Control.ERROR, nlmsg_seq=asked.nlmsg_seq
        )
        return bytes(said) + body

    def close(self) -> None:
        """There is nothing to close."""


@pytest.mark.parametrize(
    ("number", "mac", "note"),
    [(0, NO_MAC, ""), (ENOMEM, NO_MAC, NOT_THERE), (0, MAC, "")],
)
def test_an_address_that_is_not_in_the_filter_any_more_counts_as_cleared(
    monkeypatch: pytest.MonkeyPatch, number: int, mac: str, note: str
) -> None:
    """Ixgbe refuses with ENOMEM after a reset: the hand-off would be told as refused."""
    monkeypatch.setattr(socket, "socket", lambda *_: Kernel(number))
    assert set_vf_mac("ens1f0", 1, mac) == note


@pytest.mark.parametrize(("number", "mac"), [(ENOMEM, MAC), (EINVAL, NO_MAC), (EPERM, NO_MAC)])
def test_any_other_refusal_stays_one(
    monkeypatch: pytest.MonkeyPatch, number: int, mac: str
) -> None:
    """A port without a free register sets no address: the guest's frames go elsewhere."""
    monkeypatch.setattr(socket, "socket", lambda *_: Kernel(number))
    with pytest.raises(FilterRefused) as refused:
        set_vf_mac("ens1f0", 1, mac)
    assert refused.value.number == number
    assert refused.value.because == meaning(number)[0]


def test_the_words_of_a_refusal_lead_back_to_its_errno() -> None:
    """``ip`` tells nothing but these."""
    assert errno_said("RTNETLINK answers: Cannot allocate memory\n") == ENOMEM
    assert errno_said("Cannot find device") == 0


def test_an_interface_that_is_not_there_is_named(own_network: ThreadPoolExecutor) -> None:
    """It is looked up when opened, before anything is measured, and not when it is needed."""
    with pytest.raises(AgentError, match="nowhere0: No such device"):
        own_network.submit(PortFilters, "nowhere0").result()
