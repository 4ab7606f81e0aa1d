"""The checksums of IPv4, IPv6, TCP and UDP that the device computes and checks, and SCTP's.

Ref: RFC 1071.  A ones' complement sum of 16-bit words is their number's remainder by 65535, so
Python's long integers do a frame in a few microseconds.  SCTP has a CRC (RFC 9260, appendix A).
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from typing import Union

Bytes = Union[bytes, bytearray, memoryview]

TCP, UDP, SCTP = 6, 17, 132
_IPV4, _IPV6, _VLAN = 0x0800, 0x86DD, 0x8100
_ETHERNET_BYTES, _TAG_BYTES, _IPV6_BYTES = 14, 4, 40
_MORE_OR_OFFSET = 0x3FFF
CHECKSUM_AT = {TCP: slice(16, 18), UDP: slice(6, 8), SCTP: slice(8, 12)}
"""Where a transport's checksum is in its header."""

_CRC32C = 0x82F63B78  # the polynomial, lowest power first


def total(data: Bytes) -> int:
    """The ones' complement sum of *data* in 16-bit words, big-endian; an odd end is padded."""
    number = int.from_bytes(data, "big")
    if len(data) & 1:
        number <<= 8
    return number % 0xFFFF or (0xFFFF if number else 0)


def complement(value: int) -> int:
    """The checksum for a sum that may have carried."""
    return ~(value % 0xFFFF or (0xFFFF if value else 0)) & 0xFFFF


@dataclass(frozen=True)
class Parsed:
    """Where the parts of an IP packet are in its frame; *transport* is 0 where there is none."""

    version: int
    network_at: int
    transport_at: int
    transport: int
    end: int

    def pseudo_header(self, frame: Bytes, length: int) -> int:
        """The sum of addresses, protocol and *length*, the transport's own."""
        addresses = slice(12, 20) if self.version == 4 else slice(8, 40)
        network = frame[self.network_at : self.network_at + 40]
        return total(network[addresses]) + self.transport + length


def parse(frame: Bytes) -> Parsed | None:
    """Find IP, and TCP or UDP, in a frame; None where there is no IP or it is cut short."""
    at = _ETHERNET_BYTES
    kind = frame[12] << 8 | frame[13]
    if kind == _VLAN and len(frame) > at + _TAG_BYTES:
        kind = frame[16] << 8 | frame[17]
        at += _TAG_BYTES
    if kind == _IPV4 and len(frame) >= at + 20:
        head = (frame[at] & 0xF) * 4
        length = frame[at + 2] << 8 | frame[at + 3]
        fragment = (frame[at + 6] << 8 | frame[at + 7]) & _MORE_OR_OFFSET
        transport = 0 if fragment else frame[at + 9]
        if head < 20 or not head <= length <= len(frame) - at:
            return None
        return Parsed(4, at, at + head, _known(transport), at + length)
    if kind == _IPV6 and len(frame) >= at + _IPV6_BYTES:
        length = frame[at + 4] << 8 | frame[at + 5]
        if at + _IPV6_BYTES + length > len(frame):
            return None
        return Parsed(
            6, at, at + _IPV6_BYTES, _known(frame[at + 6]), at + _IPV6_BYTES + length
        )  # fmt: skip
    return None


def _known(transport: int) -> int:
    return transport if transport in (TCP, UDP) else 0


def network_is_right(frame: Bytes, parsed: Parsed) -> bool:
    """Whether an IPv4 header sums up; IPv6 has no checksum of its own."""
    header = frame[parsed.network_at : parsed.transport_at]
    return parsed.version == 6 or total(header) == 0xFFFF


def transport_is_right(frame: Bytes, parsed: Parsed) -> bool:
    """Whether TCP or UDP sums up; a UDP checksum of 0 says that there is none."""
    segment = frame[parsed.transport_at : parsed.end]
    if len(segment) < CHECKSUM_AT[parsed.transport].stop:
        return False
    if parsed.transport == UDP and not (segment[6] or segment[7]):
        return True
    whole = total(segment) + parsed.pseudo_header(frame, len(segment))
    return complement(whole) == 0


def put_network(frame: bytearray, at: int, length: int) -> None:
    """Finish the IPv4 checksum *at*, over *length* bytes from there on.

    The driver leaves a start value in the place of the checksum: 0 for a plain frame.  For a tunnel
    the value cancels the headers behind the outer header, which *length* includes.
    """
    value = complement(total(frame[at : at + length]))
    frame[at + 10 : at + 12] = value.to_bytes(2, "big")


def put_transport(frame: bytearray, at: int, transport: int, more: int = 0) -> None:
    """Finish the checksum of the segment *at*, where the driver left its pseudo header's sum.

    *more* is what that sum lacks.  SCTP's checksum has no pseudo header.  Ref: Linux,
    Documentation/networking/checksum-offloads.rst.
    """
    within = CHECKSUM_AT[transport]
    place = slice(at + within.start, at + within.stop)
    if transport == SCTP:
        frame[place] = bytes(4)
        frame[place] = crc32c(frame[at:]).to_bytes(4, "little")
        return
    value = complement(total(frame[at:]) + more)
    if transport == UDP and value == 0:
        value = 0xFFFF
    frame[place] = value.to_bytes(2, "big")


def crc32c(data: Bytes) -> int:
    """The CRC of Castagnoli's polynomial."""
    table, value = _crc_table(), 0xFFFFFFFF
    for each in data:
        value = value >> 8 ^ table[(value ^ each) & 0xFF]
    return value ^ 0xFFFFFFFF


@cache
def _crc_table() -> tuple[int, ...]:
    table = []
    for value in range(256):
        for _ in range(8):
            value = value >> 1 ^ (_CRC32C if value & 1 else 0)
        table.append(value)
    return tuple(table)
