"""Which MAC address a port's filter holds for each of its VFs, over rtnetlink.

This is what ``ip link set PORT vf N mac M`` sets and ``ip link show PORT`` shows.  It is asked of
the kernel directly because it has to happen within a millisecond of a VF's release: a socket that
is open already costs one system call, a new process costs thousands.
"""

from __future__ import annotations

import ctypes
import errno
import os
import socket
import struct
from typing import Callable, final

from harness.agent.errors import AgentError
from harness.agent.netlink import attribute, attributes, link_message, link_of, messages
from harness.uapi import rtnetlink

_REPLY_BYTES = 1 << 16  # 63 VFs without statistics need about a third

_MEANING = {
    errno.ENODEV: ("there is no such interface", "name the port as `ip link` shows it"),
    errno.EPERM: ("only root (CAP_NET_ADMIN) may", "run the agent as root"),
    errno.EOPNOTSUPP: (
        "this interface's driver sets no addresses for VFs",
        "name the port (PF) that the VF belongs to",
    ),
    errno.EINVAL: (
        "the port has no VF of that number, or its driver refuses the address "
        "(ixgbe_ndo_set_vf_mac: it must be unicast)",
        "create the VFs first, and give a unicast address, or zeros to clear it",
    ),
    errno.ENOMEM: (
        "the port has no receive address register free (ixgbe_add_mac_filter: an 82599 has 128 in "
        "all, for itself and its VFs), or, for zeros, none with that address",
        "take addresses off the port and its VFs: `ip link show`, `bridge fdb show`",
    ),
}
"""A refusal with this errno has two texts: what the refusal means, and what a person can do."""

_OTHERWISE = ("the kernel or the port's driver refused it", "see the host's kernel log")

NOT_THERE = "the filter was empty already: a reset of the VF or of its port took the address out"
"""`PortFilters.set_mac` returns this text where the kernel answers ENOMEM to zeros.

The filter is clear then.

Ref: Linux, drivers/net/ethernet/intel/ixgbe: ixgbe_vf_reset_event() and ixgbe_flush_sw_mac_table()
take the entry out and leave the address on record, so that ixgbe_del_mac_filter() finds no entry.
The record stays: ``ip link`` goes on showing the address, and the VF's own reset message would put
it back.
"""


class FilterRefused(AgentError):
    """A port's driver, or the kernel itself, refused a request; *number* is the errno."""

    def __init__(self, what: str, number: int) -> None:
        because, fix = meaning(number)
        super().__init__(what, because=because, fix=fix)
        self.number = number


def meaning(number: int) -> tuple[str, str]:
    """Return what a refusal with the errno *number* means, and what a person can do."""
    return _MEANING.get(number, _OTHERWISE)


def errno_said(text: str) -> int:
    """Return the errno whose strerror(3) text stands in *text*; 0 where *text* has none."""
    return next((number for number in _MEANING if os.strerror(number) in text), 0)


def means_not_there(mac: str, number: int) -> bool:
    """Say whether errno *number* means that zeros for *mac* found an empty filter."""
    return number == errno.ENOMEM and not any(packed(mac))


@final
class PortFilters:
    """The MAC filters of one port's VFs; a context manager that owns a netlink socket.

    The interface is looked up in the network namespace of whoever opens this, once.
    """

    def __init__(self, port: str) -> None:
        self.port = port
        self._sequence = 0
        self._socket = socket.socket(
            socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, socket.NETLINK_ROUTE
        )
        try:
            self._index = ifindex_in(self._ask(lambda number: link_request(number, name=port)))
        except BaseException:
            self._socket.close()
            raise

    def __enter__(self) -> PortFilters:
        return self

    def __exit__(self, *exc: object) -> None:
        self._socket.close()

    def set_mac(self, vf_index: int, mac: str) -> str:
        """Give VF *vf_index* the address *mac* ("52:54:00:12:34:56"); zeros clear the filter.

        Returns when the driver has done it: NOT_THERE where the filter was empty, else ``""``.
        Raises FilterRefused if the kernel refuses.
        """
        address = packed(mac)
        try:
            self._ask(
                lambda number: set_mac_request(number, self._index, vf_index, address),
                about=f" VF {vf_index}: setting its MAC address to {mac}:",
            )
        except FilterRefused as refused:
            if means_not_there(mac, refused.number):
                return NOT_THERE
            raise
        return ""

    def macs(self) -> dict[int, str]:
        """VF number -> MAC address; empty for a port without VFs."""
        return macs_in(self._ask(lambda number: link_request(number, index=self._index)))

    def _ask(self, request: Callable[[int], bytes], *, about: str = "") -> bytes:
        """Send a request and return the answer to it, whole; raises AgentError on a refusal."""
        self._sequence += 1
        self._socket.send(request(self._sequence))
        while True:
            answer = self._socket.recv(_REPLY_BYTES)
            header = rtnetlink.Nlmsghdr.from_buffer_copy(answer)
            if header.nlmsg_seq == self._sequence:
                break
        if header.nlmsg_type == rtnetlink.Control.ERROR:
            body = rtnetlink.Nlmsgerr.from_buffer_copy(answer, ctypes.sizeof(header))
            if body.error:
                said = os.strerror(-body.error)
                raise FilterRefused(f"{self.port}:{about} {said}", -body.error)
        return answer


