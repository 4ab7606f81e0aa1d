"""Device profiles: what is true of one NIC family, each fact with its source.

Schemes and tests ask the profile and never compare a driver's name.  A source is a file of the
Linux kernel (mainline, 6.x; names are the kernel's), a numbered Intel erratum, or a measurement.
Where no source could be named the fact is left out (None), and the hardware itself must be asked.
"""

from __future__ import annotations

import difflib
from dataclasses import dataclass, replace
from enum import Enum
from typing import Generic, TypeVar

from harness.errors import UsageError

T = TypeVar("T")

INTEL = 0x8086

ETH_DATA_LEN = 1500
"""The MTU beyond which a frame is jumbo; the name is that of <linux/if_ether.h>."""

ETH_HLEN, ETH_FCS_LEN = 14, 4
"""What a frame has around its payload; <linux/if_ether.h>."""

_IDS = "drivers/net/ethernet/intel/ixgbe/ixgbe_type.h, IXGBE_DEV_ID_*"
_VF_IDS = "drivers/net/ethernet/intel/ixgbevf/defines.h, IXGBE_DEV_ID_*_VF"
_SRIOV = "drivers/net/ethernet/intel/ixgbe/ixgbe_sriov.c"
_QEMU = "measured with QEMU 10.0.2 (igb) and Linux 6.1"


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
    """What a VF's MTU has to do with the MTU of its port."""

    FOLLOWS_PORT = "follows-port"
    """Jumbo on the VF needs jumbo on the port; a mix with an old VF driver receives nothing."""

    INDEPENDENT = "independent"
    """The VF's MTU is accepted whatever the port's is."""


