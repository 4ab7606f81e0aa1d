"""A port's driver says what hashes are made of: addresses alone, or ports as well.

Ref: Linux, ixgbe_main.c, ixgbe_setup_mrqc; DPDK sets other fields where it is told to.
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from port_driver import HASHED, PEER_MAC, PORT_MAC, Port, port_of_chip
from scapy.layers.inet import IP, TCP, UDP
from scapy.layers.inet6 import IPv6
from scapy.layers.l2 import Ether
from scapy.packet import Packet
from vf_of_port import mac_of, vf_of

from harness.uapi.ixgbe_pf import Mrqe, Register, Row, RssField
from harness.uapi.ixgbe_vf import RssType

V4, V6 = IP(src="192.0.2.1", dst="192.0.2.2"), IPv6(src="2001:db8::1", dst="2001:db8::2")
EACH = {
    RssField.IPV4_TCP: (V4 / TCP(), RssType.IPV4_TCP),
    RssField.IPV4_UDP: (V4 / UDP(), RssType.IPV4_UDP),
    RssField.IPV4: (V4, RssType.IPV4),
    RssField.IPV6_TCP: (V6 / TCP(), RssType.IPV6_TCP),
    RssField.IPV6_UDP: (V6 / UDP(), RssType.IPV6_UDP),
    RssField.IPV6: (V6, RssType.IPV6),
}


@pytest.fixture
def port() -> Iterator[Port]:
    with port_of_chip() as port:
        port.start()
        yield port


def kind_of(port: Port, packet: Packet) -> int:
    """Return the RssType that the port tells of *packet*."""
    port.hear(bytes(Ether(src=PEER_MAC.hex(":"), dst=PORT_MAC.hex(":")) / packet))
    (got,) = port.rx[0].took()
    return got.first_word & 0xF


@pytest.mark.parametrize("field", EACH, ids=lambda field: field.name)
def test_a_field_is_for_its_frames_alone(port: Port, field: RssField) -> None:
    """Addresses without ports count for TCP and UDP too, as far as these have no field."""
    port.write(Register.MRQC, Mrqe.RSSEN | field)
    version = field.name[:4]
    for each, (packet, kind) in EACH.items():
        by_addresses = field.name == version == each.name[:4]
        expected = EACH[field][1] if by_addresses else kind if each is field else RssType.NONE
        assert kind_of(port, packet) == expected, each.name


def test_ports_of_udp_are_part_of_its_hash(port: Port) -> None:
    for index in range(Row.RSSRK.count):
        port.write(Row.RSSRK.at(index), 0x6D5A56DA + index)
    port.write(Register.MRQC, Mrqe.RSSEN | HASHED | RssField.IPV4_UDP)
    hashes = set()
    for source in range(8):
        packet = V4 / UDP(sport=source)
        port.hear(bytes(Ether(src=PEER_MAC.hex(":"), dst=PORT_MAC.hex(":")) / packet))
        hashes |= {got.hash for got in port.rx[0].took()}
    assert len(hashes) == 8


def test_fields_of_the_port_are_those_of_its_vfs() -> None:
    with port_of_chip() as port:
        port.start(vfs=4)
        with vf_of(port, 0) as vf:
            frame = Ether(src=PEER_MAC.hex(":"), dst=mac_of(0).hex(":")) / V4 / UDP()
            for fields, kind in (
                (HASHED, RssType.IPV4), (HASHED | RssField.IPV4_UDP, RssType.IPV4_UDP),
            ):  # fmt: skip
                port.write(Register.MRQC, Mrqe.VMDQRSS32EN | fields)
                port.hear(bytes(frame))
                (got,) = vf.rx.took()
                assert got.first_word & 0xF == kind
