"""What the device does to a frame on its way out, against what scapy makes of the same frame."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scapy.layers.inet import IP, TCP, UDP, IPOption_NOP
from scapy.layers.inet6 import IPv6
from scapy.layers.l2 import Dot1Q, Ether
from scapy.layers.sctp import SCTP, SCTPChunkData
from scapy.layers.vxlan import VXLAN
from scapy.packet import Packet
from scapy.utils import checksum as scapy_checksum
from vf_driver import Guest, guest_with_vf
from vf_rings import MAC, PEER, frame_of

from harness.twin import offload
from harness.twin.offload import Context
from harness.uapi.ixgbe_vf import (
    POPTS_IXSM,
    POPTS_TXSM,
    TUCMD_IPV4,
    TUCMD_L4T_SCTP,
    TUCMD_L4T_TCP,
    TUCMD_L4T_UDP,
    TX_CONTEXT_SHIFT,
    Message,
    TxCommand,
)

BOTH = POPTS_IXSM | POPTS_TXSM
TSE = TxCommand.RS | TxCommand.TSE
FROM_VF = Ether(src=MAC.hex(":"), dst=PEER.hex(":"))
V4 = IP(src="192.0.2.1", dst="192.0.2.2", id=0xFFFE)
V6 = IPv6(src="2001:db8::1", dst="2001:db8::2")


@pytest.fixture
def guest(tmp_path: Path) -> Iterator[Guest]:
    with guest_with_vf(tmp_path / "dma.log") as guest:
        guest.start()
        yield guest


KINDS = {TCP: TUCMD_L4T_TCP, UDP: TUCMD_L4T_UDP, SCTP: TUCMD_L4T_SCTP}


def context_of(packet: Packet, **other: int) -> dict[str, Any]:
    """What ixgbevf_tx_csum and ixgbevf_tso say of the last IP and transport in *packet*."""
    *_, network = (each for each in packet.iterpayloads() if isinstance(each, (IP, IPv6)))
    kind, transport = next((kind, network[each]) for each, kind in KINDS.items() if each in network)
    return {
        "mac": len(packet) - len(network),
        "network": len(network) - len(transport),
        "transport": len(transport) - len(transport.payload),
        "kind": kind | (TUCMD_IPV4 if isinstance(network, IP) else 0),
        **other,
    }


def left_open(packet: Packet, context: dict[str, Any]) -> bytes:
    """The frame as a driver has it: no IP checksum, and of the transport's the pseudo header's.

    Where segments are made, the length of the whole is no part of that.  Ref: Linux,
    Documentation/networking/checksum-offloads.rst, and ixgbevf_tso.
    """
    whole = bytearray(bytes(packet))
    network_at, transport_at = context["mac"], context["mac"] + context["network"]
    number = 6 if context["kind"] & TUCMD_L4T_TCP else 17
    if context["kind"] & TUCMD_IPV4:
        addresses = whole[network_at + 12 : network_at + 20]
        whole[network_at + 10 : network_at + 12] = bytes(2)
    else:
        addresses = whole[network_at + 8 : network_at + 40]
    if context["kind"] & TUCMD_L4T_SCTP:
        whole[transport_at + 8 : transport_at + 12] = bytes(4)
        return bytes(whole)
    length = 0 if context.get("segment") else len(whole) - transport_at
    pseudo = scapy_checksum(
        bytes(addresses) + number.to_bytes(4, "big") + length.to_bytes(4, "big")
    )
    place = transport_at + (16 if number == 6 else 6)
    whole[place : place + 2] = (~pseudo & 0xFFFF).to_bytes(2, "big")
    return bytes(whole)


def send(guest: Guest, data: bytes, context: dict[str, Any], **how: int) -> list[bytes]:
    """What leaves when that is sent."""
    already = len(guest.sent)
    guest.tx[0].put_context(**context)
    guest.tx[0].send(data[:50], data[50:], **how)
    return guest.sent[already:]


# --- checksums ------------------------------------------------------------------------------

PACKETS: dict[str, Packet] = {
    "TCP": FROM_VF / V4 / TCP() / b"some data",
    "UDP": FROM_VF / V4 / UDP() / b"data of odd length",
    "TCP over IPv6": FROM_VF / V6 / TCP() / b"some data",
    "UDP over IPv6": FROM_VF / V6 / UDP() / b"data of odd length",
    "options": FROM_VF / IP(dst="192.0.2.2", options=8 * [IPOption_NOP()]) / TCP() / b"some data",
    "TCP options": FROM_VF / V4 / TCP(options=[("MSS", 1460)]) / b"some data",
    "tagged": FROM_VF / Dot1Q(vlan=0) / V4 / TCP() / b"some data",
    "tunnelled": FROM_VF / V4 / UDP(chksum=0) / VXLAN() / FROM_VF / V4 / TCP() / b"some data",
    "SCTP": FROM_VF / V4 / SCTP(sport=7, dport=9, tag=1) / SCTPChunkData(data=b"some data of it"),
    "jumbo": FROM_VF / V4 / UDP() / bytes(range(250)) / (35 * bytes(range(250))),
}  # fmt: skip


@pytest.mark.parametrize("name", PACKETS)
def test_checksums_are_put_in_as_scapy_computes_them(guest: Guest, name: str) -> None:
    packet = PACKETS[name]
    context = context_of(packet)
    data = left_open(packet, context)
    assert data != bytes(packet)
    assert send(guest, data, context, options=BOTH) == [bytes(packet).ljust(60, b"\0")]


@pytest.mark.parametrize("wanted", [0, POPTS_IXSM, POPTS_TXSM])
def test_only_those_checksums_are_put_in_that_are_asked_for(guest: Guest, wanted: int) -> None:
    """A router's checksum must stay as it came, right or wrong."""
    packet = PACKETS["TCP"]
    whole, context = bytes(packet), context_of(packet)
    expected = bytearray(data := left_open(packet, context))
    if wanted == POPTS_IXSM:
        expected[24:26] = whole[24:26]
    if wanted == POPTS_TXSM:
        expected[50:52] = whole[50:52]
    assert send(guest, data, context, options=wanted) == [expected.ljust(60, b"\0")]