class FrameLimit(Enum):
    """Whose size a frame must not exceed for a VF to receive it."""

    PORT = "port"
    """The largest that the port or any VF of its has asked for: one register for all of them."""

    VF = "vf"
    """The VF's own."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DeviceProfile:
    """What is true of one NIC family."""

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
    """Whether a function reset of a VF leaves its MAC address in the port's filter.

    Where it does not, the VF's own reset message puts the address back; see `migration.handoff`.
    """
    vf_link_states: Fact[frozenset[str]]
    """The values of ``ip link set PF vf N state`` that change something; empty: refused."""
    vf_frame_limit: Fact[FrameLimit]
    """Whose MTU decides which frames a VF receives, where the VF's is smaller than its port's."""
    vf_spoof_check: Fact[bool]
    """Whether the port drops what a VF sends with another's address, unless that is turned off."""
    vf_frame_room: Fact[int]
    """How many bytes a frame may have beyond that MTU, its header and its checksum."""
    vf_receive_queues: Fact[range]
    """Where in BAR 0 of a VF the registers of each of its receive queues begin."""
    quirks: tuple[Quirk, ...] = ()

    def quirk(self, name: str) -> Quirk | None:
        """Find the quirk of that name; None where this family does not have it."""
        return next((quirk for quirk in self.quirks if quirk.name == name), None)

    def vf_takes(self, frame_bytes: int, *, vf_mtu: int, port_mtu: int) -> bool:
        """Say whether a VF with *vf_mtu* on a port with *port_mtu* receives an untagged frame.

        *frame_bytes* is its size without its checksum.  The VF is one that receives at all (see
        `vf_receives`), and no other VF of the port has a larger MTU.
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


_MAC_NEEDS_RELOAD = Quirk(
    "mac-needs-reload",
    "A MAC address set on the port takes effect when the VF's driver is next loaded or reset.",
    f"{_SRIOV}, ixgbe_ndo_set_vf_mac",
)
_RESET_DROPS_API = Quirk(
    "reset-drops-mailbox-api",
    "Each VF reset puts the mailbox API back to 1.0 and clears VLAN and multicast filters.",
    f"{_SRIOV}, ixgbe_vf_reset_event",
)
_ENABLE_IGNORED = Quirk(
    "link-state-enable-ignored",
    "`ip link set PF vf N state enable` succeeds and changes nothing.",
    f"{_SRIOV}, ixgbe_ndo_set_vf_link_state",
)
_FEWER_VFS = Quirk(
    "traffic-classes-cost-vfs",
    "With 2 to 4 traffic classes the driver allows 31 VFs, with more than 4 it allows 15.",
    f"{_SRIOV}, ixgbe_pci_sriov_enable",
)
_FLR_KEEPS_ADDRESS = Quirk(
    "flr-keeps-write-back-address",
    "A function reset leaves TDWBAL and TDWBAH; the port's driver clears them when the VF says "
    "that it was reset.",
    f"{_SRIOV}, ixgbe_vf_reset_msg",
)
_RECORD_OUTLIVES_FILTER = Quirk(
    "record-outlives-filter",
    "After a reset of the VF or of its port `ip link` shows an address that the filter does not "
    "hold, to clear it is refused with ENOMEM, and the VF's own reset message puts it back.",
    f"{_SRIOV}, ixgbe_vf_reset_event, ixgbe_ndo_set_vf_mac, ixgbe_vf_reset_msg",
)
_BAD_VF_RESET = Quirk(
    "bad-vf-is-reset",
    "While the port sends nothing, its driver resets each VF whose STATUS says `received master "
    "abort` at every tick of its watchdog, and does not put configuration space back: BME stays "
    "clear under the guest's driver, and an observer takes that for a release.",
    "drivers/net/ethernet/intel/ixgbe/ixgbe_main.c, ixgbe_check_for_bad_vf: pcie_flr alone",
)
_IXGBE_QUIRKS = (
    *(_MAC_NEEDS_RELOAD, _RESET_DROPS_API, _ENABLE_IGNORED),
    *(_FEWER_VFS, _FLR_KEEPS_ADDRESS, _RECORD_OUTLIVES_FILTER, _BAD_VF_RESET),
)

I82599 = DeviceProfile(
    name="82599",
    vendor=INTEL,
    pf_devices=Fact(
        frozenset(
            {
                *(0x10F7, 0x10F8, 0x10F9, 0x10FB, 0x10FC, 0x1507, 0x1514, 0x1517),
                *(0x151C, 0x1529, 0x152A, 0x154A, 0x154D, 0x154F, 0x1557, 0x1558),
            }
        ),
        _IDS,
    ),
    vf_device=Fact(0x10ED, _VF_IDS),
    pf_driver=Fact("ixgbe", "drivers/net/ethernet/intel/ixgbe/ixgbe_main.c, ixgbe_pci_tbl"),
    vf_driver=Fact("ixgbevf", "drivers/net/ethernet/intel/ixgbevf/ixgbevf_main.c, ixgbevf_pci_tbl"),
    max_vfs=Fact(63, "drivers/net/ethernet/intel/ixgbe/ixgbe_sriov.h, IXGBE_MAX_VFS_DRV_LIMIT"),
    pf_max_mtu=Fact(9710, "drivers/net/ethernet/intel/ixgbe/ixgbe_main.c, ixgbe_probe, max_mtu"),
    vf_max_mtu=Fact(
        9710, "drivers/net/ethernet/intel/ixgbevf/ixgbevf_main.c, ixgbevf_probe, mailbox API 1.1 on"
    ),
    max_frame_bytes=Fact(
        9728, "drivers/net/ethernet/intel/ixgbe/ixgbe.h, IXGBE_MAX_JUMBO_FRAME_SIZE"
    ),
    jumbo_rule=Fact(JumboRule.FOLLOWS_PORT, f"{_SRIOV}, ixgbe_set_vf_lpe"),
    vf_advertises_flr=Fact(
        False,
        "Intel 82599 errata, no. 35; drivers/pci/quirks.c, reset_intel_82599_sfp_virtfn",
    ),
    vf_has_memory_enable=Fact(
        False,
        'Linux commit ebfa440ce38b ("vfio/pci: Fix SR-IOV VF handling with MMIO blocking"): '
        "the port's SR-IOV capability governs it",
    ),
    filter_survives_reset=Fact(
        False, f"{_SRIOV}, ixgbe_vf_reset_event deletes it, ixgbe_vf_reset_msg enters it again"
    ),
    vf_link_states=Fact(frozenset({"auto", "disable"}), f"{_SRIOV}, ixgbe_ndo_set_vf_link_state"),
    vf_frame_limit=Fact(
        FrameLimit.PORT,
        f"{_SRIOV}, ixgbe_set_vf_lpe only raises MAXFRS, which is the port's; "
        "ixgbevf_configure_rx_ring: RXDCTL.RLPML, which would be the VF's, does not work on 82599",
    ),
    vf_spoof_check=Fact(True, f"{_SRIOV}, ixgbe_ndo_set_vf_spoofchk"),
    vf_frame_room=Fact(0, f"{_SRIOV}, ixgbe_set_vf_lpe: MAXFRS counts header and checksum, no tag"),
    vf_receive_queues=Fact(
        range(0x1000, 0x1200, 0x40), "drivers/net/ethernet/intel/ixgbevf/regs.h, IXGBE_VFRDBAL"
    ),
    quirks=(
        *_IXGBE_QUIRKS,
        Quirk(
            "jumbo-port-mutes-reset-vf",
            "On a jumbo port a VF receives nothing after a reset, or a change of trust or link "
            "state, until it asks for its frame size again.",
            f"{_SRIOV}, ixgbe_set_vf_rx_tx",
        ),
        Quirk(
            "old-mailbox-mtu",
            "A VF driver left with mailbox API 1.0 is limited to an MTU of 1504.",
            "drivers/net/ethernet/intel/ixgbevf/ixgbevf_main.c, ixgbevf_probe",
        ),
        Quirk(
            "bad-vf-is-disabled",
            "At the fifth such reset its driver sets the VF's link state to disable, and says "
            "`Malicious Driver Detection event detected`; on by default, off by `ethtool "
            "--set-priv-flags PORT mdd-disable-vf off`.",
            "drivers/net/ethernet/intel/ixgbe/ixgbe_main.c, ixgbe_bad_vf_abort, "
            "IXGBE_PRIMARY_ABORT_LIMIT; ixgbe_probe, IXGBE_FLAG2_AUTO_DISABLE_VF",
        ),
        Quirk(
            "flr-keeps-queue-registers",
            "A function reset leaves VFRDH/T, VFTDH/T, VFPSRTYPE, VFSRRCTL, VFRXDCTL, VFTXDCTL, "
            "VFTDWBAL/H and VFDCA_*CTRL: a queue is enabled still, and its ring has no length.",
            "Intel 82599 specification update, software clarification 5",
        ),
        Quirk(
            "wrong-completer-id",
            "Completions of a VF's configuration cycles carry another function's number.",
            "Intel 82599 errata, no. 36",
        ),
    ),
)


def without_erratum_35(known: DeviceProfile) -> DeviceProfile:
    """Give the profile of VFs that are those of *known* but for erratum 35: twins can be so."""
    advertised = Fact(
        True,
        "drivers/vfio/pci/vfio_pci_config.c, vfio_exp_config_write: PCI_EXP_DEVCAP_FLR is what it "
        "asks, and what such a twin shows",
    )
    return replace(known, vf_advertises_flr=advertised)


def _later_ixgbe(name: str, *, pf_devices: frozenset[int], vf_device: int) -> DeviceProfile:
    """Describe a successor of the 82599: the same drivers, without the 82599's own limits."""
    return replace(
        I82599,
        name=name,
        pf_devices=Fact(pf_devices, _IDS),
        vf_device=Fact(vf_device, _VF_IDS),
        jumbo_rule=Fact(
            JumboRule.INDEPENDENT,
            f"{_SRIOV}, ixgbe_set_vf_lpe: the rule is for ixgbe_mac_82599EB only",
        ),
        vf_advertises_flr=None,
        quirks=(
            *_IXGBE_QUIRKS,
            Quirk(
                "small-buffers-limit-frames",
                "A VF whose driver has buffers of 2 KiB receives no larger frame, whatever the "
                "port's MTU (RXDCTL.RLPML).",
                "drivers/net/ethernet/intel/ixgbevf/ixgbevf_main.c, ixgbevf_configure_rx_ring",
            ),
        ),
    )


