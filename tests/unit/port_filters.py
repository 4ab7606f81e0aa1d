"""A port's tables of addresses and VLANs are written here as ixgbe writes them.

The functions of ixgbe, in Linux 6.12, are in ixgbe_common.c, and that of the check for spoofing in
ixgbe_sriov.c; the names stand at ours.
"""

from __future__ import annotations

from harness.chip.physical_function import PhysicalFunction
from harness.uapi import ixgbe_pf
from harness.uapi.ixgbe_pf import Register, Row, VtCtl

_LOW = 0xFFFFFFFF


class PortFilters:
    """A port's driver says here which pool gets which frames."""

    def __init__(self, chip: PhysicalFunction) -> None:
        self.chip = chip

    def read(self, register: int) -> int:
        return self.chip.read(register)

    def write(self, register: int, value: int) -> None:
        self.chip.write(register, value)

    def set_bits(self, register: int, bits: int, *, on: bool = True) -> None:
        """Set or clear bits of a register, as a driver does: read, changed, written."""
        value = self.read(register)
        self.write(register, value | bits if on else value & ~bits & _LOW)

    def clear_rows(self, *rows: Row) -> None:
        for row in rows:
            for index in range(row.count):
                self.write(row.at(index), 0)

    def set_rar(self, index: int, mac: bytes, pool: int) -> None:
        """Do as ixgbe_set_rar_generic."""
        self.set_vmdq(index, pool)
        self.write(Row.RAL.at(index), int.from_bytes(mac[:4], "little"))
        self.write(Row.RAH.at(index), int.from_bytes(mac[4:], "little") | ixgbe_pf.RAH_AV)

    def set_vmdq(self, index: int, pool: int) -> None:
        """Do as ixgbe_set_vmdq_generic."""
        row = Row.MPSAR_LO if pool < 32 else Row.MPSAR_HI
        self.set_bits(row.at(index), 1 << (pool & 31))

    def set_vfta(self, vlan: int, pool: int, *, on: bool) -> None:
        """Do as ixgbe_set_vfta_generic: the table of VLANs, and with pools the list of members."""
        if not self.read(Register.VT_CTL) & VtCtl.VT_ENABLE:
            self.set_bits(Row.VFTA.at(vlan >> 5), 1 << (vlan & 31), on=on)
            return
        index = self._vlvf_slot(vlan)
        word = Row.VLVFB.at(2 * index + (pool >> 5))
        self.set_bits(word, 1 << (pool & 31), on=on)
        if not on and not any(self.read(Row.VLVFB.at(2 * index + half)) for half in (0, 1)):
            self.set_bits(Row.VFTA.at(vlan >> 5), 1 << (vlan & 31), on=False)
            self.write(Row.VLVF.at(index), 0)
            return
        self.write(Row.VLVF.at(index), ixgbe_pf.VLVF_VIEN | vlan)
        self.set_bits(Row.VFTA.at(vlan >> 5), 1 << (vlan & 31))

    def set_spoof_check(self, vf: int, on: bool) -> None:
        """Do as ixgbe_ndo_set_vf_spoofchk: addresses and VLANs together."""
        bits = 0x101 << (vf & 7)
        self.set_bits(Row.PFVFSPOOF.at(vf >> 3), bits, on=on)

    def set_multicast(self, mac: bytes, *, on: bool = True) -> None:
        """Do as ixgbe_set_mta."""
        place = mac[4] >> 4 | mac[5] << 4
        self.set_bits(Row.MTA.at(place >> 5 & 0x7F), 1 << (place & 31), on=on)

    def _vlvf_slot(self, vlan: int) -> int:
        """Return the VLAN's entry, or the last empty one; 0 for VLAN 0 (ixgbe_find_vlvf_slot)."""
        entries = [self.read(Row.VLVF.at(index)) for index in range(ixgbe_pf.VLAN_FILTERS)]
        if vlan == 0:
            return 0
        if (wanted := vlan | ixgbe_pf.VLVF_VIEN) in entries:
            return entries.index(wanted)
        return max(index for index, entry in enumerate(entries) if not entry)
