"""An administrator sets things on a port for one of its VFs, whichever provider lends the VF.

Each VF has a ``PortSide`` as its ``port_side``.  What only a twin's port can do, such as
speaking an older mailbox API, is no part of that.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from enum import Enum
from typing import Protocol

from harness.topology import MacAddress


class LinkState(Enum):
    """``ip link set PORT vf N state`` takes these; the value is the word there."""

    AUTO = "auto"
    """The VF's link is the port's."""
    DISABLE = "disable"
    """The VF does not send; it receives again once its driver has told the port its frame size."""


@dataclass(frozen=True, slots=True)
class VfSettings:
    """A port has these settings on record for a VF; VLAN 0 stands for no VLAN."""

    mac: MacAddress
    vlan: int
    trusted: bool
    spoof_check: bool
    link_state: LinkState


class PortSide(Protocol):
    """A port, as far as the port concerns one VF.

    The settings of the VF end with the VF.  The changes of the port itself (its MTU, up or down)
    have their way back in the host's journal before they are made.
    """

    @property
    def settings(self) -> VfSettings:
        """The settings of the VF now."""

    @property
    def mtu(self) -> int:
        """The MTU of the port now."""

    def set_mtu(self, mtu: int) -> None:
        """Give the port that MTU, and return when the port has its link again.

        A change resets the port: the VF's driver has to begin anew.  The MTU that the port has
        already changes nothing.  Raises RemoteError for one that the port cannot have.
        """

    def set_up(self, up: bool) -> None:
        """Take the port's link down, or have it up and return when it is."""

    def reset(self) -> None:
        """Reset the port, and return when it has its link again; no setting is changed."""

    def set_mac(self, mac: MacAddress) -> None:
        """Give the VF that address, and have frames for it go to the VF."""

    def set_vlan(self, vlan: int) -> None:
        """Put all frames of the VF into that VLAN, which the guest does not see; 0 for none."""

    def set_trust(self, trusted: bool) -> None:
        """Let the VF choose its own address, or not; its driver has to begin anew."""

    def set_spoof_check(self, on: bool) -> None:
        """Drop what the VF sends with another's address, or let it out."""

    def set_link_state(self, state: LinkState) -> None:
        """Say whether the VF may send and receive; its driver has to begin anew."""


@contextmanager
def put_back(side: PortSide) -> Iterator[PortSide]:
    """Put everything back that the body sets on *side*, also after an error."""
    before, mtu = side.settings, side.mtu
    try:
        yield side
    finally:
        side.set_up(True)
        side.set_mtu(mtu)
        now = side.settings
        if now.mac != before.mac:
            side.set_mac(before.mac)
        if now.vlan != before.vlan:
            side.set_vlan(before.vlan)
        if now.trusted != before.trusted:
            side.set_trust(before.trusted)
        if now.spoof_check != before.spoof_check:
            side.set_spoof_check(before.spoof_check)
        if now.link_state is not before.link_state:
            side.set_link_state(before.link_state)
