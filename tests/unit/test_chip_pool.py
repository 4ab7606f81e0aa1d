"""A port says what a VF may send, and which tag each of its frames gets.

Ref: Linux, ixgbe_sriov.c: ixgbe_ndo_set_vf_spoofchk, ixgbe_enable_port_vlan.
"""

from __future__ import annotations

import pytest
from port_driver import PEER_MAC, PORT_MAC, Port, port_of_chip
from vf_of_port import PortVf, mac_of, vf_of
from vf_rings import frame_of

from harness.uapi.ixgbe_pf import VMVIR_VLANA_NEVER, Register, Row
from harness.uapi.ixgbe_vf import Register as VfRegister
from harness.uapi.ixgbe_vf import RxStatus, TxCommand

RS_VLE = TxCommand.RS | TxCommand.VLE


def frame(to: bytes, source: bytes, size: int = 100) -> bytes:
    return frame_of(size, head=to + source)


def tagged(whole: bytes, tag: int) -> bytes:
    return whole[:12] + b"\x81\x00" + tag.to_bytes(2, "big") + whole[12:]


OWN = frame(PEER_MAC, mac_of(0))


# --- anti-spoofing --------------------------------------------------------------------------


def test_a_foreign_source_address_is_held_back_and_counted(port: Port, vf: PortVf) -> None:
    """The driver reads SSVPC every two seconds, and says "Spoofed packets detected"."""
    port.set_rar(2, mac_of(1), 1)
    vf.tx.send(frame(PEER_MAC, mac_of(1)))  # another VF's
    vf.tx.send(frame(PEER_MAC, mac_of(9)))  # nobody's
    vf.tx.send(OWN)
    assert (port.sent, vf.function.statistics.spoofed) == ([OWN], 2)
    assert [port.read(Register.SSVPC) for _ in range(2)] == [2, 0]


def test_a_tag_that_the_vf_has_no_filter_for_is_held_back(port: Port, vf: PortVf) -> None:
    """The descriptor may ask for the tag or the guest write it; both need VLVF and VLVFB."""
    vf.add_vlan(7)
    for vlan in (7, 8):
        vf.tx.put_context(vlan=vlan)
        vf.tx.send(OWN, command=RS_VLE)
        vf.tx.send(tagged(OWN, vlan))
    assert port.sent == [tagged(OWN, 7)] * 2
    assert port.read(Register.SSVPC) == 2


def test_a_filter_of_another_vf_lets_nothing_out(port: Port, vf: PortVf) -> None:
    port.set_vfta(7, 1, on=True)
    vf.tx.send(tagged(OWN, 7))
    assert port.sent == []


def test_a_priority_tag_is_of_vlan_0_and_no_tag_of_no_vlan(port: Port, vf: PortVf) -> None:
    """Every VF is in VLAN 0 from its reset on; the model of the port's driver has the same rule."""
    port.set_vfta(0, 0, on=False)
    vf.tx.send(tagged(OWN, 5 << 13))
    vf.tx.send(OWN)
    assert port.sent == [OWN]
    port.set_vfta(0, 0, on=True)
    vf.tx.send(tagged(OWN, 5 << 13))
    assert port.sent[1:] == [tagged(OWN, 5 << 13)]


def test_without_checks_every_frame_leaves(port: Port, vf: PortVf) -> None:
    port.set_spoof_check(0, False)
    vf.tx.send(tagged(frame(PEER_MAC, mac_of(1)), 8))
    assert port.sent == [tagged(frame(PEER_MAC, mac_of(1)), 8)]


def test_only_what_is_marked_is_counted(port: Port, vf: PortVf) -> None:
    """VMECM marks a VF whose frames are counted (ixgbe_vf_reset_msg); all are held back."""
    port.write(Row.VMECM.at(0), 0)
    vf.tx.send(frame(PEER_MAC, mac_of(1)))
    assert (port.sent, port.read(Register.SSVPC)) == ([], 0)


def test_a_vf_that_is_disabled_sends_nothing_and_is_no_spoofer(port: Port, vf: PortVf) -> None:
    vf.enable(False)
    vf.tx.send(OWN)
    assert (port.sent, port.read(Register.SSVPC)) == ([], 0)


# --- the port's own VLAN --------------------------------------------------------------------


def test_frames_of_a_vf_in_a_port_vlan_are_tagged_on_the_wire(port: Port, vf: PortVf) -> None:
    """VMVIR puts VLAN and priority in, whatever the descriptor asks for."""
    vf.set_port_vlan(100, priority=3)
    vf.tx.send(OWN)
    vf.tx.put_context(vlan=7)
    vf.tx.send(OWN, command=RS_VLE)
    assert port.sent == [tagged(OWN, 100 | 3 << 13)] * 2


