"""A port and its VFs share one RSS key and one table; each pool has queues of its own.

Ref: Linux, ixgbe_main.c: ixgbe_setup_reta, ixgbe_store_key, ixgbe_setup_psrtype.
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from port_driver import PEER_MAC, PORT_MAC, Port, port_of_chip
from vf_of_port import mac_of, vf_of

from harness.twin.rss import toeplitz
from harness.uapi.ixgbe_pf import Register, Row

KEY = bytes(range(1, 41))
ADDRESSES = bytes.fromhex("c6120001c6120002")


def packet(to: bytes, last: int) -> bytes:
    """Return an IPv4 packet of no known transport, whose addresses end in *last*."""
    head = bytes.fromhex("4500002e00000000407f0000") + ADDRESSES[:7] + bytes([last])
    return to + PEER_MAC + b"\x08\x00" + head + bytes(26)


def set_key(port: Port, key: bytes = KEY) -> None:
    """Write the key as ixgbe_store_key does."""
    for index in range(Row.RSSRK.count):
        word = int.from_bytes(key[4 * index : 4 * index + 4], "little")
        port.write(Row.RSSRK.at(index), word)


@pytest.fixture
def port() -> Iterator[Port]:
    with port_of_chip() as port:
        port.start(queues=2)
        set_key(port)
        yield port


def test_the_hash_is_made_with_the_drivers_key(port: Port) -> None:
    """`ethtool -x` shows it; the driver passes the hash on to the stack."""
    port.hear(*(packet(PORT_MAC, last) for last in range(8)))
    came = [got for ring in port.rx for got in ring.took()]
    assert len(came) == 8
    for got in came:
        assert got.hash == toeplitz(got.data[26:34], KEY)


def test_each_hash_goes_to_the_queue_of_its_entry(port: Port) -> None:
    """The hash's low 7 bits choose an entry of RETA; here entries take turns."""
    port.hear(*(packet(PORT_MAC, last) for last in range(8)))
    for number, ring in enumerate(port.rx):
        hashes = [got.hash for got in ring.took()]
        assert hashes
        assert {each & 1 for each in hashes} == {number}


def test_without_rss_all_goes_to_the_first_queue(port: Port) -> None:
    port.write(Register.MRQC, 0)
    port.hear(*(packet(PORT_MAC, last) for last in range(8)))
    assert [len(ring.took()) for ring in port.rx] == [8, 0]


def test_a_vf_has_the_ports_key() -> None:
    """A VF hashes with the port's key, which GET_RSS_KEY tells its driver."""
    with port_of_chip() as port:
        port.start(vfs=4)
        set_key(port)
        with vf_of(port, 0) as vf:
            port.hear(packet(mac_of(0), 1))
            (got,) = vf.rx.took()
            assert got.hash == toeplitz(got.data[26:34], KEY)
            set_key(port, KEY[::-1])
            port.hear(packet(mac_of(0), 1))
            (got,) = vf.rx.took()
            assert got.hash == toeplitz(got.data[26:34], KEY[::-1])


def test_a_reset_takes_the_key_away(port: Port) -> None:
    port.start(queues=2)
    port.hear(packet(PORT_MAC, 3))
    assert [got.hash for ring in port.rx for got in ring.took()] == [0]
