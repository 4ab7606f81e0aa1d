"""Scapy computes every segment in a tunnel as the twin has to send it.

The frame is made here as Linux makes it: its headers are those of the first segment, which scapy
computed in full, and then changed as ixgbevf_tso changes them (Linux 6.12, ixgbevf_main.c).  What
leaves must be, byte by byte, what scapy computes for each segment by itself.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from scapy.layers.inet import IP, TCP, UDP, IPOption_NOP
from scapy.layers.inet6 import IPv6
from scapy.layers.l2 import GRE, Dot1Q, Ether
from scapy.layers.vxlan import VXLAN
from scapy.packet import Packet
from scapy.utils import checksum as scapy_checksum
from vf_driver import Guest, guest_with_vf
from vf_rings import MAC, PEER

from harness.twin import offload
from harness.twin.offload import Context
from harness.uapi.ixgbe_vf import POPTS_IXSM, POPTS_TXSM, TUCMD_IPV4, TUCMD_L4T_TCP, TxCommand

FROM_VF = Ether(src=MAC.hex(":"), dst=PEER.hex(":"))
INNER = Ether(src="02:00:00:00:00:11", dst="02:00:00:00:00:12")
BOTH = POPTS_IXSM | POPTS_TXSM


def ones_sum(data: bytes) -> int:
    """Return the folded ones' complement sum, as csum_partial and csum_fold do."""
    return ~scapy_checksum(data) & 0xFFFF


@dataclass(frozen=True)
class Sent:
    """A packet to be cut into *count* segments of *size* bytes, the last of *rest*."""

    outer: Packet | None = None
    between: tuple[Packet, ...] = ()
    inner: Packet = field(default_factory=lambda: IP(src="198.51.100.1", dst="198.51.100.2"))
    tcp: Packet = field(default_factory=lambda: TCP(seq=0xFFFFFF00, flags="PA"))
    guest_tag: int | None = None
    size: int = 1000
    count: int = 3
    rest: int = 0

    @property
    def link(self) -> Packet:
        return FROM_VF if self.guest_tag is None else FROM_VF / Dot1Q(vlan=self.guest_tag)

    @property
    def lengths(self) -> list[int]:
        return [self.size] * self.count + [self.rest] * bool(self.rest)

    def payload(self, index: int) -> bytes:
        return bytes((at * 7 + index) % 251 for at in range(self.lengths[index]))

    def segment(self, index: int) -> bytes:
        """The whole of one segment as scapy makes it: every length and checksum is computed."""
        packet = self.link.copy()
        network = self.outer if self.outer is not None else self.inner
        for each in (self.outer, *self.between, self.inner, self.tcp):
            if each is None:
                continue
            layer = each.copy()
            if each is network and isinstance(layer, IP):
                layer.id = (layer.id + index) & 0xFFFF
            if each is self.tcp:
                layer.seq = (layer.seq + index * self.size) & 0xFFFFFFFF
                if index < len(self.lengths) - 1:
                    layer.flags = str(layer.flags).replace("P", "").replace("F", "")
            packet /= layer
        return bytes(packet / self.payload(index))

    def places(self) -> tuple[int, int, int]:
        """Return where the outer IP header, the inner transport and the payload begin."""
        whole = Ether(self.segment(0))
        end = len(whole) - self.lengths[0]
        transport_at = len(whole) - len(whole[TCP])
        network_at = len(self.link)
        return network_at, transport_at, end

    def left_open(self) -> bytes:
        """Return the packet as ixgbevf_tso hands it over."""
        network_at, transport_at, end = self.places()
        head = bytearray(self.segment(0)[:end])
        head[transport_at + 13] = int(self.tcp.flags)
        if head[network_at] >> 4 == 4:
            behind = network_at + (head[network_at] & 0xF) * 4
            reverse = 0xFFFF ^ ones_sum(bytes(head[behind:transport_at]))
            check = reverse if self.outer is not None else 0
            head[network_at + 10 : network_at + 12] = check.to_bytes(2, "big")
            head[network_at + 2 : network_at + 4] = bytes(2)
        else:
            head[network_at + 4 : network_at + 6] = bytes(2)
        if isinstance(self.inner, IP):
            addresses = bytes(IP(bytes(self.inner))[IP])[12:20]
        else:
            addresses = bytes(self.inner)[8:40]
        pseudo = ones_sum(addresses + b"\0\6")
        head[transport_at + 16 : transport_at + 18] = pseudo.to_bytes(2, "big")
        return bytes(head) + b"".join(map(self.payload, range(len(self.lengths))))

    def context(self) -> dict[str, int]:
        """Return what ixgbevf_tso writes into the context descriptor."""
        network_at, transport_at, end = self.places()
        network = self.outer if self.outer is not None else self.inner
        return {
            "mac": network_at, "network": transport_at - network_at,
            "transport": end - transport_at, "segment": self.size,
            "kind": TUCMD_L4T_TCP | (TUCMD_IPV4 if isinstance(network, IP) else 0),
        }  # fmt: skip

    @property
    def options(self) -> int:
        """IXGBE_TX_FLAGS_CSUM, and IXGBE_TX_FLAGS_IPV4 where the outer header is IPv4's."""
        return BOTH if self.context()["kind"] & TUCMD_IPV4 else POPTS_TXSM


