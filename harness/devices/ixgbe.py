"""``ixgbe`` drives these families: 82599, X540 and X550."""

from __future__ import annotations

from dataclasses import replace

from harness.devices.facts import INTEL, DeviceProfile, Fact, FrameLimit, JumboRule, Quirk

_IDS = "drivers/net/ethernet/intel/ixgbe/ixgbe_type.h, IXGBE_DEV_ID_*"
_VF_IDS = "drivers/net/ethernet/intel/ixgbevf/defines.h, IXGBE_DEV_ID_*_VF"
_SRIOV = "drivers/net/ethernet/intel/ixgbe/ixgbe_sriov.c"

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
            "The port's driver sets the link state of a VF to disable when it resets the VF for "
            "the fifth time as a bad one (quirk bad-vf-is-reset), and says `Malicious Driver "
            "Detection event detected`; on by default, off by `ethtool --set-priv-flags PORT "
            "mdd-disable-vf off`.",
            "drivers/net/ethernet/intel/ixgbe/ixgbe_main.c, ixgbe_bad_vf_abort, "
            "IXGBE_PRIMARY_ABORT_LIMIT; ixgbe_probe, IXGBE_FLAG2_AUTO_DISABLE_VF",
        ),
        Quirk(
            "flr-keeps-queue-registers",
            "A function reset leaves VFRDH/T, VFTDH/T, VFPSRTYPE, VFSRRCTL, VFRXDCTL, VFTXDCTL, "
            "VFTDWBAL/H and VFDCA_*CTRL as they are, so a queue stays enabled without a ring.",
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
    """Give the profile *known* for VFs without erratum 35, which twins can be.

    Such a VF advertises its function reset (FLR).
    """
    advertised = Fact(
        True,
        "harness/twin/config_space.py: such a twin shows PCI_EXP_DEVCAP_FLR, which "
        "drivers/vfio/pci/vfio_pci_config.c, vfio_exp_config_write asks for",
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
