"""The port's filters: which frames from the wire go to the VF."""

from __future__ import annotations

from dataclasses import dataclass, field

from harness.uapi.ixgbe_pf import Vmolr

NO_MAC = bytes(6)
VLAN_IDS = 0xFFF
VLAN_PRIORITY_SHIFT = 13
VLAN_TYPE = b"\x81\x00"
_TAGGED_BYTES = 18
_BROADCAST = b"\xff" * 6


@dataclass
class Filters:
    """What the VF is to get: its address, and what it asked for beside.

    *multicast* are the places that it has set in the port's table, which count while *accepts* has
    ROMPE; *accepts* has the bits of `Vmolr`.
    """

    mac: bytes
    vlans: set[int]
    """VLVF entries whose pool bit (VLVFB) the VF has; VLAN 0 is one of them, or the port's VLAN."""
    macvlans: list[bytes] = field(default_factory=list)
    """Further receive addresses; the driver enters an address twice that it is asked for twice."""
    multicast: set[int] = field(default_factory=set)
    accepts: int = 0

    def accept(self, frame: memoryview) -> bool:
        """Whether *frame* is the VF's, by VLAN and by address."""
        vlan = vlan_of(frame) if len(frame) >= _TAGGED_BYTES else None
        if vlan is None:
            if not self.accepts & Vmolr.AUPE:
                return False
        elif vlan not in self.vlans:
            return False
        mac = bytes(frame[:6])
        if not mac[0] & 1:
            return self.has(mac)
        if self.accepts & Vmolr.MPE:
            return True
        if mac == _BROADCAST:
            return bool(self.accepts & Vmolr.BAM)
        return bool(self.accepts & Vmolr.ROMPE) and multicast_hash(mac) in self.multicast

    def has(self, mac: bytes) -> bool:
        """Whether *mac* is an address of the VF (RAR, MPSAR)."""
        return (mac == self.mac and mac != NO_MAC) or mac in self.macvlans


def vlan_of(head: bytes | memoryview) -> int | None:
    """The VLAN of a frame that begins with these 16 bytes; None where it has no tag."""
    if head[12] != 0x81 or head[13]:
        return None
    return (head[14] << 8 | head[15]) & VLAN_IDS


def multicast_hash(mac: bytes) -> int:
    """Bits 47 to 36 of an address: its place in the table (MULTICAST_FILTER_TYPE)."""
    return (mac[4] >> 4 | mac[5] << 4) & 0xFFF
