"""The device fills in checksums and VLAN tags of a frame on its way out, and cuts segments.

The device knows no tunnel.  A context descriptor says where an IP header begins (MACLEN) and ends
(IPLEN), and the device takes all between for one IP header.  For a tunnel the driver names the
*outer* IP header and the *inner* transport.  Both sums come out right, since each starts from a
value that the driver wrote into the place of the checksum:

* IPv4's is over IPLEN bytes.  The driver leaves 0, or for a tunnel the complement of the sum of all
  that follows the outer header, which takes that out again.
* The transport's is from its header to the frame's end.  The driver leaves the sum of the inner
  pseudo header: all of it where one frame is sent, and without the length where segments are, since
  only the device knows the length of each; it adds that.

So addresses are never looked at here, neither an outer nor an inner header's.  Of a segment the
device sets the outer IP header's length and identification, and the transport's own fields; the
inner IP header's, and those of UDP or GRE between, are right already, as such a packet's segments
have all one length (NETIF_F_GSO_PARTIAL, and NETIF_F_TSO_MANGLEID for the inner identification).

Ref: 82599 datasheet, transmit context descriptor and TCP/UDP segmentation; as Linux fills it in,
drivers/net/ethernet/intel/ixgbevf/ixgbevf_main.c, ixgbevf_tx_csum and ixgbevf_tso; ixgbe's own,
ixgbe_tso, has segments of UDP as well.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from harness.twin import checksum
from harness.twin.filters import VLAN_TYPE
from harness.uapi import ixgbe_vf
from harness.uapi.ixgbe_vf import POPTS_IXSM, POPTS_TXSM, TxCommand

_ADDRESSES = 12
_IPV4_BYTES, _IPV6_BYTES = 20, 40
_HEADER_BYTES = {checksum.TCP: 20, checksum.UDP: 8}
_LARGEST_PACKET = 0xFFFF
_PROTOCOLS = {
    ixgbe_vf.TUCMD_L4T_TCP: checksum.TCP,
    ixgbe_vf.TUCMD_L4T_UDP: checksum.UDP,
    ixgbe_vf.TUCMD_L4T_SCTP: checksum.SCTP,
}
_FIN, _PSH, _CWR = 0x01, 0x08, 0x80


@dataclass(frozen=True)
class Context:
    """What a context descriptor says of the frames after it; lengths are in bytes."""

    mac: int = 14
    network: int = 20
    transport: int = 20
    segment: int = 0
    protocol: int = 0
    ipv4: bool = True
    vlan: int = 0

    @classmethod
    def of(cls, first: int, kind: int, lengths: int) -> Context:
        """From a descriptor's first 64 bits and the two words after them."""
        l4 = kind & ixgbe_vf.TUCMD_L4T_MASK
        return cls(
            mac=first >> 9 & 0x7F,
            network=first & 0x1FF,
            transport=lengths >> 8 & 0xFF,
            segment=lengths >> 16,
            protocol=_PROTOCOLS.get(l4, 0),
            ipv4=bool(kind & ixgbe_vf.TUCMD_IPV4),
            vlan=first >> 16 & 0xFFFF,
        )


def finished(data: bytes, command: int, options: int, context: Context) -> Iterator[bytearray]:
    """The frames that *data* becomes.  Raises ValueError where context and data do not fit."""
    transport_at = context.mac + context.network
    if not (command & TxCommand.TSE or options & (POPTS_IXSM | POPTS_TXSM)):
        yield bytearray(data)  # a VLAN tag alone is wanted: no length but the MAC's is said then
        return
    if transport_at >= len(data) or context.network < _IPV4_BYTES:
        raise ValueError("the headers are longer than the frame, or not there")
    if command & TxCommand.TSE:
        yield from _segments(data, options, context)
        return
    frame = bytearray(data)
    _put_checksums(frame, options, context)
    yield frame


def tagged(frame: bytearray, tag: int) -> bytearray:
    """The frame with a VLAN tag after its addresses."""
    return frame[:_ADDRESSES] + VLAN_TYPE + tag.to_bytes(2, "big") + frame[_ADDRESSES:]


def _put_checksums(frame: bytearray, options: int, context: Context, more: int = 0) -> None:
    """Put in those that are asked for; *more* is what the transport's sum does not count yet."""
    transport_at = context.mac + context.network
    if options & POPTS_IXSM and context.ipv4:
        checksum.put_network(frame, context.mac, context.network)
    if options & POPTS_TXSM and context.protocol:
        if transport_at + checksum.CHECKSUM_AT[context.protocol].stop > len(frame):
            raise ValueError("the transport's header is cut short")
        checksum.put_transport(frame, transport_at, context.protocol, more)


def _segments(data: bytes, options: int, context: Context) -> Iterator[bytearray]:
    """Segments of *context.segment* bytes each, headers as RFC 9293 and RFC 768 want them."""
    transport_at = context.mac + context.network
    head_bytes = transport_at + context.transport
    payload = data[head_bytes:]
    if not (payload and context.segment) or context.protocol not in _HEADER_BYTES:
        raise ValueError("there is nothing to segment")
    if context.transport < _HEADER_BYTES[context.protocol] or not (
        context.ipv4 or context.network >= _IPV6_BYTES
    ):
        raise ValueError("the headers are too short")
    if min(len(payload), context.segment) + head_bytes - context.mac > _LARGEST_PACKET:
        raise ValueError("a segment is longer than IP can say")
    for begin in range(0, len(payload), context.segment):
        part = payload[begin : begin + context.segment]
        frame = bytearray(data[:head_bytes]) + part
        _set_network(frame, context, begin // context.segment)
        if context.protocol == checksum.TCP:
            _set_tcp(frame, transport_at, begin, is_last=begin + len(part) == len(payload))
        else:
            length = len(frame) - transport_at
            frame[transport_at + 4 : transport_at + 6] = length.to_bytes(2, "big")
        _put_checksums(frame, options, context, more=len(frame) - transport_at)
        yield frame


def _set_network(frame: bytearray, context: Context, index: int) -> None:
    """Length and identification of segment *index*, in the outer IP header if there are two."""
    at = context.mac
    if context.ipv4:
        frame[at + 2 : at + 4] = (len(frame) - at).to_bytes(2, "big")
        identification = int.from_bytes(frame[at + 4 : at + 6], "big") + index & 0xFFFF
        frame[at + 4 : at + 6] = identification.to_bytes(2, "big")
    else:
        frame[at + 4 : at + 6] = (len(frame) - at - _IPV6_BYTES).to_bytes(2, "big")


def _set_tcp(frame: bytearray, at: int, begin: int, *, is_last: bool) -> None:
    """Sequence number and flags of the segment whose data is *begin* bytes into the packet's."""
    sequence = int.from_bytes(frame[at + 4 : at + 8], "big") + begin & 0xFFFFFFFF
    frame[at + 4 : at + 8] = sequence.to_bytes(4, "big")
    if begin:
        frame[at + 13] &= ~_CWR & 0xFF
    if not is_last:
        frame[at + 13] &= ~(_FIN | _PSH) & 0xFF