@given(seed=st.integers(0, 0xFFFF), transport=st.sampled_from([TCP, UDP]))
def test_a_sum_begins_with_what_the_driver_left(seed: int, transport: type[Packet]) -> None:
    """By which ixgbevf_tso takes a tunnel's headers out again ("cancel out any data")."""
    packet = FROM_VF / V4 / transport() / b"some data"
    said = context_of(packet)
    place = 50 if transport is TCP else 40
    context = Context.of(said["network"] | said["mac"] << 9, said["kind"], 0)
    data = bytearray(bytes(packet))
    data[24:26] = data[place : place + 2] = seed.to_bytes(2, "big")
    (frame,) = offload.finished(bytes(data), 0, BOTH, context)
    for sum_, over in ((frame[24:26], data[14:34]), (frame[place : place + 2], data[34:])):
        assert int.from_bytes(sum_, "big") in {scapy_checksum(bytes(over)), 0xFFFF}
        assert scapy_checksum(bytes(over)) in {int.from_bytes(sum_, "big"), 0}


def test_a_context_is_for_all_frames_after_it(guest: Guest) -> None:
    """Nor is it for those that ask for nothing; the driver writes one for each change."""
    packet = PACKETS["UDP"]
    data = left_open(packet, context_of(packet))
    send(guest, data, context_of(packet), options=BOTH)
    guest.tx[0].send(data)
    guest.tx[0].send(data, options=BOTH)
    assert guest.sent == [bytes(packet), data, bytes(packet)]


def test_a_queue_keeps_two_contexts_and_a_frame_says_which(guest: Guest) -> None:
    """The queue has both until they are written anew: DPDK writes each once for many frames."""
    packets = [PACKETS["UDP"], PACKETS["TCP"]]
    contexts = [context_of(packet) for packet in packets]
    for index, context in enumerate(contexts):
        guest.tx[0].put_context(**context, index=index)
    for index in (0, 1, 0):
        data = left_open(packets[index], contexts[index])
        guest.tx[0].send(data, options=BOTH | index << TX_CONTEXT_SHIFT)
    assert guest.sent == [bytes(packets[index]).ljust(60, b"\0") for index in (0, 1, 0)]


def test_a_udp_checksum_of_0_is_sent_as_all_ones(guest: Guest) -> None:
    """RFC 768: 0 says that there is none, and over IPv6 such a datagram is dropped."""
    before = Ether(bytes(FROM_VF / V4 / UDP() / b"\0\0 some data"))[UDP].chksum
    packet = FROM_VF / V4 / UDP() / (before.to_bytes(2, "big") + b" some data")
    context = context_of(packet)
    (sent,) = send(guest, left_open(packet, context), context, options=BOTH)
    assert sent[40:42] == b"\xff\xff"


