"""The port's driver keeps settings of the VF on record, most of them over every reset."""

from __future__ import annotations

from dataclasses import dataclass, field

from harness.twin.filters import NO_MAC
from harness.uapi.ixgbe_vf import Api, Xcast


@dataclass
class Administered:
    """The port's driver keeps this record of the VF (vfinfo); a reset of the port changes nothing.

    A reset of the VF clears *hashes* alone.  *mac* is vf_mac_addresses, set by the VF or by an
    administrator, and *mac_given* (pf_set_mac) says that an administrator set it.
    """

    mac: bytes = NO_MAC
    mac_given: bool = False
    vlan: int = 0
    qos: int = 0
    """The priority of the tag that the port inserts."""
    trusted: bool = False
    spoof_check: bool = True
    rss_query: bool = False
    enabled: bool = True
    api: int = Api.V14
    """The newest that the port's driver speaks; V15 it never does."""
    xcast: int = Xcast.NONE
    """The mode that the VF was granted last, which no reset of it takes back."""
    hashes: list[int] = field(default_factory=list)
    """The multicast places that the VF asked for last; a reset of the VF empties the list."""

    @property
    def has_port_vlan(self) -> bool:
        """Whether the port inserts a tag, if only for its priority, and the VF sees no VLAN."""
        return bool(self.vlan or self.qos)
