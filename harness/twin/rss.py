"""Receive-side scaling: which queue a flow's frames go to.

Ref: 82599 datasheet, RSS; the hash is Toeplitz's.  Key and table are the port's, shared by all of
its VFs: Linux, drivers/net/ethernet/intel/ixgbe/ixgbe_main.c, ixgbe_init_rss_key.
"""

from __future__ import annotations

from harness.twin.checksum import TCP, Parsed
from harness.uapi import ixgbe_vf
from harness.uapi.ixgbe_vf import RssType

KEY = bytes.fromhex(
    "6d5a56da255b0ec24167253d43a38fb0d0ca2bcbae7b30b477cb2da38030f20c6a42b73bbeac01fa"
)
"""The key that Microsoft's specification has its examples for; the driver takes a random one."""

_KEY_BITS = int.from_bytes(KEY, "big")
_KEY_LENGTH = 8 * ixgbe_vf.RSS_KEY_BYTES
_REMEMBERED = 4096


def toeplitz(data: bytes) -> int:
    """The 32-bit hash of *data*."""
    result = 0
    number, length = int.from_bytes(data, "big"), 8 * len(data)
    for bit in range(length):
        if number >> (length - 1 - bit) & 1:
            result ^= _KEY_BITS >> (_KEY_LENGTH - 32 - bit) & 0xFFFFFFFF
    return result


class Spread:
    """Hashes of flows, remembered: one costs as much as the rest of a frame."""

    def __init__(self) -> None:
        self._known: dict[bytes, int] = {}

    def hash(self, frame: memoryview, parsed: Parsed | None) -> tuple[int, int]:
        """The hash of a frame's addresses (of TCP with its ports), and the RssType it is of."""
        if parsed is None:
            return 0, RssType.NONE
        at = parsed.network_at
        four = parsed.version == 4
        flow = bytes(frame[at + 12 : at + 20] if four else frame[at + 8 : at + 40])
        kind = RssType.IPV4 if four else RssType.IPV6
        if parsed.transport == TCP:
            flow += bytes(frame[parsed.transport_at : parsed.transport_at + 4])
            kind = RssType.IPV4_TCP if four else RssType.IPV6_TCP
        known = self._known.get(flow)
        if known is None:
            if len(self._known) == _REMEMBERED:
                self._known.clear()
            known = self._known[flow] = toeplitz(flow)
        return known, kind