@given(
    packet=st.sampled_from([V4 / TCP(), V4 / UDP(), V6 / TCP(), V6 / UDP()]),
    payload=st.binary(min_size=8, max_size=100),
)
def test_any_checksum_is_scapys(packet: Packet, payload: bytes) -> None:
    whole = FROM_VF / packet / payload
    said = context_of(whole)
    kind = int(said.pop("kind"))
    context = Context.of(said["network"] | said["mac"] << 9, kind, 0)
    data = left_open(whole, {**said, "kind": kind})
    assert list(offload.finished(data, 0, BOTH, context)) == [bytes(whole)]


# --- segments -------------------------------------------------------------------------------


def tcp(network: Packet = V4, flags: str = "PAFC", payload: int = 3500, **other: Any) -> Packet:
    numbers = bytes((at * 7) % 251 for at in range(payload))
    return FROM_VF / network / TCP(seq=0xFFFFFF00, flags=flags, **other) / numbers


def segments(guest: Guest, packet: Packet, size: int, **other: int) -> list[Packet]:
    """What leaves of *packet* when it is cut by *size*; lengths and sums are left open for it."""
    context = context_of(packet, segment=size, **other)
    sent = send(guest, left_open(packet, context), context, command=TSE, options=BOTH)
    return [Ether(frame) for frame in sent]


def again(packet: Packet) -> bytes:
    """The frame as scapy makes it of the same fields, its lengths and checksums anew."""
    copy = packet.copy()
    for layer, names in (
        (IP, ("len", "chksum")), (IPv6, ("plen",)), (TCP, ("chksum",)), (UDP, ("len", "chksum")),
    ):  # fmt: skip
        for name in names:
            if layer in copy:
                delattr(copy[layer], name)
    return bytes(copy)


@pytest.mark.parametrize("network", [V4, V6], ids=["IPv4", "IPv6"])
def test_a_tcp_packet_becomes_segments(guest: Guest, network: Packet) -> None:
    """Numbers wrap; scapy finds nothing to mend in any of them, and together they are the whole."""
    packet = tcp(network, options=[("Timestamp", (1, 2))])
    found = segments(guest, packet, 1000)
    assert [len(each[TCP].payload) for each in found] == [1000, 1000, 1000, 500]
    assert b"".join(bytes(each[TCP].payload) for each in found) == bytes(packet[TCP].payload)
    assert [each[TCP].seq for each in found] == [0xFFFFFF00, 744, 1744, 2744]
    assert [bytes(each) for each in found] == [again(each) for each in found]
    if network is V4:
        assert [each[IP].id for each in found] == [0xFFFE, 0xFFFF, 0, 1]


def test_flags_are_those_of_their_place(guest: Guest) -> None:
    """DTXTCPFLGL and DTXTCPFLGH: FIN and PSH with the last segment, CWR with the first (RFC 3168).

    PSH in each wakes the receiver for each; FIN in the first ends the connection there.
    """
    found = segments(guest, tcp(flags="PAFCE"), 1000)
    assert [str(each[TCP].flags) for each in found] == ["AEC", "AE", "AE", "FPAE"]


@pytest.mark.parametrize(
    ("payload", "sizes"), [(999, [999]), (1000, [1000]), (1010, [1000, 10]), (2000, [1000, 1000])]
)
def test_a_packet_is_cut_where_it_has_to_be(guest: Guest, payload: int, sizes: list[int]) -> None:
    """A segment of nothing at the end would be a keep-alive; one alone keeps all flags."""
    found = segments(guest, tcp(payload=payload), 1000)
    assert [len(each[TCP].payload) for each in found] == sizes
    assert "F" in found[-1][TCP].flags
    assert "C" in found[0][TCP].flags


def test_each_segment_has_its_tag(guest: Guest) -> None:
    guest.ask(1 << 16 | Message.SET_VLAN, 7)
    context = context_of(tcp(), segment=1000, vlan=7)
    data = left_open(tcp(), context)
    command = TSE | TxCommand.VLE
    found = [Ether(each) for each in send(guest, data, context, command=command, options=BOTH)]
    assert [each[Dot1Q].vlan for each in found] == [7] * 4
    assert [bytes(each) for each in found] == [again(each) for each in found]