def test_a_port_vlan_of_0_with_a_priority_is_a_priority_tag(port: Port, vf: PortVf) -> None:
    """`ip link set vf 0 vlan 0 qos 5` leaves the VLAN of the pool 0."""
    port.write(Row.VMVIR.at(0), 5 << 13 | 0x40000000)
    vf.tx.send(OWN)
    assert port.sent == [tagged(OWN, 5 << 13)]


def test_a_pool_that_never_gets_a_tag_gets_none(port: Port, vf: PortVf) -> None:
    port.write(Row.VMVIR.at(0), VMVIR_VLANA_NEVER)
    vf.add_vlan(7)
    vf.tx.put_context(vlan=7)
    vf.tx.send(OWN, command=RS_VLE)
    assert port.sent == [OWN]


def test_a_vf_in_a_port_vlan_receives_that_vlan_alone_and_stripped(port: Port, vf: PortVf) -> None:
    """AUPE is off and VLAN 0 is taken away; RXDCTL.VME takes the tag out and tells it."""
    vf.set_port_vlan(100, priority=3)
    to_vf = frame(mac_of(0), PEER_MAC)
    port.set_vfta(7, 1, on=True)
    port.hear(to_vf, tagged(to_vf, 7), tagged(to_vf, 100 | 3 << 13))
    (only,) = vf.rx.took()
    assert (only.data, only.tag) == (to_vf, 100 | 3 << 13)
    assert only.status & RxStatus.VP


def test_two_vfs_in_one_port_vlan_meet_and_the_port_does_not(port: Port, vf: PortVf) -> None:
    """The switch looks at frames between pools as they leave, with their tag."""
    with vf_of(port, 1) as other:
        vf.set_port_vlan(100)
        other.set_port_vlan(100)
        vf.tx.send(frame(mac_of(1), mac_of(0)))
        vf.tx.send(frame(b"\xff" * 6, mac_of(0)))
        port.turn()
        assert other.got() == [frame(mac_of(1), mac_of(0)), frame(b"\xff" * 6, mac_of(0))]
    assert [each.data for each in port.rx[0].took()] == []
    assert port.sent == [tagged(frame(b"\xff" * 6, mac_of(0)), 100)]


def test_a_port_vlan_that_is_taken_away_leaves_nothing(port: Port, vf: PortVf) -> None:
    vf.set_port_vlan(100)
    vf.clear_port_vlan(100)
    vf.tx.send(OWN)
    port.hear(frame(mac_of(0), PEER_MAC), tagged(frame(mac_of(0), PEER_MAC), 100))
    assert (port.sent, vf.got()) == ([OWN], [frame(mac_of(0), PEER_MAC)])


def test_the_ports_own_tags_are_as_its_driver_asks(port: Port) -> None:
    own = frame(PEER_MAC, PORT_MAC)
    port.set_vfta(9, port.pool, on=True)
    port.tx[0].put_context(vlan=9)
    port.tx[0].send(own, command=RS_VLE)
    assert port.sent == [tagged(own, 9)]


# --- queues ---------------------------------------------------------------------------------


@pytest.mark.parametrize(("vfs", "queues"), [(4, 4), (40, 2)])
def test_no_setting_of_a_vf_leads_beyond_its_queues(vfs: int, queues: int) -> None:
    """RQPL asks for up to 128 queues, and the table has entries up to 15."""
    with port_of_chip(40) as port:
        port.start(vfs=vfs, queues=2)
        for index in range(Row.RETA.count):
            port.write(Row.RETA.at(index), 0x0F0E0D0C)
        function = port.chip.vfs[0]
        pool = port.chip.vfs[0].receiver._port
        chosen = set()
        for bits in range(8):
            function.write(VfRegister.VFPSRTYPE, bits << 29)
            chosen |= {pool.choose_queue(hashed) for hashed in range(128)}
        assert chosen == set(range(queues))


def test_frames_are_spread_over_as_many_queues_as_the_vf_asks_for(port: Port) -> None:
    for index in range(Row.RETA.count):
        port.write(Row.RETA.at(index), 0x03020100)
    pool = port.chip.vfs[0].receiver._port
    for bits, queues in ((0, 1), (1, 2), (2, 4)):
        port.chip.vfs[0].write(VfRegister.VFPSRTYPE, bits << 29)
        assert {pool.choose_queue(hashed) for hashed in range(8)} == set(range(queues))


def test_the_ports_own_frames_never_leave_its_queues(port: Port) -> None:
    """Between two writes of its driver VT_CTL has pools and GCR_EXT has no mode for them yet."""
    port.write(Register.GCR_EXT, 0)
    port.hear(frame(PORT_MAC, PEER_MAC))
    assert port.chip.statistics.missed == 1
