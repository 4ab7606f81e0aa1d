"""The switch says which pools a frame of the wire goes to, or why it goes nowhere.

The order is the 82599 datasheet's: exact match, broadcast, unicast hash, multicast hash, multicast
promiscuous, VLAN, default pool, VFRE.
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from port_driver import PEER_MAC, PORT_MAC, Port, port_of_chip
from vf_of_port import mac_of
from vf_rings import frame_of

from harness.uapi.ixgbe_pf import Fctrl, Register, Row, Vmolr, VtCtl

BROADCAST = b"\xff" * 6
GROUP = bytes.fromhex("01005e000102")
OWN, BOTH = 1 << 4, 0b11


@pytest.fixture
def port() -> Iterator[Port]:
    """Two VFs of four receive; each has its address, VLAN 0, and wants broadcasts."""
    with port_of_chip() as port:
        port.start(vfs=4)
        for vf in (0, 1):
            port.set_rar(1 + vf, mac_of(vf), vf)
            port.set_vfta(0, vf, on=True)
            port.write(Row.VMOLR.at(vf), Vmolr.AUPE | Vmolr.BAM)
        port.set_bits(Row.VFRE.at(0), BOTH)
        yield port


def pools(port: Port, to: bytes, tag: int | None = None) -> int:
    """Return the pools that a frame of the wire goes to, as bits."""
    return port.chip.switch.pools_for(memoryview(frame(to, tag)))


def frame(to: bytes, tag: int | None = None, size: int = 64) -> bytes:
    head = to + PEER_MAC
    if tag is not None:
        head += b"\x81\x00" + tag.to_bytes(2, "big")
    return frame_of(size, head=head)


# --- addresses ------------------------------------------------------------------------------


def test_each_step_adds_the_pools_that_it_says(port: Port) -> None:
    assert pools(port, mac_of(1)) == 0b10
    assert pools(port, PORT_MAC) == OWN
    assert pools(port, BROADCAST) == BOTH | OWN
    assert pools(port, bytes.fromhex("020000000099")) == 0


def test_an_address_of_two_pools_goes_to_both_only_with_replication(port: Port) -> None:
    """Without VT_CTL.REPLEN one pool alone gets the frame."""
    port.set_vmdq(1, 1)
    assert pools(port, mac_of(0)) == BOTH
    port.set_bits(Register.VT_CTL, VtCtl.REPLEN, on=False)
    assert pools(port, mac_of(0)) == 0b01


def test_a_multicast_of_the_table_goes_to_pools_that_want_it(port: Port) -> None:
    """Pools with ROMPE get the frame; without such a pool the default pool gets it."""
    assert pools(port, GROUP) == 0
    port.set_multicast(GROUP)
    assert pools(port, GROUP) == OWN
    port.set_bits(Row.VMOLR.at(1), Vmolr.ROMPE)
    assert pools(port, GROUP) == 0b10


def test_the_multicast_table_counts_while_it_is_enabled(port: Port) -> None:
    port.set_multicast(GROUP)
    port.write(Register.MCSTCTRL, 0)
    assert pools(port, GROUP) == 0


def test_an_exact_multicast_address_comes_before_the_table(port: Port) -> None:
    port.set_rar(9, GROUP, 0)
    port.set_multicast(GROUP)
    port.set_bits(Row.VMOLR.at(1), Vmolr.ROMPE)
    assert pools(port, GROUP) == 0b01


def test_a_pool_that_wants_every_multicast_gets_it(port: Port) -> None:
    """Ixgbe sets VMOLR.MPE alone for a trusted VF; broadcasts need BAM."""
    port.write(Row.VMOLR.at(1), Vmolr.AUPE | Vmolr.MPE)
    assert pools(port, GROUP) == 0b10
    assert pools(port, BROADCAST) == 0b01 | OWN


def test_a_promiscuous_port_gets_what_nobody_has(port: Port) -> None:
    """A bridge sets FCTRL.UPE, so that the default pool gets every frame that has no pool."""
    stranger = bytes.fromhex("020000000099")
    port.set_rx_mode(fctrl=Fctrl.UPE | Fctrl.MPE, vmolr=Vmolr.MPE)
    assert pools(port, stranger) == OWN
    assert pools(port, mac_of(0)) == 0b01
    assert pools(port, GROUP) == OWN


def test_without_a_default_pool_a_stray_frame_is_nobodys(port: Port) -> None:
    port.set_rx_mode(fctrl=Fctrl.UPE)
    port.set_bits(Register.VT_CTL, VtCtl.DIS_DEFPL)
    assert pools(port, bytes.fromhex("020000000099")) == 0


def test_the_unicast_table_opens_pools_that_ask_for_it(port: Port) -> None:
    """Pools with VMOLR.ROPE get what UTA knows; an exact match comes first."""
    stranger = bytes.fromhex("020000000098")
    place = stranger[4] >> 4 | stranger[5] << 4
    port.set_bits(Row.UTA.at(place >> 5 & 0x7F), 1 << (place & 31))
    port.set_bits(Row.VMOLR.at(1), Vmolr.ROPE)
    assert pools(port, stranger) == 0b10
    assert pools(port, mac_of(0)) == 0b01


def test_a_port_that_ignores_broadcasts_gives_them_to_no_pool(port: Port) -> None:
    port.write(Register.FCTRL, 0)
    assert pools(port, BROADCAST) == 0


# --- VLANs ----------------------------------------------------------------------------------


def test_a_tagged_frame_goes_to_members_of_its_vlan(port: Port) -> None:
    port.set_vfta(7, 1, on=True)
    assert pools(port, mac_of(1), 7) == 0b10
    assert pools(port, mac_of(1), 8) == 0
    assert pools(port, BROADCAST, 7 | 3 << 13) == 0b10


def test_a_frame_for_a_pool_outside_its_vlan_is_the_default_pools(port: Port) -> None:
    """The chip gives such frames to the default pool ("stray packets leaking into the PF")."""
    port.set_vfta(7, 1, on=True)
    assert pools(port, mac_of(0), 7) == OWN


def test_a_vlan_of_the_port_needs_no_entry(port: Port) -> None:
    """The default pool gets the VLANs that VFTA alone knows (vlvf_bypass)."""
    port.set_bits(Row.VFTA.at(0), 1 << 9)
    assert pools(port, PORT_MAC, 9) == OWN


def test_a_pool_that_wants_no_untagged_frames_gets_none(port: Port) -> None:
    """Ixgbe clears AUPE for a VF in a VLAN of the port's own."""
    port.write(Row.VMOLR.at(0), Vmolr.BAM)
    assert pools(port, BROADCAST) == 0b10 | OWN


