"""The switch in a port says which pools a frame goes to, from the wire or from another pool.

Pool ``n`` belongs to VF ``n``, and the default pool (VT_CTL) belongs to the port itself.  ixgbe
makes the first pool after those of the VFs the default pool.  Ref: 82599 datasheet,
"Virtualization", packet switching (VMDq) for receive and for transmit; Linux,
ixgbe_configure_virtualization, ixgbe_set_rx_mode, ixgbe_sriov.c.
"""

from __future__ import annotations

from collections.abc import Callable

from harness.chip.registers import MASK_32, Registers
from harness.twin.filters import multicast_hash
from harness.uapi.ixgbe_pf import (
    HLREG0_JUMBOEN,
    MAXFRS_SHIFT,
    MCSTCTRL_MFE,
    PFDTXGSWC_VT_LBEN,
    POOLS,
    RAH_AV,
    RECEIVE_ADDRESSES,
    SPOOF_MACAS_MASK,
    SPOOF_VLANAS_SHIFT,
    VLAN_FILTERS,
    VLNCTRL_VFE,
    VLVF_VIEN,
    VLVF_VLANID_MASK,
    VMVIR_VLANA_DEFAULT,
    VMVIR_VLANA_NEVER,
    VT_CTL_POOL_MASK,
    VT_CTL_POOL_SHIFT,
    Fctrl,
    Register,
    Row,
    Vmolr,
    VtCtl,
)
from harness.uapi.ixgbe_vf import CHECKSUM_BYTES, TAG_BYTES

_BROADCAST = b"\xff" * 6
_STANDARD_BYTES = 1518
_TAGGED_BYTES = 18
_TABLES = (Row.RAL, Row.RAH, Row.VMOLR, Row.VLVF, Row.VLVFB)
"""The switch keeps these registers in dictionaries, since each frame needs them many times."""

_KEPT = {Row.RAH: RAH_AV | 0xFFFF}
"""A register of such a row keeps only these bits of a write; ixgbe_ethtool.c, reg_test_82599."""


def tag_of(frame: memoryview) -> int | None:
    """Return the VLAN of a tagged frame, and None for a frame without a tag."""
    if len(frame) >= _TAGGED_BYTES and frame[12] == 0x81 and frame[13] == 0x00:
        return (frame[14] << 8 | frame[15]) & 0xFFF
    return None