V4, V6 = IP(src="192.0.2.1", dst="192.0.2.2", id=0xFFFE), IPv6(src="2001:db8::1", dst="2001:db8::2")
IN_V4 = IP(src="198.51.100.1", dst="198.51.100.2", id=7)
IN_V6 = IPv6(src="2001:db8:1::1", dst="2001:db8:1::2")
NO_SUM = UDP(sport=40000, dport=4789, chksum=0)
SUM = UDP(sport=40000, dport=4789)

PACKETS: dict[str, Sent] = {
    "TCP over IPv4": Sent(inner=V4, rest=10),
    "TCP over IPv6": Sent(inner=V6, rest=10),
    "TCP over IPv4, tagged by the guest": Sent(inner=V4, guest_tag=0, rest=1),
    "TCP over IPv6, tagged by the guest": Sent(inner=V6, guest_tag=0, rest=1),
    "VXLAN, IPv4 in IPv4": Sent(V4, (NO_SUM, VXLAN(vni=5), INNER), IN_V4),
    "VXLAN, IPv6 in IPv4": Sent(V4, (NO_SUM, VXLAN(vni=5), INNER), IN_V6),
    "VXLAN, IPv4 in IPv6": Sent(V6, (SUM, VXLAN(vni=5), INNER), IN_V4),
    "VXLAN, IPv6 in IPv6": Sent(V6, (SUM, VXLAN(vni=5), INNER), IN_V6),
    "VXLAN with a checksum": Sent(V4, (SUM, VXLAN(vni=5), INNER), IN_V6),
    "VXLAN of tagged frames": Sent(V4, (SUM, VXLAN(vni=5), INNER / Dot1Q(vlan=9)), IN_V4),
    "GRE, IPv4 in IPv4": Sent(V4, (GRE(),), IN_V4),
    "GRE, IPv6 in IPv4": Sent(V4, (GRE(),), IN_V6),
    "GRE with a checksum": Sent(V4, (GRE(key_present=1, key=9, chksum_present=1),), IN_V6),
    "GRE, IPv4 in IPv6": Sent(V6, (GRE(),), IN_V4),
    "IPv4 in IPv4": Sent(V4, (), IN_V4),
    "IPv6 in IPv4": Sent(V4, (), IN_V6),
    "IPv4 in IPv6": Sent(V6, (), IN_V4),
    "options outside": Sent(
        IP(src="192.0.2.1", dst="192.0.2.2", options=4 * [IPOption_NOP()]), (GRE(),), IN_V4
    ),
    "TCP options": Sent(V4, (GRE(),), IN_V6, TCP(options=[("Timestamp", (1, 2))], flags="PAE")),
}  # fmt: skip


@pytest.fixture
def guest(tmp_path: Path) -> Iterator[Guest]:
    with guest_with_vf(tmp_path / "dma.log") as guest:
        guest.start()
        yield guest


