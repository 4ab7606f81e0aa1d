"""A device profile says what is true of one NIC family, each fact with its source.

Schemes and tests ask the profile and never compare a driver's name.  A source is a file of the
Linux kernel (mainline, 6.x; names are the kernel's), a numbered Intel erratum, or a measurement.
Where no source could be named the fact is left out (None), and the hardware itself must be asked.
"""

from __future__ import annotations

import difflib

from harness.devices.facts import (
    ETH_DATA_LEN,
    ETH_FCS_LEN,
    ETH_HLEN,
    INTEL,
    DeviceProfile,
    Fact,
    FrameLimit,
    JumboRule,
    Quirk,
)
from harness.devices.igb import I82576
from harness.devices.ixgbe import I82599, X540, X550, without_erratum_35
from harness.errors import UsageError

__all__ = [
    "ETH_DATA_LEN",
    "ETH_FCS_LEN",
    "ETH_HLEN",
    "I82576",
    "I82599",
    "INTEL",
    "PROFILES",
    "X540",
    "X550",
    "DeviceProfile",
    "Fact",
    "FrameLimit",
    "JumboRule",
    "Quirk",
    "by_pf_id",
    "by_vf_id",
    "profile",
    "without_erratum_35",
]

PROFILES: dict[str, DeviceProfile] = {known.name: known for known in (I82599, X540, X550, I82576)}


def profile(name: str) -> DeviceProfile:
    """Find the profile of that name; raises UsageError with the names there are."""
    if name in PROFILES:
        return PROFILES[name]
    near = difflib.get_close_matches(name, PROFILES, n=1)
    guess = f"; did you mean {near[0]!r}?" if near else ""
    raise UsageError(
        f"{name!r} is no device profile{guess}",
        because="what is true of a device is taken from its profile, never guessed",
        fix=f"name one of {', '.join(sorted(PROFILES))}, or add a profile to harness/devices",
    )


def by_pf_id(vendor: int, device: int) -> DeviceProfile | None:
    """Find the profile whose ports have this PCI id, if there is one."""
    return next(
        (
            known
            for known in PROFILES.values()
            if known.vendor == vendor and device in known.pf_devices.value
        ),
        None,
    )


def by_vf_id(vendor: int, device: int) -> DeviceProfile | None:
    """Find the profile whose VFs have this PCI id, if there is one.

    The id is the one sysfs gives (from the port's SR-IOV capability); a VF's own configuration
    space reads ffff:ffff there.
    """
    return next(
        (
            known
            for known in PROFILES.values()
            if known.vendor == vendor and device == known.vf_device.value
        ),
        None,
    )
