"""What the device does to a frame on its way out: checksums, TCP segments, VLAN tags.

Ref: 82599 datasheet, transmit context descriptor; as Linux fills it in,
drivers/net/ethernet/intel/ixgbevf/ixgbevf_main.c, ixgbevf_tx_csum and ixgbevf_tso.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from harness.twin import checksum
from harness.uapi import ixgbe_vf
from harness.uapi.ixgbe_vf import POPTS_IXSM, POPTS_TXSM, TxCommand

VLAN_TYPE = b"\x81\x00"
_ADDRESSES = 12
_IPV4_BYTES, _IPV6_BYTES, _TCP_BYTES = 20, 40, 20
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
    network_at, transport_at = context.mac, context.mac + context.network
    if not (command & TxCommand.TSE or options & (POPTS_IXSM | POPTS_TXSM)):
        yield bytearray(data)  # a VLAN tag alone is wanted: no length but the MAC's is said then
        return
    if transport_at >= len(data) or context.network < _IPV4_BYTES:
        raise ValueError("the headers are longer than the frame, or not there")
    if command & TxCommand.TSE:
        yield from _segments(data, context)
        return
    frame = bytearray(data)
    if options & POPTS_IXSM and context.ipv4:
        checksum.put_network(frame, network_at, context.network)
    if options & POPTS_TXSM and context.protocol:
        if transport_at + checksum.CHECKSUM_AT[context.protocol].stop > len(data):
            raise ValueError("the transport's header is cut short")
        checksum.put_transport(frame, transport_at, context.protocol)
    yield frame


def tagged(frame: bytearray, tag: int) -> bytearray:
    """The frame with a VLAN tag after its addresses."""
    return frame[:_ADDRESSES] + VLAN_TYPE + tag.to_bytes(2, "big") + frame[_ADDRESSES:]


def _segments(data: bytes, context: Context) -> Iterator[bytearray]:
    """TCP segments of *context.segment* bytes each, headers as RFC 9293 wants them."""
    transport_at = context.mac + context.network
    head_bytes = transport_at + context.transport
    payload = data[head_bytes:]
    if not (payload and context.segment) or context.protocol != checksum.TCP:
        raise ValueError("there is nothing to segment")
    if context.transport < _TCP_BYTES or not (context.ipv4 or context.network >= _IPV6_BYTES):
        raise ValueError("the headers are too short")
    if min(len(payload), context.segment) + head_bytes - context.mac > _LARGEST_PACKET:
        raise ValueError("a segment is longer than IP can say")
    sequence = int.from_bytes(data[transport_at + 4 : transport_at + 8], "big")
    for begin in range(0, len(payload), context.segment):
        part = payload[begin : begin + context.segment]
        frame = bytearray(data[:head_bytes]) + part
        number = (sequence + begin) & 0xFFFFFFFF
        frame[transport_at + 4 : transport_at + 8] = number.to_bytes(4, "big")
        if begin:
            frame[transport_at + 13] &= ~_CWR & 0xFF
        if begin + len(part) < len(payload):
            frame[transport_at + 13] &= ~(_FIN | _PSH) & 0xFF
        _set_lengths(frame, context, begin // context.segment)
        yield frame


def _set_lengths(frame: bytearray, context: Context, index: int) -> None:
    """Lengths, identification and checksums of segment *index*."""
    at, transport_at = context.mac, context.mac + context.network
    if context.ipv4:
        frame[at + 2 : at + 4] = (len(frame) - at).to_bytes(2, "big")
        identification = int.from_bytes(frame[at + 4 : at + 6], "big") + index & 0xFFFF
        frame[at + 4 : at + 6] = identification.to_bytes(2, "big")
        checksum.put_network(frame, at, context.network)
    else:
        frame[at + 4 : at + 6] = (len(frame) - at - 40).to_bytes(2, "big")
    frame[transport_at + 16 : transport_at + 18] = b"\0\0"
    parsed = checksum.Parsed(4 if context.ipv4 else 6, at, transport_at, checksum.TCP, len(frame))
    pseudo = parsed.pseudo_header(frame, len(frame) - transport_at)
    value = checksum.complement(checksum.total(frame[transport_at:]) + pseudo)
    frame[transport_at + 16 : transport_at + 18] = value.to_bytes(2, "big")
