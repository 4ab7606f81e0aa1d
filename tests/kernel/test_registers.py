"""Our names and numbers of the 82599's registers against those of the kernel's own headers."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Mapping
from enum import IntEnum
from pathlib import Path

import pytest

from harness.uapi import ixgbe_eeprom, ixgbe_pf, ixgbe_vf
from harness.uapi.ixgbe_pf import Row

_DEFINE = re.compile(r"^[ \t]*#[ \t]*define(?:[^\n]*\\\n)*[^\n]*$", re.M)
_TYPES = """
#include <stdint.h>
#include <stdio.h>
typedef uint32_t u32;
#define BIT(n) (1u << (n))
"""
BITS: dict[type[IntEnum], str] = {
    ixgbe_pf.Register: "IXGBE_{}",
    ixgbe_pf.Ctrl: "IXGBE_CTRL_{}",
    ixgbe_pf.CtrlExt: "IXGBE_CTRL_EXT_{}",
    ixgbe_eeprom.I2c: "IXGBE_I2C_{}_8259X",
    ixgbe_pf.Eicr: "IXGBE_EICR_{}",
    ixgbe_pf.Links: "IXGBE_LINKS_{}",
    ixgbe_pf.PfMailbox: "IXGBE_PFMAILBOX_{}",
    ixgbe_pf.Vmolr: "IXGBE_VMOLR_{}",
    ixgbe_pf.VtCtl: "IXGBE_VT_CTL_{}",
    ixgbe_eeprom.Eec: "IXGBE_EEC_{}",
    ixgbe_pf.Fctrl: "IXGBE_FCTRL_{}",
    ixgbe_pf.Mrqe: "IXGBE_MRQC_{}",
    ixgbe_pf.RssField: "IXGBE_MRQC_RSS_FIELD_{}",
}
"""How the header calls the members of each of our enumerations."""

OTHERWISE = {
    "IXGBE_LINKS_SPEED_10G": "IXGBE_LINKS_SPEED_10G_82599",
    "IXGBE_LINKS_SPEED_1G": "IXGBE_LINKS_SPEED_1G_82599",
    "IXGBE_LINKS_SPEED_100": "IXGBE_LINKS_SPEED_100_82599",
}
QUEUE = {
    "RDBAL": ixgbe_vf.QueueRegister.BAL, "RDBAH": ixgbe_vf.QueueRegister.BAH,
    "RDLEN": ixgbe_vf.QueueRegister.LEN, "RDH": ixgbe_vf.QueueRegister.HEAD,
    "RDT": ixgbe_vf.QueueRegister.TAIL, "RXDCTL": ixgbe_vf.QueueRegister.DCTL,
}  # fmt: skip
SEND = {
    "TDBAL": ixgbe_vf.QueueRegister.BAL, "TDBAH": ixgbe_vf.QueueRegister.BAH,
    "TDLEN": ixgbe_vf.QueueRegister.LEN, "TDH": ixgbe_vf.QueueRegister.HEAD,
    "TDT": ixgbe_vf.QueueRegister.TAIL, "TXDCTL": ixgbe_vf.QueueRegister.DCTL,
    "TDWBAL": ixgbe_vf.QueueRegister.WBAL, "TDWBAH": ixgbe_vf.QueueRegister.WBAH,
}  # fmt: skip


NO_MACROS = {"BAR_BYTES", "VECTORS", "QUEUES", "VF_QUEUES", "POOLS", "RECEIVE_ADDRESSES",
             "VLAN_FILTERS"}  # fmt: skip
"""Numbers of the chip that the header has no macro for; the driver's code has them."""

EXPRESSIONS = {
    "DEVICE": "IXGBE_DEV_ID_82599_SFP",
    "MAXFRS_SHIFT": "IXGBE_MHADD_MFS_SHIFT",
    "RTTBCNRC_RF_MASK": "IXGBE_RTTBCNRC_RF_INT_MASK | IXGBE_RTTBCNRC_RF_DEC_MASK",
    "VT_CTL_POOL_MASK": "IXGBE_VT_CTL_POOL_MASK >> IXGBE_VT_CTL_POOL_SHIFT",
    "SRRCTL_ALIAS": "IXGBE_SRRCTL(0)",
    "RX_DCA_ALIAS": "IXGBE_DCA_RXCTRL(0)",
}
"""How the header has those of our constants that it calls otherwise."""

RECEIVE, TRANSMIT = ixgbe_pf.RECEIVE_BLOCKS[0][0], ixgbe_pf.TRANSMIT_BLOCKS[0][0]
STATISTICS = {
    "PVFGPRC(0)": RECEIVE + ixgbe_pf.QueueStatistic.PVFGPRC,
    "PVFGORC_LSB(0)": RECEIVE + ixgbe_pf.QueueStatistic.PVFGORC,
    "QPRC(0)": RECEIVE + ixgbe_pf.QueueStatistic.QPC,
    "QPTC(0)": TRANSMIT + ixgbe_pf.QueueStatistic.QPC,
    "QBRC_L(0)": RECEIVE + ixgbe_pf.QueueStatistic.QBC_L,
    "QBRC_H(0)": RECEIVE + ixgbe_pf.QueueStatistic.QBRC_H,
    "VFLRE(0)": ixgbe_pf.VFLRE[0],
    "VFLRE(1)": ixgbe_pf.VFLRE[1],
    "SRRCTL(64)": ixgbe_pf.RECEIVE_BLOCKS[1][0] + ixgbe_vf.QueueRegister.SRRCTL,
    "DCA_RXCTRL(64)": ixgbe_pf.RECEIVE_BLOCKS[1][0] + ixgbe_vf.QueueRegister.DCA,
}
"""Counters and other registers that stand between those of a block's queues, or on their own."""


