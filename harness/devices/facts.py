"""A device profile has these parts: facts, quirks, and rules that follow from facts."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from typing import Generic, TypeVar

T = TypeVar("T")

INTEL = 0x8086

ETH_DATA_LEN = 1500
"""The MTU beyond which a frame is jumbo; the name is that of <linux/if_ether.h>."""

ETH_HLEN, ETH_FCS_LEN = 14, 4
"""A frame has so many bytes around its payload; <linux/if_ether.h>."""


@dataclass(frozen=True, slots=True)
class Fact(Generic[T]):
    """A value and where it comes from."""

    value: T
    source: str


@dataclass(frozen=True, slots=True)
class Quirk:
    """A behaviour that surprises, in one sentence, and where it comes from."""

    name: str
    what: str
    source: str


class JumboRule(Enum):
    """Whether a VF's MTU depends on the MTU of its port."""

    FOLLOWS_PORT = "follows-port"
    """Jumbo on the VF needs jumbo on the port; a mix with an old VF driver receives nothing."""

    INDEPENDENT = "independent"
    """The VF's MTU is accepted whatever the port's is."""


class FrameLimit(Enum):
    """Either the port or the VF has the limit on the size of a frame that a VF receives."""

    PORT = "port"
    """The port has one limit: the largest size that the port or any of its VFs has asked for."""

    VF = "vf"
    """Each VF has a limit of its own."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DeviceProfile:
    """These facts are true of one NIC family."""

    name: str
    vendor: int
    pf_devices: Fact[frozenset[int]]
    vf_device: Fact[int]
    pf_driver: Fact[str]
    vf_driver: Fact[str]
    max_vfs: Fact[int]
    """The most VFs Linux makes on one port without traffic classes or offloaded macvlans."""
    pf_max_mtu: Fact[int]
    vf_max_mtu: Fact[int]
    max_frame_bytes: Fact[int]
    """The largest Ethernet frame, its checksum counted."""
    jumbo_rule: Fact[JumboRule]
    vf_advertises_flr: Fact[bool] | None
    """Whether the VF's own Device Capabilities register says that it can be reset (FLR)."""
    vf_has_memory_enable: Fact[bool]
    """Whether the VF's command register has a Memory Space Enable bit of its own."""
    filter_survives_reset: Fact[bool]
    """Whether a function reset of a VF leaves the VF's MAC address in the port's filter.

    Where the reset takes the address out, the VF's own reset message puts the address back; see
    `migration.handoff`.
    """
    vf_link_states: Fact[frozenset[str]]
    """The values of ``ip link set PF vf N state`` that change something; empty: refused."""
    vf_frame_limit: Fact[FrameLimit]
    """Whether the port's limit or the VF's own decides how large a frame the VF receives."""
    vf_spoof_check: Fact[bool]
    """Whether the port drops what a VF sends with another's address, unless that is turned off."""
    vf_frame_room: Fact[int]
    """How many bytes the limit of a frame leaves beyond MTU, Ethernet header and checksum."""
    vf_receive_queues: Fact[range]
    """Where in BAR 0 of a VF the registers of each of its receive queues begin."""
    quirks: tuple[Quirk, ...] = ()

    def quirk(self, name: str) -> Quirk | None:
        """Find the quirk of that name; None where this family does not have it."""
        return next((quirk for quirk in self.quirks if quirk.name == name), None)

    def vf_takes(self, frame_bytes: int, *, vf_mtu: int, port_mtu: int) -> bool:
        """Say whether a VF with *vf_mtu* on a port with *port_mtu* receives an untagged frame.

        *frame_bytes* is the size of the frame without its checksum.  The caller sees to two
        things: the VF receives at all (see `vf_receives`), and no other VF of the port has a larger
        MTU.
        """
        mtu = vf_mtu
        if self.vf_frame_limit.value is FrameLimit.PORT:
            mtu = max(vf_mtu, port_mtu, ETH_DATA_LEN)
        wire_bytes = frame_bytes + ETH_FCS_LEN
        largest = mtu + ETH_HLEN + ETH_FCS_LEN + self.vf_frame_room.value
        return wire_bytes <= min(largest, self.max_frame_bytes.value)

    def vf_receives(self, *, port_mtu: int, vf_mtu: int, old_mailbox: bool = False) -> bool:
        """Say whether a VF with *vf_mtu* receives at all on a port with *port_mtu*.

        *old_mailbox* stands for a VF driver that speaks mailbox API 1.0 only, which every VF does
        between a reset and its next negotiation.
        """
        if vf_mtu > self.vf_max_mtu.value or port_mtu > self.pf_max_mtu.value:
            return False
        if self.jumbo_rule.value is JumboRule.INDEPENDENT:
            return True
        port_is_jumbo = port_mtu > ETH_DATA_LEN
        if port_is_jumbo:
            return not old_mailbox
        return vf_mtu <= ETH_DATA_LEN
