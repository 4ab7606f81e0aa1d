"""The port's driver has settings of the VF on record, which no reset takes back."""

from __future__ import annotations

from dataclasses import dataclass, field

from harness.twin.filters import NO_MAC
from harness.uapi.ixgbe_vf import Api, Xcast


@dataclass
class Administered:
    """The driver's record of this VF (vfinfo); a reset of the VF or of the port keeps it.

    *mac* is its vf_mac_addresses, whoever set it last, and *mac_given* its pf_set_mac: whether an
    administrator has.
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
    """The multicast places that the VF asked for last."""

    @property
    def has_port_vlan(self) -> bool:
        """Whether the port inserts a tag, if only for its priority, and the VF sees no VLAN."""
        return bool(self.vlan or self.qos)
