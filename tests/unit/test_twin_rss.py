"""Receive-side scaling: the hash of a flow against published ones, and the queue it leads to."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from ipaddress import ip_address
from pathlib import Path

import pytest
from scapy.layers.inet import IP, TCP, UDP
from scapy.layers.inet6 import IPv6
from scapy.layers.l2 import ARP, Dot1Q, Ether
from scapy.packet import Packet
from vf_driver import Guest, guest_with_vf
from vf_rings import MAC, Got

from harness.twin.rss import toeplitz
from harness.uapi.ixgbe_vf import Message, Register, RssType

TO_VF = Ether(src="02:00:00:00:00:02", dst=MAC.hex(":"))


@dataclass(frozen=True)
class Flow:
    """Two ends, and the hash of their addresses, and of those with their ports."""

    source: str
    source_port: int
    destination: str
    port: int
    of_addresses: int
    of_ports: int

    @property
    def is_ipv4(self) -> bool:
        return ip_address(self.source).version == 4

    @property
    def ip(self) -> Packet:
        return (IP if self.is_ipv4 else IPv6)(src=self.source, dst=self.destination)

    @property
    def tcp(self) -> Packet:
        return self.ip / TCP(sport=self.source_port, dport=self.port)

    @property
    def udp(self) -> Packet:
        return self.ip / UDP(sport=self.source_port, dport=self.port)


FLOWS = [
    Flow("66.9.149.187", 2794, "161.142.100.80", 1766, 0x323E8FC2, 0x51CCC178),
    Flow("199.92.111.2", 14230, "65.69.140.83", 4739, 0xD718262A, 0xC626B0EA),
    Flow("24.19.198.95", 12898, "12.22.207.184", 38024, 0xD2D0A5DE, 0x5C2B394A),
    Flow("38.27.205.30", 48228, "209.142.163.6", 2217, 0x82989176, 0xAFC7327F),
    Flow("153.39.163.191", 44251, "202.188.127.2", 1303, 0x5D1809C5, 0x10E828A2),
    Flow("3ffe:2501:200:1fff::7", 2794, "3ffe:2501:200:3::1", 1766, 0x2CC18CD5, 0x40207D3D),
    Flow("3ffe:501:8::260:97ff:fe40:efab", 14230, "ff02::1", 4739, 0x0F0C461C, 0xDDE51BBF),
    Flow("3ffe:1900:4545:3:200:f8ff:fe21:67cf", 44251, "fe80::200:f8ff:fe21:67cf", 38024,
         0x4B61E985, 0x02D1FEEF),
]  # fmt: skip
"""Microsoft, "Verifying the RSS hash calculation"; Intel's datasheets have the same table."""

each_flow = pytest.mark.parametrize("flow", FLOWS, ids=lambda flow: flow.source)


@pytest.fixture
def guest(tmp_path: Path) -> Iterator[Guest]:
    with guest_with_vf(tmp_path / "dma.log") as guest:
        guest.start(queues=2)
        yield guest


def heard(guest: Guest, *packets: Packet) -> list[list[Got]]:
    """The frames that each queue got of these."""
    guest.hear(*(bytes(TO_VF / packet) for packet in packets))
    found = [ring.took() for ring in guest.rx]
    for ring in guest.rx:
        ring.refill()
    return found


def said(guest: Guest, packet: Packet) -> tuple[int, int]:
    """The hash that the descriptor of a frame tells, and what it is of."""
    first, second = heard(guest, packet)
    (got,) = first + second
    return got.hash, got.first_word & 0xF


# --- the hash -------------------------------------------------------------------------------


@each_flow
def test_the_hash_is_the_published_one(flow: Flow) -> None:
    both = ip_address(flow.source).packed + ip_address(flow.destination).packed
    ports = flow.source_port.to_bytes(2, "big") + flow.port.to_bytes(2, "big")
    assert (toeplitz(both), toeplitz(both + ports)) == (flow.of_addresses, flow.of_ports)


