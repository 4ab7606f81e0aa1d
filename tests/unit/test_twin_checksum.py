"""The device's checksums against scapy's: those that it computes, and what it tells of others'."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from scapy.layers.inet import IP, TCP, UDP, IPOption_NOP
from scapy.layers.inet6 import IPv6
from scapy.layers.l2 import ARP, Dot1Q, Ether
from scapy.packet import Packet
from scapy.utils import checksum as scapy_checksum
from vf_driver import Guest, guest_with_vf
from vf_rings import MAC

from harness.twin import checksum
from harness.uapi.ixgbe_vf import Message, PacketType, QueueControl, RxStatus

TO_VF = Ether(src="02:00:00:00:00:02", dst=MAC.hex(":"))
V4, V6 = IP(src="192.0.2.1", dst="192.0.2.2"), IPv6(src="2001:db8::1", dst="2001:db8::2")
WHOLE = RxStatus.DD | RxStatus.EOP
GOOD_IP, BAD_IP = RxStatus.IPCS, RxStatus.IPCS | RxStatus.IPE
GOOD_L4, BAD_L4 = RxStatus.L4CS, RxStatus.L4CS | RxStatus.TCPE
V4_TCP, V4_UDP = PacketType.IPV4 | PacketType.TCP, PacketType.IPV4 | PacketType.UDP
V6_TCP, V6_UDP = PacketType.IPV6 | PacketType.TCP, PacketType.IPV6 | PacketType.UDP


@pytest.fixture
def guest(tmp_path: Path) -> Iterator[Guest]:
    with guest_with_vf(tmp_path / "dma.log") as guest:
        guest.start()
        yield guest


# --- the sum --------------------------------------------------------------------------------


@given(st.binary(max_size=100))
def test_a_checksum_is_scapys(data: bytes) -> None:
    """Ours is a remainder of one long number, scapy's a sum of words whose carries are added."""
    assert checksum.complement(checksum.total(data)) == scapy_checksum(data)


@given(st.lists(st.binary(max_size=20).filter(lambda part: len(part) % 2 == 0)))
def test_sums_of_parts_add_up(parts: list[bytes]) -> None:
    """A pseudo header and a segment are summed apart, and carry when they are added."""
    whole = sum(map(checksum.total, parts))
    assert checksum.complement(whole) == scapy_checksum(b"".join(parts))


def test_two_zeros_are_told_apart() -> None:
    """RFC 1071: only what is all 0 sums up to 0; anything else that is 0 is FFFF."""
    assert [checksum.total(data) for data in (b"", bytes(4), b"\xff\xff", b"\xff\xfe\0\1")] == [
        *(0, 0, 0xFFFF, 0xFFFF)
    ]
    assert [checksum.complement(value) for value in (0, 0xFFFF, 0x1FFFE)] == [0xFFFF, 0, 0]


# --- what is told of a frame from the wire --------------------------------------------------

FRAMES: dict[str, tuple[Packet, int, int]] = {
    "TCP": (V4 / TCP() / b"odd", GOOD_IP | GOOD_L4, V4_TCP),
    "TCP, wrong": (V4 / TCP(chksum=1) / b"odd", GOOD_IP | BAD_L4, V4_TCP),
    "UDP": (V4 / UDP() / b"data", GOOD_IP | GOOD_L4, V4_UDP),
    "UDP, wrong": (V4 / UDP(chksum=1) / b"data", GOOD_IP | BAD_L4, V4_UDP),
    "UDP, none": (V4 / UDP(chksum=0) / b"data", GOOD_IP | GOOD_L4, V4_UDP),
    "IP wrong": (IP(chksum=1) / TCP(), BAD_IP | GOOD_L4, V4_TCP),
    "IP options": (IP(options=4 * [IPOption_NOP()]) / TCP(), GOOD_IP | GOOD_L4, V4_TCP),
    "last fragment": (IP(frag=1) / TCP(), GOOD_IP, PacketType.IPV4),
    "first fragment": (IP(flags="MF") / UDP(), GOOD_IP, PacketType.IPV4),
    "not to be fragmented": (IP(flags="DF") / UDP(), GOOD_IP | GOOD_L4, V4_UDP),
    "another protocol": (IP(proto=47) / b"other", GOOD_IP, PacketType.IPV4),
    "TCP over IPv6": (V6 / TCP(), GOOD_L4, V6_TCP),
    "TCP over IPv6, wrong": (V6 / TCP(chksum=1), BAD_L4, V6_TCP),
    "UDP over IPv6": (V6 / UDP(), GOOD_L4, V6_UDP),
    "UDP over IPv6, wrong": (V6 / UDP(chksum=1), BAD_L4, V6_UDP),
    "nothing over IPv6": (IPv6(nh=59), 0, PacketType.IPV6),
    "ARP": (ARP(), 0, 0),
    "IP longer than its frame": (IP(len=1000) / TCP(), 0, 0),
    "IPv6 longer than its frame": (IPv6(plen=1000) / TCP(), 0, 0),
    "IP header too short": (IP(ihl=4) / TCP(), 0, 0),
    "TCP cut short": (IP(proto=6) / b"cut short", GOOD_IP | BAD_L4, V4_TCP),
    "UDP cut short": (IP(proto=17) / b"short", GOOD_IP | BAD_L4, V4_UDP),
}


