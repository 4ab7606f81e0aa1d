"""What a port's driver has set for a VF, in plain names: filters, receiver, limits, what is shown.

Ref: Linux 6.12, drivers/net/ethernet/intel/ixgbe/ixgbe_type.h for the registers; the functions that
write them are named in ``harness.twin.port``.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from harness.mailbox.sequences import PLACES
from harness.uapi.ixgbe_pf import (
    MAXFRS_SHIFT,
    RAH_AV,
    RECEIVE_ADDRESSES,
    SPOOF_VLANAS_SHIFT,
    VLAN_FILTERS,
    VLVF_VIEN,
    VLVF_VLANID_MASK,
    VMVIR_VLANA_DEFAULT,
    Register,
    Row,
    Vmolr,
)

State = dict[str, Any]
"""Names and values, all of which JSON can hold.

* addresses: the VF's receive addresses (RAR, MPSAR), sorted.
* vlans: the VLANs of which it is a member (VLVF, VLVFB), sorted.
* accepts: the names of its bits in VMOLR, sorted.
* multicast: those of ``sequences.PLACES`` that are set in the port's table (MTA), in hex.
* receives, transmits: VFRE and VFTE.
* largest_frame: MAXFRS, in bytes with the checksum.
* inserted_vlan: the tag that every frame of the VF gets (VMVIR), in hex; empty for none.
* spoof_check: what is checked (PFVFSPOOF), of ``mac`` and ``vlan``.
* shown: what ``ip link`` says of the VF; see `shown`.
"""

_SHOWN = {
    "address": "mac", "spoofchk": "spoofchk", "link_state": "state", "trust": "trust",
    "query_rss_en": "query_rss",
}  # fmt: skip


def rows(vf: int, room: int) -> list[list[int]]:
    """Return the registers of a port that hold the state of VF number *vf*.

    A row has the offset of its first register, the number of registers, and the bytes from one
    register to the next.  The last row is the key of RSS.  Of the tables of addresses and VLANs
    *room* entries are in the rows, in the order in which the driver fills a table: addresses from
    the first entry on (ixgbe_add_mac_filter), VLANs from the last entry back, with VLAN 0 in the
    first entry (ixgbe_find_vlvf_slot).
    """
    word, filters = vf >> 5, min(room, VLAN_FILTERS)
    pools = Row.MPSAR_HI if word else Row.MPSAR_LO
    tables = [[row.first, room, row.step] for row in (Row.RAL, Row.RAH, pools)]
    for first, count in ((0, 1), (VLAN_FILTERS - filters, filters)):
        tables.append([Row.VLVF.at(first), count, Row.VLVF.step])
        tables.append([Row.VLVFB.at(2 * first + word), count, 2 * Row.VLVFB.step])
    places = sorted({Row.MTA.at(place >> 5) for place in PLACES})
    single = (
        *(Row.VMOLR.at(vf), Row.VFRE.at(word), Row.VFTE.at(word), int(Register.MAXFRS)),
        *(Row.VMVIR.at(vf), Row.PFVFSPOOF.at(vf >> 3)),
    )
    key = [Row.RSSRK.first, Row.RSSRK.count, Row.RSSRK.step]
    return [*tables, *([offset, 1, 4] for offset in (*places, *single)), key]


def rss_key(values: Mapping[int, int]) -> list[int]:
    """Return the port's key of RSS, in words; *values* as for `of_registers`."""
    return [values.get(Row.RSSRK.at(index), 0) for index in range(Row.RSSRK.count)]


def of_registers(nonzero: Mapping[int, int], vf: int) -> State:
    """Return the state of VF number *vf* without ``shown``.

    *nonzero* has the values of registers by offset; a register that it lacks is 0.
    """
    values = defaultdict(int, nonzero)
    word, bit = vf >> 5, 1 << (vf & 31)
    pools = Row.MPSAR_HI if word else Row.MPSAR_LO
    addresses = [
        values[Row.RAL.at(index)].to_bytes(4, "little")
        + (values[Row.RAH.at(index)] & 0xFFFF).to_bytes(2, "little")
        for index in range(RECEIVE_ADDRESSES)
        if values[Row.RAH.at(index)] & RAH_AV and values[pools.at(index)] & bit
    ]
    vlans = [
        values[Row.VLVF.at(index)] & VLVF_VLANID_MASK
        for index in range(VLAN_FILTERS)
        if values[Row.VLVF.at(index)] & VLVF_VIEN and values[Row.VLVFB.at(2 * index + word)] & bit
    ]
    tag, guard = values[Row.VMVIR.at(vf)], values[Row.PFVFSPOOF.at(vf >> 3)] >> (vf & 7)
    checks = {"mac": guard & 1, "vlan": guard >> SPOOF_VLANAS_SHIFT & 1}
    return {
        "addresses": sorted(address.hex(":") for address in addresses),
        "vlans": sorted(vlans),
        "accepts": sorted(each.name for each in Vmolr if values[Row.VMOLR.at(vf)] & each),
        "multicast": in_hex(
            place for place in PLACES if values[Row.MTA.at(place >> 5)] >> (place & 31) & 1
        ),
        "receives": bool(values[Row.VFRE.at(word)] & bit),
        "transmits": bool(values[Row.VFTE.at(word)] & bit),
        "largest_frame": values[Register.MAXFRS] >> MAXFRS_SHIFT,
        "inserted_vlan": f"{tag & 0xFFFF:#x}" if tag & VMVIR_VLANA_DEFAULT else "",
        "spoof_check": [name for name, on in checks.items() if on],
    }


def shown(links: Sequence[Mapping[str, Any]], vf: int) -> dict[str, Any]:
    """Return what ``ip -json -details link show`` says of VF number *vf*, by our words."""
    (entry,) = (each for each in links[0]["vfinfo_list"] if each["vf"] == vf)
    vlans = entry.get("vlan_list") or [{}]
    return {ours: entry[theirs] for theirs, ours in _SHOWN.items()} | {
        "vlan": vlans[0].get("vlan", 0),
        "qos": vlans[0].get("qos", 0),
    }


def in_hex(places: Iterator[int] | Sequence[int]) -> list[str]:
    """Return places of the multicast table as they are written."""
    return [f"{place:#05x}" for place in places]
