"""How rtnetlink messages about links are put together and taken apart."""

from __future__ import annotations

import ctypes
from collections.abc import Iterator
from typing import NamedTuple

from harness.uapi import rtnetlink

_HEADER_BYTES = ctypes.sizeof(rtnetlink.Nlmsghdr)
_LINK_BYTES = ctypes.sizeof(rtnetlink.Ifinfomsg)
_ATTRIBUTE_BYTES = ctypes.sizeof(rtnetlink.Rtattr)


class Message(NamedTuple):
    """One message of a datagram: its type, and what follows its header."""

    kind: int
    body: bytes


def link_message(kind: int, flags: int, sequence: int, index: int, body: bytes = b"") -> bytes:
    """A message about the link of that *index*; *body* is its attributes."""
    payload = bytes(rtnetlink.Ifinfomsg(ifi_index=index)) + body
    header = rtnetlink.Nlmsghdr(nlmsg_type=kind, nlmsg_flags=flags, nlmsg_seq=sequence)
    header.nlmsg_len = _HEADER_BYTES + len(payload)
    return bytes(header) + payload


def messages(datagram: bytes) -> Iterator[Message]:
    """Each message of a datagram, in order."""
    while len(datagram) >= _HEADER_BYTES:
        header = rtnetlink.Nlmsghdr.from_buffer_copy(datagram)
        yield Message(header.nlmsg_type, datagram[_HEADER_BYTES : header.nlmsg_len])
        datagram = datagram[max(_aligned(header.nlmsg_len), _HEADER_BYTES) :]


def link_of(body: bytes) -> tuple[rtnetlink.Ifinfomsg, Iterator[tuple[int, bytes]]]:
    """Which link a message is about, and the attributes that it tells of it."""
    return rtnetlink.Ifinfomsg.from_buffer_copy(body), attributes(body[_LINK_BYTES:])


def attribute(kind: int, value: bytes) -> bytes:
    """One attribute, padded so that another may follow."""
    header = bytes(rtnetlink.Rtattr(rta_len=_ATTRIBUTE_BYTES + len(value), rta_type=kind))
    return header + value + b"\0" * (-len(value) % 4)


def attributes(data: bytes) -> Iterator[tuple[int, bytes]]:
    """Type and value of each attribute in *data*, in order, without the types' flag bits."""
    while len(data) >= _ATTRIBUTE_BYTES:
        header = rtnetlink.Rtattr.from_buffer_copy(data)
        yield header.rta_type & rtnetlink.NLA_TYPE_MASK, data[_ATTRIBUTE_BYTES : header.rta_len]
        data = data[max(_aligned(header.rta_len), _ATTRIBUTE_BYTES) :]


def _aligned(length: int) -> int:
    return (length + 3) & ~3
