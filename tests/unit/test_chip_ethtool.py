"""Ixgbe runs the tests of `ethtool -t offline` and the dump of `ethtool -d` on a port.

Ref: Linux, ixgbe_ethtool.c: ixgbe_reg_test with reg_test_82599, ixgbe_intr_test,
ixgbe_loopback_test, ixgbe_link_test, ixgbe_get_regs.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import pytest
from port_driver import Port, port_of_chip

from harness.uapi import ixgbe_pf
from harness.uapi.ixgbe_pf import HLREG0_LPBK, Fctrl, Register, Row
from harness.uapi.ixgbe_vf import QueueControl, QueueRegister

PATTERNS = (0x5A5A5A5A, 0xA5A5A5A5, 0x00000000, 0xFFFFFFFF)
ALL = 0xFFFFFFFF
STATUS_TOGGLE = 0x7FFFF30F


@dataclass(frozen=True)
class Kept:
    """A row of reg_test_82599 says what *count* registers, *step* bytes apart, keep."""

    offset: int
    count: int
    step: int
    mask: int
    write: int


TABLE = [
    Kept(0x03220, 1, 0x40, 0x8007FFF0, 0x8007FFF0),  # FCRTL_82599
    Kept(0x03260, 1, 0x40, 0x8007FFF0, 0x8007FFF0),  # FCRTH_82599
    Kept(0x03008, 1, 0x40, ALL, ALL),  # PFCTOP
    Kept(Register.VLNCTRL, 1, 0x40, 0, 0),
    Kept(0x01000, 4, 0x40, 0xFFFFFF80, 0xFFFFFF80),  # RDBAL
    Kept(0x01004, 4, 0x40, ALL, ALL),  # RDBAH
    Kept(0x01008, 4, 0x40, 0x000FFF80, 0x000FFFFF),  # RDLEN
    Kept(0x01018, 4, 0x40, 0x0000FFFF, 0x0000FFFF),  # RDT
    Kept(0x03200, 1, 0x40, ALL, ALL),  # FCTTV
    Kept(0x06000, 4, 0x40, 0xFFFFFF80, ALL),  # TDBAL
    Kept(0x06004, 4, 0x40, ALL, ALL),  # TDBAH
    Kept(0x06008, 4, 0x40, 0x000FFF80, 0x000FFF80),  # TDLEN
    Kept(0x05400, 16, 8, ALL, ALL),  # RAL, at its older place
    Kept(0x05404, 16, 8, 0x8001FFFF, 0x800CFFFF),  # RAH
    Kept(Row.MTA.first, 128, 4, ALL, ALL),
]
RDT = 0x01018


@pytest.fixture
def port() -> Iterator[Port]:
    """Ixgbe closes and resets a port for the test."""
    with port_of_chip() as port:
        port.start()
        port.reset_hw()
        yield port


@pytest.mark.parametrize("tested", TABLE, ids=lambda tested: f"{tested.offset:05x}")
def test_registers_keep_what_the_driver_says_that_they_keep(port: Port, tested: Kept) -> None:
    """Each register keeps four patterns (reg_pattern_test); queues are on for their tails."""
    if tested.offset == RDT:
        for queue in range(4):
            port.write(0x01028 + 0x40 * queue, QueueControl.ENABLE)
    for offset in range(tested.offset, tested.offset + tested.count * tested.step, tested.step):
        for pattern in PATTERNS:
            before = port.read(offset)
            port.write(offset, pattern & tested.write)
            kept = port.read(offset)
            port.write(offset, before)
            assert kept == pattern & tested.write & tested.mask, f"{offset:#x}"
            assert port.read(offset) == before


def test_the_receive_unit_can_be_set_and_read(port: Port) -> None:
    """Ixgbe sets and reads RXCTRL (reg_set_and_check)."""
    port.write(Register.RXCTRL, ixgbe_pf.RXCTRL_RXEN)
    assert port.read(Register.RXCTRL) & ixgbe_pf.RXCTRL_RXEN


def test_the_status_does_not_change_by_being_written(port: Port) -> None:
    before = port.read(Register.STATUS)
    port.write(Register.STATUS, STATUS_TOGGLE)
    assert port.read(Register.STATUS) & STATUS_TOGGLE == before & STATUS_TOGGLE


def test_each_cause_is_told_by_itself(port: Port) -> None:
    """A driver without MSI-X sets each cause by EICS and masks it by EIMS (ixgbe_intr_test)."""
    port.write(Register.GPIE, 0)
    port.write(Register.EIMC, ALL)
    for cause in (1 << bit for bit in range(10)):
        others = ~cause & 0x7FFF
        port.write(Register.EIMC, others)
        port.write(Register.EICS, others)
        assert port.read(Register.EICR) & cause == 0
        port.write(Register.EIMS, cause)
        port.write(Register.EICS, cause)
        assert port.read(Register.EICR) & cause
        port.write(Register.EIMC, others)
        assert port.read(Register.EICR) == 0
    assert port.read(Register.EIMS) == 1 << 9


def test_frames_come_back_in_mac_loopback(port: Port) -> None:
    """Frames of 1024 bytes to everybody come back, and none gets out (ixgbe_run_loopback_test)."""
    port.configure(1)
    port.set_bits(Register.HLREG0, HLREG0_LPBK)
    port.set_bits(Register.FCTRL, Fctrl.BAM | Fctrl.MPE)
    port.write(Register.AUTOC, port.read(Register.AUTOC) | 1)  # IXGBE_AUTOC_FLU
    port.chip.link.plug(False, 10_000)
    body = bytearray(b"\xff" * 512 + b"\xaa" * 511 + b"\xff")
    body[512 + 10], body[512 + 12] = 0xBE, 0xAF
    for _ in range(3):
        for _ in range(12):
            port.tx[0].put_frame(bytes(body))
        port.tx[0].go()
        assert port.tx[0].read(QueueRegister.HEAD) == port.tx[0].next, "all are done"
        came = port.rx[0].took()
        assert [each.data for each in came] == [bytes(body)] * 12
        port.rx[0].refill()
    assert port.sent == []


def test_the_link_is_up_for_the_link_test(port: Port) -> None:
    """The link test reads LINKS, and fails with the cable out (ixgbe_link_test)."""
    assert port.read(Register.LINKS) & ixgbe_pf.Links.UP
    port.chip.link.plug(False, 10_000)
    assert not port.read(Register.LINKS) & ixgbe_pf.Links.UP


def test_a_dump_of_all_registers_changes_none_of_those_that_it_reads(port: Port) -> None:
    """ixgbe_get_regs leaves out what clears by being read: statistics, EICR and VFMAILBOX."""
    port.start()
    counters = {*range(0x3FA0, 0x4200), *range(0x1000, 0x2000), *range(0x8700, 0x8800)}
    cleared = counters | {Register.EICR, Register.SWSM_8259X}
    places = [at for at in range(0, ixgbe_pf.BAR_BYTES, 4) if at not in cleared]
    first = {at: port.read(at) for at in places}
    port.read(Register.EICS)
    assert {at: port.read(at) for at in places} == first