@pytest.mark.parametrize("name", FRAMES)
def test_checksums_are_checked_and_protocols_are_named(guest: Guest, name: str) -> None:
    """A driver that reads "right" checks no more; of IPv6 there is no header's sum to be told.

    Padding behind the packet is no part of any sum.
    """
    packet, status, kind = FRAMES[name]
    guest.hear(bytes(TO_VF / packet).ljust(200, b"\xa5"))
    (got,) = guest.rx[0].took()
    assert got.status == WHOLE | status
    assert got.first_word & 0xFFF0 == kind


@pytest.mark.parametrize("name", ["UDP", "UDP, wrong", "TCP over IPv6", "TCP over IPv6, wrong"])
@pytest.mark.parametrize("strips", [False, True])
def test_a_tag_goes_into_the_descriptor_where_the_driver_wants_that(
    guest: Guest, name: str, strips: bool
) -> None:
    """ixgbevf_vlan_strip_enable; what is behind the tag is checked and named all the same."""
    packet, status, kind = FRAMES[name]
    guest.ask(1 << 16 | Message.SET_VLAN, 7)
    guest.rx[0].configure(QueueControl.ENABLE | (QueueControl.VME if strips else 0))
    guest.rx[0].give(4)
    tagged = bytes(TO_VF / Dot1Q(vlan=7, prio=3) / packet)
    guest.hear(tagged)
    (got,) = guest.rx[0].took()
    assert got.data == (tagged[:12] + tagged[16:] if strips else tagged)
    assert got.tag == (0x6007 if strips else 0)
    assert got.status == WHOLE | status | (RxStatus.VP if strips else 0)
    assert got.first_word & 0xFFF0 == kind


@given(
    packet=st.sampled_from([V4 / TCP(), V4 / UDP(), V6 / TCP(), V6 / UDP()]),
    payload=st.binary(min_size=1, max_size=40), bit=st.integers(0),
)  # fmt: skip
def test_a_bit_that_turned_over_is_found(packet: Packet, payload: bytes, bit: int) -> None:
    """What scapy computed is right, and nothing else is."""
    frame = bytearray(bytes(TO_VF / packet / payload))
    parsed = checksum.parse(frame)
    assert parsed is not None
    assert checksum.network_is_right(frame, parsed)
    assert checksum.transport_is_right(frame, parsed)
    at = parsed.transport_at + bit // 8 % (parsed.end - parsed.transport_at)
    frame[at] ^= 1 << bit % 8
    place = parsed.transport_at + 6
    assume(parsed.transport == checksum.TCP or any(frame[place : place + 2]))
    assert not checksum.transport_is_right(frame, parsed)


@given(bit=st.integers(0, 20 * 8 - 1))
def test_a_bit_that_turned_over_in_the_header_is_found(bit: int) -> None:
    """Of the first byte, too: a length of the header that is not its own takes in other bytes."""
    frame = bytearray(bytes(TO_VF / V4 / TCP() / b"payload"))
    frame[14 + bit // 8] ^= 1 << bit % 8
    parsed = checksum.parse(frame)
    assert parsed is None or not checksum.network_is_right(frame, parsed)
