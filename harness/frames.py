"""Numbered frames as scapy sees them: templates to send, captures to check against.

The only module that imports scapy.  It never moves frames: scapy's own send and sniff lose
packets at a thousand a second, which would be blamed on the NIC.
"""

from __future__ import annotations

import base64
import ipaddress
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from scapy.error import Scapy_Exception
from scapy.layers.inet import ICMP, IP, UDP
from scapy.layers.l2 import Dot1Q, Ether
from scapy.packet import Packet, Raw
from scapy.utils import RawPcapReader

from harness.agent import payload
from harness.errors import UsageError

SMALLEST_FRAME_BYTES = 60  # Ethernet's smallest, without its checksum: nothing is ever padded
LARGEST_FRAME_BYTES = payload.LARGEST_FRAME_BYTES
LARGEST_FLOW = 0xFFFF

_ETHERNET = 1  # LINKTYPE_ETHERNET of pcap and pcapng
_MAC = re.compile(r"([0-9a-f]{2}:){5}[0-9a-f]{2}", re.IGNORECASE)


def echo_template(
    *,
    source_mac: str,
    destination_mac: str,
    source: str,
    destination: str,
    frame_bytes: int,
    flow: int,
    vlan: int | None = None,
) -> dict[str, Any]:
    """Make the template of an ICMP echo request: the far kernel sends it back as a reply.

    *source* and *destination* are IPv4 addresses.  Raises UsageError as `template` does.
    """
    headers = _headers(source_mac, destination_mac, source, destination, vlan)
    return template(headers / ICMP(type="echo-request", id=flow), frame_bytes, flow)


def datagram_template(
    *,
    source_mac: str,
    destination_mac: str,
    source: str,
    destination: str,
    port: int,
    frame_bytes: int,
    flow: int,
    vlan: int | None = None,
) -> dict[str, Any]:
    """Make the template of a UDP datagram from *port* to *port*; raises UsageError as above."""
    headers = _headers(source_mac, destination_mac, source, destination, vlan)
    return template(headers / UDP(sport=port, dport=port), frame_bytes, flow)


def template(headers: Packet, frame_bytes: int, flow: int) -> dict[str, Any]:
    """Make a template of any stack of headers that ends in an ICMP echo or in UDP, over IPv4.

    The result is the spec of ``payload.Template``.  *frame_bytes* is the whole Ethernet frame
    without its checksum.  UDP goes without a checksum of its own (RFC 768 allows 0), so that
    what a NIC makes of one cannot hide a damaged payload.

    Raises UsageError if the size is not 60 to 9728 bytes or too small for the headers, if the flow
    is not 0 to 65535, or if the stack ends in something else.
    """
    if not SMALLEST_FRAME_BYTES <= frame_bytes <= LARGEST_FRAME_BYTES:
        raise UsageError(
            f"frames of {frame_bytes} bytes cannot be sent",
            because=f"an 82599 takes {SMALLEST_FRAME_BYTES} to {LARGEST_FRAME_BYTES} bytes, "
            "checksum not counted",
            fix="choose a frame size in that range; a 9000-byte MTU gives 9014",
        )
    if not 0 <= flow <= LARGEST_FLOW:
        raise UsageError(
            f"flow {flow} cannot be sent",
            because="frames carry the flow's number in 16 bits",
            fix=f"number flows from 0 to {LARGEST_FLOW}",
        )
    stack = _without_udp_checksums(headers)
    payload_at = len(stack)
    room = frame_bytes - payload_at
    if room < payload.HEADER_BYTES:
        raise UsageError(
            f"frames of {frame_bytes} bytes are too small for {headers.summary()}",
            because=f"its headers take {payload_at} bytes, ours {payload.HEADER_BYTES} more",
            fix=f"send frames of {payload_at + payload.HEADER_BYTES} bytes or more",
        )
    frame = bytes(stack / Raw(bytes(room)))
    _require_readable(headers, frame, payload_at)
    return {
        "flow": flow,
        "frame": base64.b64encode(frame).decode(),
        "payload_at": payload_at,
        "checksum_at": payload_at - 6 if isinstance(stack.lastlayer(), ICMP) else None,
    }


def _headers(
    source_mac: str, destination_mac: str, source: str, destination: str, vlan: int | None
) -> Packet:
    for mac in (source_mac, destination_mac):
        if not _MAC.fullmatch(mac):
            raise UsageError(
                f"{mac!r} is not a MAC address",
                because="a frame needs one at each end",
                fix="write it as 52:54:00:12:34:56",
            )
    for address in (source, destination):
        try:
            ipaddress.IPv4Address(address)  # scapy would ask DNS for what is none
        except ValueError as error:
            raise UsageError(
                f"{address!r} is not an IPv4 address",
                because=str(error),
                fix="write it as 198.18.0.1, without a prefix length",
            ) from error
    ethernet = Ether(src=source_mac, dst=destination_mac)
    if vlan is not None:
        ethernet /= Dot1Q(vlan=vlan)
    return ethernet / IP(src=source, dst=destination)