def values(headers: list[Path], folder: Path, expressions: Mapping[str, str]) -> dict[str, int]:
    """What the macros of *headers* make of each expression, by a C compiler."""
    defines = "\n".join(
        found for header in headers for found in _DEFINE.findall(header.read_text())
    )
    lines = "\n".join(
        f'printf("{name} %llu\\n", (unsigned long long)({expression}));'
        for name, expression in expressions.items()
    )
    source = folder / "registers.c"
    source.write_text(f"{_TYPES}\n{defines}\nint main(void) {{\n{lines}\nreturn 0;\n}}\n")
    subprocess.run(["gcc", "-w", "-o", folder / "registers", source], check=True)
    out = subprocess.run([folder / "registers"], check=True, capture_output=True, text=True).stdout
    return {name: int(value) for name, value in map(str.split, out.splitlines())}


@pytest.fixture
def headers(drivers: Path) -> list[Path]:
    return [drivers / "ixgbe" / name for name in ("ixgbe_type.h", "ixgbe_mbx.h", "ixgbe_phy.h")]


@pytest.mark.parametrize("numbers", BITS, ids=lambda numbers: numbers.__name__)
def test_each_name_has_the_number_of_the_header(
    headers: list[Path], tmp_path: Path, numbers: type[IntEnum]
) -> None:
    """A wrong offset shows as a driver that waits for something, a wrong bit as nothing at all."""
    names = {member: BITS[numbers].format(member.name) for member in numbers}
    asked = {member.name: OTHERWISE.get(name, name) for member, name in names.items()}
    assert values(headers, tmp_path, asked) == {member.name: member.value for member in numbers}


def test_each_constant_is_the_headers(headers: list[Path], tmp_path: Path) -> None:
    """Masks, shifts and single bits, which no enumeration of ours has."""
    ours = {
        name: number for name, number in vars(ixgbe_pf).items()
        if name.isupper() and isinstance(number, int) and name not in NO_MACROS
    }  # fmt: skip
    asked = {name: EXPRESSIONS.get(name, f"IXGBE_{name}") for name in ours}
    assert len(ours) > 30
    assert values(headers, tmp_path, asked) == ours


def test_counters_and_single_registers_are_where_the_header_has_them(
    headers: list[Path], tmp_path: Path
) -> None:
    names = {f"N{at}": name for at, name in enumerate(STATISTICS)}
    found = values(headers, tmp_path, {at: f"IXGBE_{name}" for at, name in names.items()})
    assert {names[at]: number for at, number in found.items()} == STATISTICS


def test_each_row_begins_and_ends_where_the_headers_does(
    headers: list[Path], tmp_path: Path
) -> None:
    """First and last register of each row; one that is too long would take its neighbour's."""
    asked, ours = {}, {}
    for row in Row:
        for index in (0, row.count - 1):
            place = index
            if row in (Row.RAL, Row.RAH, Row.PSRTYPE):
                place = max(16, index)  # the header has the 82598's place for those before
            if row is Row.EITR_HIGH:
                asked[f"{row.name}_{index}"] = f"IXGBE_EITR({24 + index})"
            elif row is Row.PFMBMEM:
                index = place = index // 16 * 16
                asked[f"{row.name}_{index}"] = f"IXGBE_PFMBMEM({index // 16})"
            else:
                asked[f"{row.name}_{place}"] = f"IXGBE_{row.name}({place})"
            ours[f"{row.name}_{place}"] = row.at(place)
    assert values(headers, tmp_path, asked) == ours


def test_the_registers_of_a_queue_are_where_the_header_has_them(
    headers: list[Path], tmp_path: Path
) -> None:
    """One set of names serves the queues of a VF, and both blocks of the port's, 64 queues each."""
    asked, ours = {}, {}
    for number in (0, 63, 64, 127):
        block = number // 64
        for names, blocks in ((QUEUE, ixgbe_pf.RECEIVE_BLOCKS), (SEND, ixgbe_pf.TRANSMIT_BLOCKS)):
            base, first = blocks[block]
            for name, offset in names.items():
                asked[f"{name}_{number}"] = f"IXGBE_{name}({number})"
                at = base + (number - first) * ixgbe_vf.QUEUE_BYTES + offset
                ours[f"{name}_{number}"] = at
    assert values(headers, tmp_path, asked) == ours


def test_the_registers_of_a_vf_are_those_of_its_drivers_header(
    drivers: Path, tmp_path: Path
) -> None:
    """regs.h of ixgbevf; a VF's queues begin where the port's do, in its own BAR."""
    headers = [drivers / "ixgbevf" / name for name in ("regs.h", "mbx.h", "defines.h")]
    rows = {"VTIVAR", "VTEITR", "VFMBMEM"}
    plain = [each for each in ixgbe_vf.Register if each.name not in rows]
    asked = {each.name: f"IXGBE_{each.name}" for each in plain}
    asked |= {"VTIVAR": "IXGBE_VTIVAR(0)", "VTEITR": "IXGBE_VTEITR(0)", "VFMBMEM": "IXGBE_VFMBMEM"}
    assert values(headers, tmp_path, asked) == {each.name: each.value for each in ixgbe_vf.Register}