class Switch:
    """The switch knows the port's filters.  A set of pools is a number with a bit for each pool."""

    def __init__(self, registers: Registers) -> None:
        self._registers = registers
        self._held = registers.held
        self._addresses: dict[bytes, int] | None = None  # None after a change of _TABLES
        self._members: dict[int, int] = {}
        self._with: dict[Vmolr, int] = {}
        for row in _TABLES:
            registers.claim_row(row, write=self._changes(row))
        self.leaks_to: int | None = None
        """This pool gets every frame that any other pool gets, which is a fault."""

    def clear(self) -> None:
        """Forget the dictionaries, since the registers were reset."""
        self._addresses = None

    @property
    def has_pools(self) -> bool:
        """Say whether the driver has enabled pools (VMDq)."""
        return bool(self._held(Register.VT_CTL) & VtCtl.VT_ENABLE)

    @property
    def own_pool(self) -> int:
        """Return the number of the default pool, which is the port's own."""
        return self._held(Register.VT_CTL) >> VT_CTL_POOL_SHIFT & VT_CTL_POOL_MASK

    def is_too_long(self, frame: memoryview) -> bool:
        """Say whether a frame, without its checksum, is longer than the port takes.

        The limit with the checksum is MAXFRS if HLREG0.JUMBOEN is set, else 1518 bytes; a VLAN tag
        may come on top.
        """
        largest = _STANDARD_BYTES
        if self._held(Register.HLREG0) & HLREG0_JUMBOEN:
            largest = self._held(Register.MAXFRS) >> MAXFRS_SHIFT
        room = TAG_BYTES if tag_of(frame) is not None else 0
        return len(frame) + CHECKSUM_BYTES > largest + room

    def filters(self) -> dict[str, dict[str, list[int]]]:
        """Return the numbers of the pools of each exact address, and of each VLAN with an entry."""
        addresses = self._read_tables().items()
        return {
            "addresses": {
                mac.hex(":"): _numbers(self._pools_of_address(index)) for mac, index in addresses
            },
            "vlans": {str(vlan): _numbers(pools) for vlan, pools in self._members.items()},
        }

    def passes(self, frame: memoryview) -> bool:
        """Say whether a frame from the wire passes the port's filters of addresses and VLANs."""
        return self._passes_addresses(bytes(frame[:6])) and self._passes_vlan_table(tag_of(frame))

    def pools_for(self, frame: memoryview) -> int:
        """Return the enabled pools that a frame from the wire goes to."""
        return self._leaked(self._pools_for(frame)) & self._enabled(Row.VFRE)

    def cause(self, frame: memoryview) -> str:
        """Return why no pool gets a frame from the wire, as `PortStatistics` names the causes."""
        if not self._passes_addresses(bytes(frame[:6])):
            return "address"
        return "pool" if self.has_pools and self._pools_for(frame) else "vlan"

    def pools_from(self, frame: memoryview, source: int) -> tuple[int, bool]:
        """Return the pools that get a frame of pool *source*, and whether the wire gets the frame.

        The wire gets every frame but this one: a unicast frame whose destination has an exact
        match, with a pool that takes the frame's VLAN.  Pool *source* gets its own frame only if
        VMTXSW has the bit of the pool.  Without pools, or without loopback between pools
        (PFDTXGSWC), no pool gets the frame and the wire does.
        """
        if not self.has_pools or not self._held(Register.PFDTXGSWC) & PFDTXGSWC_VT_LBEN:
            return 0, True
        mac, tag = bytes(frame[:6]), tag_of(frame)
        found = self._by_vlan(self._candidates(mac), tag)
        others = self._leaked(found) & self._enabled(Row.VFRE)
        if not self._held(Row.VMTXSW.at(source >> 5)) >> (source & 31) & 1:
            others &= ~(1 << source)
        to_wire = bool(mac[0] & 1) or self._exact(mac) is None or not found
        return others, to_wire

    def lets_out(self, pool: int, source: bytes, vlan: int | None) -> bool:
        """Say whether anti-spoofing lets *pool* send from this address, in this VLAN.

        A frame without a tag names no VLAN that the pool could be no member of.  No driver shows
        how silicon treats such a frame: ixgbe makes a VF without a port VLAN a member of VLAN 0.
        """
        guard = self._held(Row.PFVFSPOOF.at(pool >> 3))
        if guard & SPOOF_MACAS_MASK & 1 << (pool & 7):
            found = self._exact(source)
            if found is None or not self._pools_of_address(found) >> pool & 1:
                return False
        if vlan is not None and guard & 1 << (SPOOF_VLANAS_SHIFT + (pool & 7)):
            return bool(self._vlan_members(vlan) >> pool & 1)
        return True

    def disable(self, pool: int) -> None:
        """Let *pool* neither receive nor send until the port's driver sets VFRE and VFTE again."""
        for row in (Row.VFRE, Row.VFTE):
            place = row.at(pool >> 5)
            self._registers.hold(place, self._held(place) & ~(1 << (pool & 31)))

    def sends(self, pool: int) -> bool:
        """Say whether VFTE lets *pool* send; without pools the answer is yes."""
        return not self.has_pools or bool(self._enabled(Row.VFTE) >> pool & 1)

    def tag(self, pool: int, asked: int | None) -> int | None:
        """Return the VLAN tag that a frame of *pool* gets, or None for no tag.

        VMVIR of the pool chooses the pool's own tag with its priority, no tag, or the tag *asked*
        that the frame's descriptor asks for.  Ref: Linux, ixgbe_set_vmvir.
        """
        value = self._held(Row.VMVIR.at(pool))
        if value & VMVIR_VLANA_NEVER:
            return None
        return value & 0xFFFF if value & VMVIR_VLANA_DEFAULT else asked

    def _pools_for(self, frame: memoryview) -> int:
        """Return the pools of a frame from the wire, disabled pools included.

        The steps are those of the datasheet before VFRE.  A frame that passes the filters and has
        no pool goes to the default pool, unless VT_CTL.DIS_DEFPL is set: ixgbe relies on that for
        VLANs of the port that have no VLVF entry (ixgbe_find_vlvf_slot, *vlvf_bypass*).
        """
        if not self.passes(frame):
            return 0
        control = self._held(Register.VT_CTL)
        pools = self._by_vlan(self._candidates(bytes(frame[:6])), tag_of(frame))
        if not pools and not control & VtCtl.DIS_DEFPL:
            pools = 1 << self.own_pool
        return pools if control & VtCtl.REPLEN else pools & -pools

    def _passes_addresses(self, mac: bytes) -> bool:
        """Say whether FCTRL, the receive addresses, MTA and UTA let the destination *mac* pass.

        VMOLR.MPE of any pool lets every multicast frame pass: for a VF that wants all of them,
        ixgbe_update_vf_xcast_mode sets bits of VMOLR, and not FCTRL.MPE.
        """
        control = self._held(Register.FCTRL)
        if mac == _BROADCAST:
            return bool(control & Fctrl.BAM)
        if self._exact(mac) is not None:
            return True
        if mac[0] & 1:
            return bool(
                control & Fctrl.MPE or self._in_multicast_table(mac) or self._pools_with(Vmolr.MPE)
            )
        return bool(control & Fctrl.UPE) or self._in_table(Row.UTA, mac)

    def _candidates(self, mac: bytes) -> int:
        """Return the pools that want frames to *mac*: exact match, broadcast, hash, promiscuity."""
        found = self._exact(mac)
        pools = 0 if found is None else self._pools_of_address(found)
        if mac == _BROADCAST:
            return pools | self._pools_with(Vmolr.BAM)
        if not mac[0] & 1:
            if not pools and self._in_table(Row.UTA, mac):
                return self._pools_with(Vmolr.ROPE)
            return pools
        if not pools and self._in_multicast_table(mac):
            pools = self._pools_with(Vmolr.ROMPE)
        return pools | self._pools_with(Vmolr.MPE)

    def _by_vlan(self, pools: int, tag: int | None) -> int:
        if tag is None:
            return pools & self._pools_with(Vmolr.AUPE)
        if not self._held(Register.VLNCTRL) & VLNCTRL_VFE:
            return pools
        return pools & self._vlan_members(tag)

    def _passes_vlan_table(self, tag: int | None) -> bool:
        if tag is None or not self._held(Register.VLNCTRL) & VLNCTRL_VFE:
            return True
        return bool(self._held(Row.VFTA.at(tag >> 5)) >> (tag & 31) & 1)

    def _vlan_members(self, tag: int) -> int:
        self._read_tables()
        return self._members.get(tag, 0)

    def _exact(self, mac: bytes) -> int | None:
        """Return the number of the receive address register with *mac*; None without one."""
        return self._read_tables().get(mac)

    def _changes(self, row: Row) -> Callable[[int, int], None]:
        kept = _KEPT.get(row, MASK_32)

        def write(index: int, value: int) -> None:
            self._registers.hold(row.at(index), value & kept)
            self._addresses = None

        return write

    def _read_tables(self) -> dict[bytes, int]:
        """Return the first register of each exact address; make dictionaries anew after changes."""
        if self._addresses is not None:
            return self._addresses
        held = self._held
        self._addresses = {}
        for index in reversed(range(RECEIVE_ADDRESSES)):
            high = held(Row.RAH.at(index))
            if high & RAH_AV:
                low = held(Row.RAL.at(index)).to_bytes(4, "little")
                self._addresses[low + (high & 0xFFFF).to_bytes(2, "little")] = index
        self._members = {}
        for index in range(VLAN_FILTERS):
            value = held(Row.VLVF.at(index))
            if value & VLVF_VIEN:
                low_pools, high_pools = (
                    held(Row.VLVFB.at(2 * index)),
                    held(Row.VLVFB.at(2 * index + 1)),
                )
                self._members.setdefault(value & VLVF_VLANID_MASK, high_pools << 32 | low_pools)
        self._with = {
            bit: sum(1 << pool for pool in range(POOLS) if held(Row.VMOLR.at(pool)) & bit)
            for bit in Vmolr
        }
        return self._addresses

    def _pools_of_address(self, index: int) -> int:
        return self._held(Row.MPSAR_HI.at(index)) << 32 | self._held(Row.MPSAR_LO.at(index))

    def _in_multicast_table(self, mac: bytes) -> bool:
        enabled = self._held(Register.MCSTCTRL) & MCSTCTRL_MFE
        return bool(enabled) and self._in_table(Row.MTA, mac)

    def _in_table(self, table: Row, mac: bytes) -> bool:
        place = multicast_hash(mac)
        return bool(self._held(table.at(place >> 5)) >> (place & 31) & 1)

    def _pools_with(self, bit: Vmolr) -> int:
        self._read_tables()
        return self._with[bit]

    def _enabled(self, row: Row) -> int:
        return self._held(row.at(1)) << 32 | self._held(row.at(0))

    def _leaked(self, pools: int) -> int:
        return pools if self.leaks_to is None or not pools else pools | 1 << self.leaks_to


def _numbers(pools: int) -> list[int]:
    return [pool for pool in range(POOLS) if pools >> pool & 1]
