"""Templates that scapy makes, and captures that it reads."""

from __future__ import annotations

import base64
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from scapy.layers.inet import ICMP, IP, TCP, UDP
from scapy.layers.inet6 import IPv6
from scapy.layers.l2 import Dot1Q, Ether
from scapy.layers.vxlan import VXLAN
from scapy.packet import Packet
from scapy.utils import PcapNgWriter, PcapWriter

from harness import frames
from harness.agent import payload
from harness.errors import UsageError

ADDRESSES: dict[str, Any] = {
    "source_mac": "02:00:00:00:00:01",
    "destination_mac": "02:00:00:00:00:02",
    "source": "198.18.0.1",
    "destination": "198.18.0.2",
}


def echo(frame_bytes: int = 64, flow: int = 7, **other: Any) -> dict[str, Any]:
    return frames.echo_template(**{**ADDRESSES, **other}, frame_bytes=frame_bytes, flow=flow)


def datagram(frame_bytes: int = 64, flow: int = 7, **other: Any) -> dict[str, Any]:
    values = {**ADDRESSES, "port": 20_007, **other}
    return frames.datagram_template(**values, frame_bytes=frame_bytes, flow=flow)


def filled(spec: dict[str, Any], sequence: int = 3, time_ns: int = 99) -> bytes:
    template = payload.Template(spec)
    frame = template.blank()
    template.fill(frame, sequence, time_ns)
    return bytes(frame)


def inner() -> Packet:
    return Ether() / IP() / UDP(sport=1, dport=2)


@pytest.mark.parametrize("frame_bytes", [60, 61, 64, 1514, 9014, 9727, 9728])
def test_scapy_finds_nothing_to_mend_in_a_filled_frame(frame_bytes: int) -> None:
    """Lengths and checksums that scapy works out by itself are those that we patched in."""
    for spec in (echo(frame_bytes), datagram(frame_bytes)):
        frame = filled(spec)
        again = Ether(frame)
        for layer in (IP, ICMP):
            if layer in again:
                del again[layer].chksum
        del again[IP].len
        if UDP in again:
            assert again[UDP].chksum == 0
            del again[UDP].len

        assert bytes(again) == frame
        assert len(frame) == frame_bytes


def test_a_round_trip_goes_out_as_a_request() -> None:
    place = payload.locate(filled(echo()), 64)

    assert place is not None
    assert place.kind == "echo-request"


@pytest.mark.parametrize(
    "headers",
    [
        pytest.param(Ether() / Dot1Q(vlan=2) / Dot1Q(vlan=3) / IP() / ICMP(), id="two tags"),
        pytest.param(Ether() / IP(options=b"\x01" * 4) / UDP(), id="IPv4 options"),
        pytest.param(Ether() / IP() / UDP(dport=4789) / VXLAN() / inner(), id="VXLAN"),
    ],
)
def test_other_stacks_of_headers_carry_the_payload(headers: Packet) -> None:
    """What a receiver behind the tunnel gets is whole, and no checksum on the way is wrong."""
    frame = filled(frames.template(headers, 1000, flow=7))
    whole: Any = Ether(frame)

    ends = headers.layers().count(UDP) + 1
    innermost = bytes(whole[Ether : headers.layers().count(Ether)])
    place = payload.locate(innermost, len(innermost))

    assert {whole[UDP:number].chksum for number in range(1, ends)} <= {0}
    assert place is not None
    assert payload.Reader(7).read(innermost, place) == (3, 99, 0, None)


@pytest.mark.parametrize(
    ("make", "told"),
    [
        (lambda: echo(59), "frames of 59 bytes"),
        (lambda: echo(9729), "frames of 9729 bytes"),
        (lambda: echo(60, vlan=5), "too small"),
        (lambda: echo(flow=65_536), "flow 65536"),
        (lambda: echo(source_mac="02:00"), "'02:00' is not a MAC"),
        (lambda: echo(destination="guest"), "'guest' is not an IPv4"),
        (lambda: datagram(source="198.18.0.1/24"), "is not an IPv4"),
        (lambda: frames.template(Ether() / IP() / TCP(), 100, 7), "no receiver would find"),
        (lambda: frames.template(Ether() / IPv6() / UDP(), 100, 7), "no receiver would find"),
        (lambda: frames.template(Ether() / IP(), 100, 7), "no receiver would find"),
    ],
)
def test_what_cannot_be_sent_is_refused_before_anything_is(make: Any, told: str) -> None:
    """A wrong size would else be found by the NIC; a name would be asked of DNS."""
    with pytest.raises(UsageError, match=told):
        make()