def set_vf_mac(port: str, vf_index: int, mac: str) -> str:
    """As PortFilters.set_mac, with a socket of its own."""
    with PortFilters(port) as filters:
        return filters.set_mac(vf_index, mac)


def vf_macs(port: str) -> dict[int, str]:
    """As PortFilters.macs, with a socket of its own."""
    with PortFilters(port) as filters:
        return filters.macs()


def packed(mac: str) -> bytes:
    """Turn "52:54:00:12:34:56" into six bytes.  Raises AgentError if it is no Ethernet address."""
    digits = mac.split(":")
    if len(digits) != 6 or any(len(pair) != 2 for pair in digits):
        raise _no_address(mac)
    try:
        return bytes(int(pair, 16) for pair in digits)
    except ValueError:
        raise _no_address(mac) from None


def link_request(sequence: int, *, index: int = 0, name: str = "") -> bytes:
    """RTM_GETLINK for the link of that *index* or *name*, its VFs included."""
    wanted = rtnetlink.ExtendedFilter.VF | rtnetlink.ExtendedFilter.SKIP_STATS
    body = attribute(rtnetlink.LinkAttribute.EXT_MASK, struct.pack("=I", wanted))
    if name:
        body += attribute(rtnetlink.LinkAttribute.IFNAME, name.encode() + b"\0")
    flags = rtnetlink.MessageFlag.REQUEST
    return link_message(rtnetlink.RouteMessage.GETLINK, flags, sequence, index, body)


def set_mac_request(sequence: int, index: int, vf_index: int, address: bytes) -> bytes:
    """RTM_SETLINK that gives one VF of link *index* a MAC address; it asks to be acknowledged."""
    mac = rtnetlink.IflaVfMac(vf=vf_index)
    mac.mac[: len(address)] = address
    info = attribute(rtnetlink.VfAttribute.MAC, bytes(mac))
    entry = attribute(rtnetlink.VfListAttribute.INFO, info)
    body = attribute(rtnetlink.LinkAttribute.VFINFO_LIST, entry)
    flags = rtnetlink.MessageFlag.REQUEST | rtnetlink.MessageFlag.ACK
    return link_message(rtnetlink.RouteMessage.SETLINK, flags, sequence, index, body)


def ifindex_in(answer: bytes) -> int:
    """Read the interface index out of an RTM_NEWLINK message."""
    ((_, body),) = messages(answer)
    index: int = link_of(body)[0].ifi_index
    return index


def macs_in(answer: bytes) -> dict[int, str]:
    """VF number -> MAC address, out of an RTM_NEWLINK message."""
    ((_, body),) = messages(answer)
    macs = {}
    for link_type, entries in link_of(body)[1]:
        if link_type != rtnetlink.LinkAttribute.VFINFO_LIST:
            continue
        for _, info in attributes(entries):
            for vf_type, value in attributes(info):
                if vf_type == rtnetlink.VfAttribute.MAC:
                    held = rtnetlink.IflaVfMac.from_buffer_copy(value)
                    macs[held.vf] = bytes(held.mac[:6]).hex(":")
    return macs


def _no_address(mac: str) -> AgentError:
    return AgentError(
        f"{mac!r} is no MAC address",
        because="a MAC address is six pairs of hexadecimal digits with colons between",
        fix="write it like 52:54:00:12:34:56",
    )