@pytest.mark.parametrize("network", [V4, V6], ids=["IPv4", "IPv6"])
def test_a_udp_packet_becomes_datagrams(guest: Guest, network: Packet) -> None:
    """NETIF_F_GSO_UDP_L4, which ixgbe has and ixgbevf has not: one transmitter serves both."""
    packet = FROM_VF / network / UDP(sport=7, dport=9) / bytes(range(250)) / bytes(2250)
    found = segments(guest, packet, 1000)
    assert [len(each[UDP].payload) for each in found] == [1000, 1000, 500]
    assert [each[UDP].len for each in found] == [1008, 1008, 508]
    assert [bytes(each) for each in found] == [again(each) for each in found]


@pytest.mark.parametrize("wanted", [0, POPTS_IXSM, POPTS_TXSM])
def test_segments_have_those_checksums_that_are_asked_for(guest: Guest, wanted: int) -> None:
    """DPDK asks for IP's by a flag of its own; what nobody asks for stays as the driver left it."""
    context = context_of(tcp(), segment=1000)
    data = left_open(tcp(), context)
    for sent in send(guest, data, context, command=TSE, options=wanted):
        right = again(Ether(sent))
        for place, put in ((slice(24, 26), POPTS_IXSM), (slice(50, 52), POPTS_TXSM)):
            assert sent[place] == (right if wanted & put else data)[place]


def test_counters_are_of_segments(guest: Guest) -> None:
    """Bytes as they left, headers in each."""
    segments(guest, tcp(), 1000)
    assert guest.device.statistics.sent == 4
    assert guest.device.statistics.sent_bytes == 3500 + 4 * (54 + 4)


# --- contexts that do not fit ---------------------------------------------------------------

ODD: dict[str, tuple[dict[str, int], int, int]] = {
    "headers longer than the frame": ({"mac": 127, "network": 511}, 0, POPTS_IXSM),
    "no IP header": ({"network": 0}, 0, BOTH),
    "an IP header too short": ({"network": 19}, 0, BOTH),
    "a transport cut short": ({"network": 70}, 0, BOTH),
    "no segment size": ({"segment": 0}, TxCommand.TSE, BOTH),
    "nothing behind the headers": ({"transport": 66}, TxCommand.TSE, BOTH),
    "a UDP header too short": (
        {"kind": TUCMD_IPV4 | TUCMD_L4T_UDP, "transport": 7},
        TxCommand.TSE,
        BOTH,
    ),
    "segments of SCTP": ({"kind": TUCMD_IPV4 | TUCMD_L4T_SCTP}, TxCommand.TSE, BOTH),
    "a TCP header too short": ({"transport": 19}, TxCommand.TSE, BOTH),
    "an IPv6 header too short": ({"kind": TUCMD_L4T_TCP, "network": 39}, TxCommand.TSE, BOTH),
}


@pytest.mark.parametrize("name", ODD)
def test_a_context_that_does_not_fit_costs_its_frame_alone(guest: Guest, name: str) -> None:
    """No driver writes one; whatever a guest does must not end the twin, or stop the ring."""
    changed, command, options = ODD[name]
    kind = TUCMD_IPV4 | TUCMD_L4T_TCP
    context = {"mac": 14, "network": 20, "transport": 20, "segment": 10, "kind": kind, **changed}
    data = frame_of(100, head=PEER + MAC)
    assert send(guest, data, context, command=TxCommand.RS | command, options=options) == []
    assert guest.device.statistics.malformed == 1
    guest.tx[0].send(data)
    assert (guest.sent, guest.tx[0].done()) == ([data], [2, 3])


def test_a_segment_that_ip_cannot_say_the_length_of_costs_its_packet_alone(guest: Guest) -> None:
    """IP's length has 16 bits; the device's own limit is in `transmit`, and smaller."""
    data = frame_of(65000, head=PEER + MAC)
    context = {"transport": 20, "segment": 0xFFFF, "kind": TUCMD_IPV4 | TUCMD_L4T_TCP}
    guest.tx[0].put_context(**context)
    guest.tx[0].send(data, data, command=TSE, options=BOTH)
    assert (guest.sent, guest.device.statistics.malformed) == ([], 1)


def test_a_checksum_of_another_protocol_is_left_alone(guest: Guest) -> None:
    """IP's is put in all the same."""
    kind = TUCMD_IPV4 | 3 << 11
    packet = PACKETS["TCP"]
    expected = bytearray(data := left_open(packet, context_of(packet)))
    expected[24:26] = bytes(packet)[24:26]
    sent = send(guest, data, context_of(packet, kind=kind), options=BOTH)
    assert sent == [expected.ljust(60, b"\0")]