@pytest.mark.parametrize(
    "writer",
    [
        pytest.param(PcapWriter, id="pcap"),
        pytest.param(partial(PcapWriter, nano=True), id="pcap in ns"),
        pytest.param(PcapNgWriter, id="pcapng"),
    ],
)
def test_a_capture_tells_each_numbered_frame(tmp_path: Path, writer: Any) -> None:
    """Order, number, direction and damage, in both formats; foreign frames are left out."""
    damaged = bytearray(filled(echo(1514), sequence=4))
    damaged[1000] ^= 1
    reply = Ether(filled(echo(), sequence=3))
    reply[ICMP].type = "echo-reply"
    reply.src, reply.dst = reply.dst, reply.src
    packets = [
        Ether(filled(echo(), sequence=3)),
        Ether() / IP() / TCP(),
        reply,
        Ether(bytes(damaged)),
        Ether(filled(datagram(9014, flow=8), sequence=0)),
    ]
    for number, packet in enumerate(packets):
        packet.time = 1_700_000_000 + number / 4
    path = tmp_path / "capture"
    with writer(str(path)) as capture:
        capture.write(packets)

    rows = frames.read_capture(path)

    seen = [(r.kind, r.flow, r.sequence, r.ok, r.wrong_at, r.frame_bytes) for r in rows]
    assert seen == [
        ("echo-request", 7, 3, True, None, 64),
        ("echo-reply", 7, 3, True, None, 64),
        ("echo-request", 7, 4, False, 1000, 1514),
        ("datagram", 8, 0, True, None, 9014),
    ]
    assert [row.time_ns - 1_700_000_000_000_000_000 for row in rows] == [
        0, 500_000_000, 750_000_000, 1_000_000_000
    ]  # fmt: skip
    assert (rows[1].source_mac, rows[0].source_mac) == ("02:00:00:00:00:02", "02:00:00:00:00:01")
    assert {row.sent_ns for row in rows} == {99}


def test_a_capture_with_short_snapshots_is_checked_as_far_as_it_goes(tmp_path: Path) -> None:
    """``tcpdump -s 96`` cuts every frame: that is no damage, and the size is the wire's."""
    path = tmp_path / "short.pcap"
    with PcapWriter(str(path), linktype=1) as capture:
        capture.write_header(None)
        capture.write_packet(filled(echo(9014))[:96], sec=1, usec=0, caplen=96, wirelen=9014)

    (row,) = frames.read_capture(path)

    assert (row.ok, row.wrong_at, row.frame_bytes) == (True, None, 9014)


@pytest.mark.parametrize(
    ("linktype", "kept", "told"), [(1, 50, "kept only 50 bytes"), (113, 64, "no Ethernet frames")]
)
def test_a_capture_that_cannot_be_used_is_refused(
    tmp_path: Path, linktype: int, kept: int, told: str
) -> None:
    """Left out one by one, such frames would look like frames that were lost."""
    path = tmp_path / "useless.pcap"
    with PcapWriter(str(path), linktype=linktype) as capture:
        capture.write_header(None)
        capture.write_packet(filled(echo())[:kept], sec=1, usec=0, caplen=kept, wirelen=64)

    with pytest.raises(UsageError, match=told):
        frames.read_capture(path)


@pytest.mark.parametrize("content", [b"", b"not a capture, whatever its name says", None])
def test_a_file_that_is_no_capture_is_refused(tmp_path: Path, content: bytes | None) -> None:
    path = tmp_path / "capture.pcap"
    if content is not None:
        path.write_bytes(content)

    with pytest.raises(UsageError, match="cannot be read as a capture"):
        frames.read_capture(path)


def test_a_tagged_frame_is_tagged() -> None:
    frame = filled(echo(64, vlan=5))

    assert (Ether(frame)[Dot1Q].vlan, len(frame)) == (5, 64)


def test_a_template_travels_as_json() -> None:
    spec = echo(100)

    assert base64.b64decode(spec["frame"]).startswith(bytes.fromhex("020000000002020000000001"))
    assert (spec["flow"], spec["payload_at"], spec["checksum_at"]) == (7, 42, 36)
    assert datagram()["checksum_at"] is None
