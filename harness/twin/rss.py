"""Receive-side scaling: which queue a flow's frames go to.

Ref: 82599 datasheet, RSS; the hash is Toeplitz's.  Key and table are the port's, shared by all of
its VFs: Linux, drivers/net/ethernet/intel/ixgbe/ixgbe_main.c, ixgbe_init_rss_key.
"""

from __future__ import annotations

from typing import Callable

from harness.twin.checksum import TCP, UDP, Parsed
from harness.uapi import ixgbe_vf
from harness.uapi.ixgbe_pf import RssField
from harness.uapi.ixgbe_vf import RssType

KEY = bytes.fromhex(
    "6d5a56da255b0ec24167253d43a38fb0d0ca2bcbae7b30b477cb2da38030f20c6a42b73bbeac01fa"
)
"""The key that Microsoft's specification has its examples for; the driver takes a random one."""

_KEY_LENGTH = 8 * ixgbe_vf.RSS_KEY_BYTES
_REMEMBERED = 4096
_BY_PORTS = {
    (4, TCP): (RssType.IPV4_TCP, RssField.IPV4_TCP),
    (4, UDP): (RssType.IPV4_UDP, RssField.IPV4_UDP),
    (6, TCP): (RssType.IPV6_TCP, RssField.IPV6_TCP),
    (6, UDP): (RssType.IPV6_UDP, RssField.IPV6_UDP),
}
_BY_ADDRESSES = {4: (RssType.IPV4, RssField.IPV4), 6: (RssType.IPV6, RssField.IPV6)}
_NEITHER = RssType.NONE, 0
_USUAL = RssField.IPV4 | RssField.IPV4_TCP | RssField.IPV6 | RssField.IPV6_TCP


def toeplitz(data: bytes, key: bytes = KEY) -> int:
    """The 32-bit hash of *data*."""
    result, key_bits = 0, int.from_bytes(key, "big")
    number, length = int.from_bytes(data, "big"), 8 * len(data)
    for bit in range(length):
        if number >> (length - 1 - bit) & 1:
            result ^= key_bits >> (_KEY_LENGTH - 32 - bit) & 0xFFFFFFFF
    return result


class Spread:
    """`Spread` hashes flows, and remembers hashes: one hash costs as much as a frame's rest."""

    def __init__(self) -> None:
        self.fields: Callable[[], int] = lambda: _USUAL
        """This returns the field bits of MRQC; without a port that has MRQC, the bits that
        ixgbe_setup_mrqc sets."""
        self._known: dict[bytes, int] = {}
        self._key = KEY

    def set_key(self, key: bytes) -> None:
        """Hash with another key, of RSS_KEY_BYTES, from now on."""
        self._key = key
        self._known.clear()

    def hash(self, frame: memoryview, parsed: Parsed | None) -> tuple[int, int]:
        """The hash of a frame's addresses, or of these with its ports, and the RssType it is of.

        Ports count where the fields say so for the frame's transport, else addresses alone do, and
        what no field is for has no hash.  Ref: 82599 datasheet, RSS, MRQC.
        """
        if parsed is None:
            return 0, RssType.NONE
        at = parsed.network_at
        four = parsed.version == 4
        flow = bytes(frame[at + 12 : at + 20] if four else frame[at + 8 : at + 40])
        fields = self.fields()
        kind, wanted = _BY_PORTS.get((parsed.version, parsed.transport), _NEITHER)
        if fields & wanted:
            flow += bytes(frame[parsed.transport_at : parsed.transport_at + 4])
        else:
            kind, wanted = _BY_ADDRESSES[parsed.version]
            if not fields & wanted:
                return 0, RssType.NONE
        known = self._known.get(flow)
        if known is None:
            if len(self._known) == _REMEMBERED:
                self._known.clear()
            known = self._known[flow] = toeplitz(flow, self._key)
        return known, kind
