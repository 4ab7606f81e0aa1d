"""Frames for a client, and what has to come back for them."""

from __future__ import annotations

import itertools
import random
from dataclasses import dataclass
from ipaddress import ip_address

from scapy.layers.inet import ICMP, IP, TCP, UDP
from scapy.layers.l2 import ARP, Dot1Q, Ether
from scapy.packet import Packet, Raw

from harness.errors import HarnessError

OURS = "02:00:00:00:00:01"
"""The address of our end of the cable."""

HERE, THERE = "198.18.0.1", "198.18.0.2"
"""Our address in IP, and the client's; RFC 2544: they are routed nowhere."""

_TO_PORT = 2000
_SEQUENCE, _IDENTIFICATION = 1000, 7
_random = random.Random(82599)


class WrongFramesError(HarnessError):
    """What came back over the wire is not what the client was to send."""


@dataclass(frozen=True, slots=True)
class Talk:
    """What is said to a function whose address is *mac*."""

    mac: str

    def datagram(self, frame_bytes: int, *, port: int = 1000, vlan: int | None = None) -> bytes:
        """Return a frame of UDP, of so many bytes without its checksum, from *port*."""
        ethernet = self._ethernet / Dot1Q(vlan=vlan) if vlan is not None else self._ethernet
        headers = ethernet / _network() / UDP(sport=port, dport=_TO_PORT)
        return bytes(headers / Raw(_random.randbytes(frame_bytes - len(headers))))

    def segment(self, payload_bytes: int, *, port: int = 1000) -> bytes:
        """Return a frame of TCP with so many bytes of payload, from *port*; PSH and ACK are set."""
        payload = _random.randbytes(payload_bytes)
        return bytes(self._ethernet / _network() / _tcp(0, port=port) / payload)

    def ping(self) -> bytes:
        """Return a frame with an ICMP echo request of 1400 bytes."""
        return bytes(self._ethernet / _network() / ICMP(id=1, seq=1) / _random.randbytes(1400))

    def answer(self, ping: bytes) -> bytes:
        """Return the reply to that; its identification, which the kernel chooses, is 0."""
        data = Ether(ping)[ICMP].payload
        back = Ether(src=self.mac, dst=OURS) / IP(src=THERE, dst=HERE, id=0)
        return bytes(back / ICMP(type="echo-reply", id=1, seq=1) / data)

    def segments(self, frame: bytes, payload_bytes: int) -> list[bytes]:
        """Return the segments, of so many bytes of payload, that *frame* is sent back as."""
        payload = frame[54:]
        parts = [payload[at : at + payload_bytes] for at in range(0, len(payload), payload_bytes)]
        back, last = Ether(src=self.mac, dst=OURS), len(parts) - 1
        frames = (
            back / _network(index) / _tcp(index * payload_bytes, push=index == last) / part
            for index, part in enumerate(parts)
        )
        return [bytes(each).ljust(60, b"\0") for each in frames]

    @property
    def _ethernet(self) -> Packet:
        return Ether(src=OURS, dst=self.mac)


def _network(index: int = 0) -> Packet:
    return IP(src=HERE, dst=THERE, id=_IDENTIFICATION + index)


def _tcp(begin: int, *, port: int = 1000, push: bool = True) -> Packet:
    flags = "PA" if push else "A"
    return TCP(sport=port, dport=_TO_PORT, seq=_SEQUENCE + begin, flags=flags)


def question() -> bytes:
    """Return a frame that asks by ARP who has the client's address."""
    asked = ARP(op="who-has", hwsrc=OURS, psrc=HERE, pdst=THERE)
    return bytes(Ether(src=OURS, dst="ff:ff:ff:ff:ff:ff") / asked).ljust(60, b"\0")


def asked_for(mac: str) -> bytes:
    """Return the frame by which a client with that address answers."""
    told = ARP(op="is-at", hwsrc=mac, psrc=THERE, hwdst=OURS, pdst=HERE)
    return bytes(Ether(src=mac, dst=OURS) / told).ljust(60, b"\0")


def echo_of(frame: bytes) -> bytes:
    """Return *frame* with its addresses exchanged, as testpmd's ``macswap`` sends it back."""
    return frame[6:12] + frame[:6] + frame[12:]


def tagged(frame: bytes, vlan: int) -> bytes:
    """Return *frame* with a VLAN tag."""
    return frame[:12] + b"\x81\x00" + vlan.to_bytes(2, "big") + frame[12:]


def untagged(frame: bytes) -> bytes:
    """Return a tagged *frame* without its tag."""
    return frame[:12] + frame[16:]


def damaged(frame: bytes, at: int) -> bytes:
    """Return *frame* with another bit at byte *at*."""
    return frame[:at] + bytes([frame[at] ^ 1]) + frame[at + 1 :]


def require(got: list[bytes], wanted: list[bytes], what: str) -> None:
    """Raise WrongFramesError unless the frames that came back are those *wanted*, in their order.

    *what* says what the client was to do.
    """
    if got == wanted:
        return
    pairs = itertools.zip_longest(got, wanted, fillvalue=b"")
    came, meant = next(pair for pair in pairs if pair[0] != pair[1])
    same = itertools.takewhile(lambda pair: pair[0] == pair[1], zip(came, meant, strict=False))
    at = len(list(same))
    raise WrongFramesError(
        f"the client: {what}: other frames came back",
        because=f"frames of {list(map(len, got))} bytes came, and of {list(map(len, wanted))} were "
        f"to come; the first difference is at byte {at}: {came[at : at + 16].hex(' ') or 'nothing'}"
        f" instead of {meant[at : at + 16].hex(' ') or 'nothing'}",
        fix="see what the port counted (testpmd: show port xstats 0) and what the chip's log says",
    )


def spread_hash(key: bytes, port: int) -> int:
    """Return the hash by which a port of the chip spreads datagrams from *port* over its queues.

    Of addresses and ports, each bit that is set takes 32 bits of *key*, from the bit's own place on
    (Microsoft's specification of receive-side scaling).
    """
    ends = ip_address(HERE).packed + ip_address(THERE).packed
    data = int.from_bytes(ends + port.to_bytes(2, "big") + _TO_PORT.to_bytes(2, "big"), "big")
    bits, length, result = int.from_bytes(key, "big"), 8 * len(key), 0
    for place in range(96):
        if data >> (95 - place) & 1:
            result ^= bits >> (length - 32 - place) & 0xFFFFFFFF
    return result
