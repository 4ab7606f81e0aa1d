"""A port's registers decide which frames of a VF pass the port, and what link the VF reads.

Ref: 82599 datasheet, MAXFRS, PFVFRE, PFVFTE, PFVFSPOOF, VMVIR and VFLINKS.
"""

from __future__ import annotations

from harness.twin.filters import NO_MAC, VLAN_TYPE, Filters
from harness.twin.rss import KEY
from harness.uapi import ixgbe_vf

RESET_FRAME_BYTES = 1514
"""MAXFRS without the checksum, before the driver writes it (82599 datasheet, MAXFRS)."""


class PortRegisters:
    """These registers of a port concern one VF; the model of the port's driver writes them.

    *largest_frame* is MAXFRS without the checksum, in bytes; the VF's driver raises it, and a
    reset of the port takes that back.  *receives* and *transmits* are the VF's bits of VFRE and
    VFTE.
    *inserted_vlan* is VMVIR: the tag that the port puts into every frame of the VF; 0 for none.
    *checks_spoofing* is PFVFSPOOF: whether frames of the VF are held against its filters.
    *link_up* is the cable's state, and *is_up* says whether the port's interface is up.
    """

    def __init__(self, link_mbit: int) -> None:
        self.psrtype = 0
        self.rss_key = KEY
        self.link_mbit = link_mbit
        self.link_up = self.is_up = True
        self.largest_frame = RESET_FRAME_BYTES
        self.receives = self.transmits = self.checks_spoofing = True
        self.inserted_vlan = 0
        self.filters = Filters(NO_MAC, set())

    def links(self) -> int:
        """Return what the VF reads in VFLINKS: the port's link, even if the VF is disabled."""
        if not (self.link_up and self.is_up):
            return 0
        return ixgbe_vf.Link.UP | ixgbe_vf.LINK_OF_MBIT[self.link_mbit]

    def choose_queue(self, hashed: int) -> int:
        """Return the queue of a frame whose RSS hash is *hashed*.

        The VF's queues take turns in the entries of the table (ixgbe_setup_reta).
        """
        queues = 1 << (self.psrtype >> ixgbe_vf.PSRTYPE_RQPL_SHIFT)
        return hashed % ixgbe_vf.RETA_ENTRIES % ixgbe_vf.MOST_QUEUES % queues

    def accepts(self, frame: memoryview) -> bool:
        """Say whether *frame*, from the wire, is for this VF and may reach it."""
        largest = self.largest_frame
        if len(frame) > largest and frame[12:14] == VLAN_TYPE:
            largest += ixgbe_vf.TAG_BYTES  # MAXFRS does not count the tag
        if not (self.link_up and self.receives) or len(frame) > largest:
            return False
        return self.filters.accept(frame)

    @property
    def fetches(self) -> bool:
        return self.link_up

    def tag(self, asked: int | None) -> int | None:
        """Return the tag of a frame that the VF sends: the port's own (VMVIR), else *asked*.

        *asked* is the descriptor's tag, which may be 0, or None for no tag.
        """
        return self.inserted_vlan or asked

    def lets_out(self, source: bytes, vlan: int | None) -> bool:
        """Say whether the VF may send from *source*, with a tag of *vlan*, or None for no tag.

        The checks see the frame with its tag, whether the descriptor or the port (VMVIR) gave it.

        * MAC: the source is one of the VF's own addresses (RAR, MPSAR).
        * VLAN: the tag's VLAN is one that the VF has a filter for (VLVF, VLVFB), asked for by its
          driver (ixgbe_set_vf_vlan_msg) and gone with its reset (ixgbe_clear_vf_vlans).
        * A priority tag is one of VLAN 0, which is the VF's as long as it has no port VLAN: the
          port's driver adds it at each reset, and does not let the VF remove it.
        * A frame without a tag names no VLAN, so that there is nothing to hold against a filter.
        * With a port VLAN each frame has that tag in front of whatever the guest wrote, and the VF
          is in that VLAN: nothing is spoofed, and no frame gets into another VLAN.
        * A port VLAN that is a priority alone is the exception: the VF is a member of VLAN 0 again
          only after its reset (ixgbe_enable_port_vlan, ixgbe_vf_reset_event).

        Both checks are of the same bit for Linux: set together (ixgbe_ndo_set_vf_spoofchk), and
        cleared together once the VF asks for further addresses (see `requests`).
        """
        if not self.transmits:
            return False
        if not self.checks_spoofing:
            return True
        return self.filters.has(source) and (vlan is None or vlan in self.filters.vlans)