def test_without_filtering_of_vlans_every_tag_passes(port: Port) -> None:
    port.write(Register.VLNCTRL, 0)
    assert pools(port, mac_of(0), 1234) == 0b01


def test_a_member_that_is_taken_out_gets_nothing_more(port: Port) -> None:
    port.set_vfta(7, 0, on=True)
    port.set_vfta(7, 1, on=True)
    port.set_vfta(7, 0, on=False)
    assert (pools(port, mac_of(1), 7), pools(port, BROADCAST, 7)) == (0b10, 0b10)


# --- the end --------------------------------------------------------------------------------


def test_a_pool_that_may_not_receive_gets_nothing(port: Port) -> None:
    """The switch looks at VFRE last, so that the default pool does not get the frame."""
    port.set_bits(Row.VFRE.at(0), 0b01, on=False)
    assert (pools(port, mac_of(0)), pools(port, BROADCAST)) == (0, 0b10 | OWN)


def test_a_pool_hears_itself_only_where_that_is_asked_for(port: Port) -> None:
    """VMTXSW gives a pool its own broadcasts."""
    sent = memoryview(frame(BROADCAST))
    assert port.chip.switch.pools_from(sent, 0) == (0b10 | OWN, True)
    port.set_bits(Row.VMTXSW.at(0), 0b01)
    assert port.chip.switch.pools_from(sent, 0) == (BOTH | OWN, True)


