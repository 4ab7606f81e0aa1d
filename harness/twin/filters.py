"""The port's filters: which frames from the wire go to the VF."""

from __future__ import annotations

from dataclasses import dataclass, field

from harness.uapi.ixgbe_vf import Xcast

NO_MAC = bytes(6)
VLAN_IDS = 0xFFF
_TAGGED_BYTES = 18
_BROADCAST = b"\xff" * 6


@dataclass
class Filters:
    """What the VF is to get: its address, and what it asked for beside.

    *multicast* are hashes, which count while *by_hash* (ROMPE) is set.
    """

    mac: bytes
    vlans: set[int]
    macvlans: set[bytes] = field(default_factory=set)
    multicast: set[int] = field(default_factory=set)
    xcast: int = Xcast.NONE
    by_hash: bool = False

    def accept(self, frame: memoryview, *, tagged_only: bool) -> bool:
        """Whether *frame* is the VF's, by VLAN and by address."""
        if len(frame) >= _TAGGED_BYTES and frame[12] == 0x81 and frame[13] == 0x00:
            if (frame[14] << 8 | frame[15]) & VLAN_IDS not in self.vlans:
                return False
        elif tagged_only:
            return False
        mac = bytes(frame[:6])
        if not mac[0] & 1:
            return (mac == self.mac and mac != NO_MAC) or mac in self.macvlans
        if mac == _BROADCAST or self.xcast >= Xcast.ALLMULTI:
            return True
        return self.by_hash and multicast_hash(mac) in self.multicast


def multicast_hash(mac: bytes) -> int:
    """Bits 47 to 36 of an address: its place in the table (MULTICAST_FILTER_TYPE)."""
    return (mac[4] >> 4 | mac[5] << 4) & 0xFFF