X540 = _later_ixgbe("X540", pf_devices=frozenset({0x1528, 0x1560}), vf_device=0x1515)
X550 = _later_ixgbe("X550", pf_devices=frozenset({0x1563, 0x15D1}), vf_device=0x1565)

I82576 = DeviceProfile(
    name="82576",
    vendor=INTEL,
    pf_devices=Fact(
        frozenset({0x10C9, 0x10E6, 0x10E7, 0x10E8, 0x150A, 0x150D, 0x1518, 0x1526}),
        "drivers/net/ethernet/intel/igb/e1000_hw.h, E1000_DEV_ID_82576*",
    ),
    vf_device=Fact(0x10CA, "drivers/net/ethernet/intel/igbvf/vf.h, E1000_DEV_ID_82576_VF"),
    pf_driver=Fact("igb", _QEMU),
    vf_driver=Fact("igbvf", _QEMU),
    max_vfs=Fact(7, "drivers/net/ethernet/intel/igb/igb_main.c, igb_probe_vfs"),
    pf_max_mtu=Fact(9216, "drivers/net/ethernet/intel/igb/igb_main.c, igb_probe, max_mtu"),
    vf_max_mtu=Fact(9216, _QEMU),
    max_frame_bytes=Fact(9234, f"{_QEMU}: MTU 9216 with header and checksum"),
    jumbo_rule=Fact(JumboRule.INDEPENDENT, f"{_QEMU}: VF MTU 9000 on a port with 1500"),
    vf_advertises_flr=Fact(True, 'QEMU commit d90014fc337a ("igb: Add Function Level Reset")'),
    vf_has_memory_enable=Fact(True, f"{_QEMU}: writable bits of the VF's command are 0507"),
    filter_survives_reset=Fact(
        True,
        "drivers/net/ethernet/intel/igb/igb_main.c, igb_vf_reset_event leaves RAL and RAH of an "
        "address that an administrator gave",
    ),
    vf_link_states=Fact(frozenset(), f"{_QEMU}: EOPNOTSUPP"),
    vf_frame_limit=Fact(
        FrameLimit.VF,
        "drivers/net/ethernet/intel/igb/igb_main.c, igb_set_vf_rlpml: VMOLR, the VF's",
    ),
    vf_spoof_check=Fact(
        False,
        "measured with QEMU 11.1 (igb) and Linux 6.12: `spoofchk on` is shown, and frames with "
        "another's address are sent all the same",
    ),
    vf_frame_room=Fact(
        4, "drivers/net/ethernet/intel/igb/igb_main.c, igb_set_vf_rlpml: VLAN_TAG_SIZE is added"
    ),
    vf_receive_queues=Fact(
        range(0x2800, 0x2A00, 0x100), "drivers/net/ethernet/intel/igbvf/regs.h, E1000_RDBAL"
    ),
    quirks=(
        Quirk(
            "mac-needs-reload",
            "A MAC address set on the port takes effect when the VF's driver is next loaded.",
            _QEMU,
        ),
        Quirk(
            "vf-made-while-port-down",
            "A VF made while the port is down has a random MAC address and a link that comes up "
            "seconds late.",
            _QEMU,
        ),
    ),
)

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
        fix=f"name one of {', '.join(sorted(PROFILES))}, or add a profile to harness/devices.py",
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