@pytest.mark.parametrize("vlan", [0, 7])
@pytest.mark.parametrize("name", PACKETS)
def test_each_segment_is_as_scapy_makes_it(guest: Guest, name: str, vlan: int) -> None:
    """The frame has no tag, or the descriptor's, which comes before all that was computed."""
    packet = PACKETS[name]
    if vlan:
        guest.device.port.filters.vlans.add(vlan)
    guest.tx[0].put_context(**packet.context(), vlan=vlan)
    command = TxCommand.RS | TxCommand.TSE | (TxCommand.VLE if vlan else 0)
    guest.tx[0].send(packet.left_open(), command=command, options=packet.options)
    tag = b"\x81\0\0\7" if vlan else b""
    whole = [packet.segment(index) for index in range(len(packet.lengths))]
    assert guest.sent == [(frame[:12] + tag + frame[12:]).ljust(60, b"\0") for frame in whole]


@pytest.mark.parametrize("name", PACKETS)
def test_a_single_frame_has_the_inner_checksum_put_in(guest: Guest, name: str) -> None:
    """ixgbevf_tx_csum: the outer header is right already, and the driver's sum has the length."""
    packet = PACKETS[name]
    whole, said = packet.segment(0), packet.context()
    transport_at = said["mac"] + said["network"]
    place = slice(transport_at + 16, transport_at + 18)
    seed = int.from_bytes(packet.left_open()[place], "big") + len(whole) - transport_at
    data = bytearray(whole)
    data[place] = (seed % 0xFFFF).to_bytes(2, "big")
    guest.tx[0].put_context(**{**said, "segment": 0, "transport": 0})
    guest.tx[0].send(bytes(data), options=POPTS_TXSM)
    assert guest.sent == [whole]


TUNNELS = [
    (), (NO_SUM, VXLAN(vni=5), INNER), (SUM, VXLAN(vni=0xFFFFFF), INNER), (GRE(),),
    (GRE(chksum_present=1),),
]  # fmt: skip
ADDRESS = st.integers(0, (1 << 128) - 1)


@st.composite
def packets(draw: st.DrawFn) -> Sent:
    """Draw addresses, identification, numbers, sizes and tunnel."""

    def network() -> Packet:
        source, target = draw(ADDRESS), draw(ADDRESS)
        if draw(st.booleans()):
            low, high = (
                ".".join(str(each >> shift & 0xFF) for shift in (24, 16, 8, 0))
                for each in (source, target)
            )
            return IP(
                src=low, dst=high, id=draw(st.integers(0, 0xFFFF)), tos=draw(st.integers(0, 255))
            )
        return IPv6(src=_colons(source), dst=_colons(target))

    outer = network() if draw(st.booleans()) else None
    between = draw(st.sampled_from(TUNNELS)) if outer is not None else ()
    tcp = TCP(seq=draw(st.integers(0, 0xFFFFFFFF)), flags=draw(st.sampled_from(["A", "PA", "FPA"])))
    size = draw(st.integers(8, 300))
    rest = 0 if outer is not None else draw(st.integers(0, size - 1))
    return Sent(outer, between, network(), tcp, None, size, draw(st.integers(1, 4)), rest)


def _colons(address: int) -> str:
    text = f"{address:032x}"
    return ":".join(text[at : at + 4] for at in range(0, 32, 4))


@settings(max_examples=200)
@given(packet=packets())
@example(packet=PACKETS["VXLAN, IPv6 in IPv4"])
def test_any_segment_is_as_scapy_makes_it(packet: Sent) -> None:
    """Each sum is a residue: a driver's seed that is off by one is seen in any of them."""
    said = packet.context()
    first = said["network"] | said["mac"] << 9
    context = Context.of(first, said["kind"], said["transport"] << 8 | said["segment"] << 16)
    found = offload.finished(packet.left_open(), TxCommand.TSE, packet.options, context)
    assert list(found) == [packet.segment(index) for index in range(len(packet.lengths))]