def test_between_pools_the_wire_gets_what_no_exact_match_keeps(port: Port) -> None:
    """The unicast table alone, or an address in another VLAN, keeps no frame from the wire."""
    stranger = bytes.fromhex("020000000098")
    place = stranger[4] >> 4 | stranger[5] << 4
    port.set_bits(Row.UTA.at(place >> 5 & 0x7F), 1 << (place & 31))
    port.set_bits(Row.VMOLR.at(1), Vmolr.ROPE)
    from_0 = port.chip.switch.pools_from
    assert from_0(memoryview(frame(stranger)), 0) == (0b10, True)
    assert from_0(memoryview(frame(mac_of(1))), 0) == (0b10, False)
    assert from_0(memoryview(frame(mac_of(1), 7)), 0) == (0, True)


def test_the_longest_frame_is_as_maxfrs_says_and_a_tag_is_free(port: Port) -> None:
    """Without HLREG0.JUMBOEN a standard frame is the longest, whatever MAXFRS says."""
    port.write(Register.MAXFRS, 2000 << 16)
    for longest in (1996, 1514):
        whole, tagged = frame(mac_of(0), size=longest), frame(mac_of(0), 0, size=longest + 4)
        too_long = port.chip.switch.is_too_long
        assert not too_long(memoryview(whole))
        assert not too_long(memoryview(tagged))
        assert too_long(memoryview(whole + b"x"))
        assert too_long(memoryview(tagged + b"x"))
        port.write(Register.HLREG0, 0)


def test_every_frame_that_goes_nowhere_is_counted_by_its_cause(port: Port) -> None:
    port.hear(frame(bytes.fromhex("020000000099")))  # address
    port.hear(frame(mac_of(0), 7))  # vlan
    port.hear(frame(mac_of(0), size=1515), frame(bytes.fromhex("020000000099"), size=9000))
    port.set_bits(Row.VFRE.at(0), 0b01, on=False)
    port.hear(frame(mac_of(0)))  # pool
    port.disable_rx()
    port.hear(frame(mac_of(0)))  # receive
    port.chip.link.plug(False, 10_000)
    port.hear(frame(mac_of(0)))  # link
    assert port.chip.statistics.drops == {
        "address": 2, "vlan": 1, "length": 1, "pool": 1, "receive": 1, "link": 1,
    }  # fmt: skip
    assert port.read(Register.ROC) == 1, "what passes no filter is not counted as oversized"


def test_a_filter_that_leaks_gives_a_pool_what_is_another_pools(port: Port) -> None:
    """A test of isolation has to find this fault."""
    port.chip.switch.leaks_to = 1
    assert (pools(port, mac_of(0)), pools(port, PORT_MAC)) == (BOTH, OWN | 0b10)
    assert port.chip.switch.pools_from(memoryview(frame(mac_of(0))), 4) == (BOTH, False)


# --- a port without VFs ---------------------------------------------------------------------


def test_a_port_without_pools_takes_what_passes_its_filters() -> None:
    with port_of_chip() as port:
        port.start()
        port.set_multicast(GROUP)
        strangers = [bytes.fromhex(each) for each in ("020000000099", "01005e0000ff")]
        port.hear(*(frame(to) for to in (PORT_MAC, BROADCAST, GROUP, *strangers)))
        port.hear(frame(PORT_MAC, 7))
        heads = [each.data[:6] for each in port.rx[0].took()]
        assert heads == [PORT_MAC, BROADCAST, GROUP]
        assert port.chip.statistics.drops == {"address": 2, "vlan": 1}