@pytest.mark.parametrize("tagged", [False, True])
@each_flow
def test_a_descriptor_tells_the_hash_and_what_it_is_of(
    guest: Guest, flow: Flow, tagged: bool
) -> None:
    """Ports count for TCP alone, as the port's driver sets MRQC: ixgbe_setup_mrqc."""
    guest.ask(1 << 16 | Message.SET_VLAN, 7)
    of_tcp, of_ip = RssType.IPV6_TCP, RssType.IPV6
    if flow.is_ipv4:
        of_tcp, of_ip = RssType.IPV4_TCP, RssType.IPV4
    tcp, udp = (Dot1Q(vlan=7) / each if tagged else each for each in (flow.tcp, flow.udp))
    assert said(guest, tcp) == (flow.of_ports, of_tcp)
    assert said(guest, udp) == (flow.of_addresses, of_ip)


@pytest.mark.parametrize("fragment", [IP(flags="MF"), IP(frag=3)], ids=["first", "another"])
def test_a_fragment_is_hashed_by_its_addresses(guest: Guest, fragment: Packet) -> None:
    """Only the first has ports: with them the parts of a packet would go to different queues."""
    flow = FLOWS[0]
    packet = fragment / flow.tcp[TCP]
    packet.src, packet.dst = flow.source, flow.destination
    assert said(guest, packet) == (flow.of_addresses, RssType.IPV4)


@pytest.mark.parametrize("packet", [ARP(), IP(len=999) / TCP()], ids=["ARP", "no length"])
def test_what_is_not_ip_has_no_hash_and_goes_to_the_first_queue(
    guest: Guest, packet: Packet
) -> None:
    first, second = heard(guest, packet)
    assert [(got.hash, got.first_word & 0xF) for got in first] == [(0, RssType.NONE)]
    assert second == []


def test_a_hash_is_right_after_any_number_of_flows(guest: Guest) -> None:
    """They are remembered up to a limit: what is forgotten then must not be another's."""
    front = bytes(TO_VF)[:12] + b"\x08\0" + b"E\0\0\x14" + bytes(5) + b"\x63" + bytes(2)
    for number in [*range(4200), *range(4090, 4110)]:
        addresses = number.to_bytes(8, "big")
        guest.hear(front + addresses)
        (got,) = guest.rx[0].took() + guest.rx[1].took()
        assert got.hash == toeplitz(addresses)
        for ring in guest.rx:
            ring.refill()


# --- the queue ------------------------------------------------------------------------------


@each_flow
def test_entries_of_the_table_are_the_queues_in_turn(guest: Guest, flow: Flow) -> None:
    """The low seven bits choose one of its 128 entries; ixgbe_setup_reta fills them so."""
    expected: list[list[int]] = [[], []]
    for hashed in (flow.of_addresses, flow.of_ports):
        expected[hashed % 128 % 2].append(hashed)
    found = heard(guest, flow.udp, flow.tcp)
    assert [[got.hash for got in frames] for frames in found] == expected


def test_flows_are_spread_and_each_keeps_its_queue_and_its_order(guest: Guest) -> None:
    """A driver that finds a flow in two queues puts its frames into the wrong order."""
    flows = [IP(src="192.0.2.1", dst="192.0.2.2") / TCP(sport=port) for port in range(8)]
    places: dict[tuple[int, int], list[int]] = {}
    for index in range(3):
        for queue, frames in enumerate(heard(guest, *(flow / bytes([index]) for flow in flows))):
            for got in frames:
                places.setdefault((got.data[35], queue), []).append(got.data[54])
    assert sorted(port for port, _ in places) == list(range(8))
    assert {queue for _, queue in places} == {0, 1}
    assert all(order == [0, 1, 2] for order in places.values())


def test_a_vf_that_asks_for_one_queue_gets_all_in_the_first(guest: Guest) -> None:
    """A guest with one processor has one queue; the hash is told all the same."""
    guest.device.write(Register.VFPSRTYPE, 0)
    flow = next(flow for flow in FLOWS if flow.of_ports & 1)
    assert [got.hash for got in heard(guest, flow.tcp)[0]] == [flow.of_ports]


def test_a_queue_without_descriptors_loses_its_own_frames_alone(guest: Guest) -> None:
    """Queues share nothing but the wire."""
    odd = next(flow for flow in FLOWS if flow.of_ports & 1)
    even = next(flow for flow in FLOWS if not flow.of_ports & 1)
    guest.rx[1].configure()
    assert [len(frames) for frames in heard(guest, odd.tcp, even.tcp)] == [1, 0]
    assert guest.device.statistics.missed == 1
