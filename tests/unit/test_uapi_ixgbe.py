"""The registers of a port are named and placed as in the kernel's own header.

It is no header that distributions install: the test needs a kernel's source, whose folder is in
VF_HARNESS_KERNEL_SOURCE.
"""

from __future__ import annotations

import os
import re
from pathlib import Path

import pytest

from harness.uapi import ixgbe_pf
from harness.uapi.ixgbe_pf import Eec, Eicr, Fctrl, PfMailbox, Register, Row, Vmolr

KERNEL = os.environ.get("VF_HARNESS_KERNEL_SOURCE")
FOLDER = "drivers/net/ethernet/intel/ixgbe"
OUR_NAMES = {"EITR_HIGH": "EITR", "PFMBMEM": "PFMBMEM", "VFLREC": "VFLREC"}
BITS = {
    Eec: "EEC", Eicr: "EICR", Fctrl: "FCTRL", Vmolr: "VMOLR", PfMailbox: "PFMAILBOX",
}  # fmt: skip


@pytest.fixture(scope="module")
def header() -> str:
    if KERNEL is None:
        pytest.skip("needs a kernel's source: set VF_HARNESS_KERNEL_SOURCE to its folder")
    names = ("ixgbe_type.h", "ixgbe_mbx.h")
    text = "".join((Path(KERNEL) / FOLDER / name).read_text() for name in names)
    return text.replace("\\\n", " ")


def numbers(expression: str) -> list[int]:
    return [int(each, 0) for each in re.findall(r"0x[0-9A-Fa-f]+|\b[1-9][0-9]*\b", expression)]


def defined(header: str, name: str, parameters: str = "") -> list[int]:
    """The numbers in ``#define IXGBE_<name><parameters> ...``, its comment left out."""
    pattern = rf"^#define\s+IXGBE_{name}{parameters}\s+(.+?)\s*(?:/\*.*)?$"
    found = re.findall(pattern, header, re.MULTILINE)
    assert found, f"the header has no {name}"
    return numbers(" ".join(found))


@pytest.mark.parametrize("register", Register, ids=lambda each: each.name)
def test_registers_are_where_the_header_says(header: str, register: Register) -> None:
    assert defined(header, register.name) == [register]


@pytest.mark.parametrize("row", Row, ids=lambda each: each.name)
def test_rows_begin_and_go_on_as_the_header_says(header: str, row: Row) -> None:
    found = defined(header, OUR_NAMES.get(row.name, row.name), r"\(\w+\)")
    assert row.first in found
    assert row.step in found or row.name in {"PFMBMEM"}, "a word of it"


def test_bits_are_the_headers(header: str) -> None:
    for kind, prefix in BITS.items():
        for bit in kind:
            assert defined(header, f"{prefix}_{bit.name}")[0] == bit, bit.name


def test_other_numbers_are_the_headers(header: str) -> None:
    for name in (
        "QDE_ENABLE", "QDE_WRITE", "QDE_IDX_MASK", "QDE_IDX_SHIFT", "SRRCTL_DROP_EN",
        "RTTBCNRC_RS_ENA", "RTTBCNRC_RF_INT_SHIFT", "GPIE_OCD", "GPIE_EIAME", "RAH_AV",
        "VLVF_VIEN", "VMVIR_VLANA_DEFAULT", "VMVIR_VLANA_NEVER", "PFDTXGSWC_VT_LBEN",
        "HLREG0_JUMBOEN", "HLREG0_LPBK", "VT_CTL_POOL_SHIFT", "EEC_SIZE_SHIFT",
    ):  # fmt: skip
        assert getattr(ixgbe_pf, name) in defined(header, name), name
