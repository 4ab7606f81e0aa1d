"""A VF can tell these versions of the port's driver apart.

Ref: Linux, drivers/net/ethernet/intel/ixgbe/ixgbe_sriov.c, ixgbe_negotiate_vf_api().
"""

from __future__ import annotations

from dataclasses import dataclass

from harness.uapi.ixgbe_vf import Api


@dataclass(frozen=True)
class Driver:
    """One version of ixgbe.  *newest_api* is the newest mailbox API that it speaks."""

    name: str
    newest_api: Api


IXGBE_6_12 = Driver("ixgbe of Linux 6.12", Api.V14)
"""Debian 13 has this driver: ixgbe_negotiate_vf_api() knows 1.0 to 1.4, and refuses 2.0."""

IXGBE_6_18 = Driver("ixgbe of Linux 6.18", Api.V17)
"""This driver and later ones speak 1.6 and 1.7 as well; 1.5 is the ESX driver's.  Seen with 7.3.

Linux commits f7f97cbc03a4 ("ixgbe: handle IXGBE_VF_GET_PF_LINK_STATE mailbox operation") for 1.6
and "ixgbe: handle IXGBE_VF_FEATURES_NEGOTIATE mbox cmd" for 1.7.
"""


def of_kernel(release: str) -> Driver:
    """Return the driver of a kernel, by what ``uname -r`` says of the kernel."""
    version = tuple(int(part) for part in release.split("-")[0].split(".")[:2])
    return IXGBE_6_18 if version >= (6, 18) else IXGBE_6_12