def _without_udp_checksums(headers: Packet) -> Packet:
    stack = headers.copy()
    for number in range(1, len(stack.layers()) + 1):
        layer = stack.getlayer(UDP, number)
        if layer is not None:
            layer.chksum = 0
    return stack


def _require_readable(headers: Packet, frame: bytes, payload_at: int) -> None:
    """Raise UsageError unless the payload is found in the innermost Ethernet frame."""
    ethernet = headers.getlayer(Ether, headers.layers().count(Ether))
    inner_at = payload_at - len(ethernet) if ethernet is not None else 0
    place = payload.locate(frame[inner_at:], len(frame) - inner_at)
    if place is None or place.payload_at != payload_at - inner_at:
        raise UsageError(
            f"no receiver would find the payload of {headers.summary()}",
            because="it looks behind Ethernet, VLAN tags, IPv4 and either ICMP echo or UDP",
            fix="end the stack of headers so",
        )


@dataclass(frozen=True, slots=True)
class Captured:
    """One numbered frame in a capture."""

    time_ns: int  # when, by the clock of whoever captured; since 1970
    source_mac: str
    destination_mac: str
    kind: str  # echo-request, echo-reply or datagram
    flow: int
    sequence: int  # payload.NO_SEQUENCE if the header is damaged
    sent_ns: int  # since the flow's start, in the sender's clock
    flags: int  # payload.CORRUPTED and so on
    wrong_at: int | None  # first wrong byte of the frame, from 0
    frame_bytes: int  # on the wire

    @property
    def ok(self) -> bool:
        return self.flags == 0


def read_capture(path: Path) -> list[Captured]:
    """Read the numbered frames of a pcap or pcapng file, in its order; others are left out.

    Frames that the capture cut short are checked as far as they go.  Raises UsageError if the file
    is no capture of Ethernet frames or cut even our header off.
    """
    try:
        with path.open("rb") as opened:  # scapy leaves open what turns out to be no capture
            file: Any = opened  # it takes files too, though its annotation says str
            readers: dict[int, payload.Reader] = {}
            with RawPcapReader(file) as reader:
                rows = (_captured(reader, frame, meta, readers, path) for frame, meta in reader)
                return [row for row in rows if row is not None]
    except (OSError, Scapy_Exception) as error:
        raise UsageError(
            f"{path}: cannot be read as a capture",
            because=str(error),
            fix="name a pcap or pcapng file",
        ) from error


def _captured(
    reader: RawPcapReader, frame: bytes, meta: Any, readers: dict[int, payload.Reader], path: Path
) -> Captured | None:
    in_pcapng = hasattr(meta, "tshigh")
    if (meta.linktype if in_pcapng else reader.linktype) != _ETHERNET:
        raise UsageError(
            f"{path}: holds no Ethernet frames",
            because="it was captured on an interface of another kind, or on `any`",
            fix="capture on the Ethernet interface itself",
        )
    place = payload.locate(frame, len(frame))
    flow = payload.peek(frame, place) if place else None
    if place is None or flow is None:
        return None
    cut = len(frame) < meta.wirelen
    if cut and place.end - place.payload_at < payload.HEADER_BYTES:
        raise UsageError(
            f"{path}: the capture kept only {len(frame)} bytes of each frame",
            because=f"our header ends at byte {place.payload_at + payload.HEADER_BYTES}",
            fix="capture with a larger snapshot length (tcpdump -s)",
        )
    if flow not in readers:
        readers[flow] = payload.Reader(flow)
    reading = readers[flow].read(frame, place)
    flags = reading.flags & ~payload.SHORT if cut else reading.flags
    if in_pcapng:
        time_ns = (meta.tshigh << 32 | meta.tslow) * 1_000_000_000 // meta.tsresol
    else:
        time_ns = meta.sec * 1_000_000_000 + meta.usec * (1 if reader.nano else 1000)
    return Captured(
        time_ns=time_ns,
        source_mac=frame[6:12].hex(":"),
        destination_mac=frame[:6].hex(":"),
        kind=place.kind,
        flow=flow,
        sequence=reading.sequence,
        sent_ns=reading.sent_ns,
        flags=flags,
        wrong_at=reading.wrong_at if flags else None,
        frame_bytes=meta.wirelen,
    )
