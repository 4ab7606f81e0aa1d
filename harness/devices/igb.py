"""``igb`` drives this family, the 82576, of which QEMU has a model."""

from __future__ import annotations

from harness.devices.facts import INTEL, DeviceProfile, Fact, FrameLimit, JumboRule, Quirk

_QEMU = "measured with QEMU 10.0.2 (igb) and Linux 6.1"

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
