"""Rooms claim registers of BAR 0, and a reset puts the others back."""

from __future__ import annotations

import pytest
from port_driver import port_of_chip

from harness.chip.registers import Registers
from harness.uapi import ixgbe_pf
from harness.uapi.ixgbe_pf import Register, Row


def test_a_register_holds_what_was_written_and_reads_as_0_before() -> None:
    registers = Registers()
    assert registers.read(0x1234) == 0
    registers.write(0x1234, 7)
    assert registers.read(0x1234) == registers.held(0x1234) == 7
    registers.reset()
    assert registers.read(0x1234) == 0


def test_a_default_comes_back_with_each_reset() -> None:
    registers = Registers()
    registers.default(0x10, 5)
    for _ in range(2):
        registers.write(0x10, 6)
        assert registers.read(0x10) == 6
        registers.reset()
        assert registers.read(0x10) == 5


def test_who_claims_a_register_answers_there() -> None:
    """A room may claim reading and writing apart; what nobody claims holds."""
    registers, written = Registers(), list[int]()
    registers.claim(0x10, read=lambda: 9)
    registers.claim(0x20, write=written.append)
    registers.write(0x10, 1)
    registers.write(0x20, 2)
    assert (registers.read(0x10), registers.held(0x10)) == (9, 1)
    assert (registers.read(0x20), written) == (0, [2])


def test_a_row_is_told_which_of_its_registers_it_is() -> None:
    registers, written = Registers(), list[tuple[int, int]]()
    registers.claim_row(Row.RAL, lambda index: index, lambda at, value: written.append((at, value)))
    assert registers.read(Row.RAL.at(127)) == 127
    registers.write(Row.RAL.at(3), 4)
    assert written == [(3, 4)]


def test_older_places_lead_to_the_same_registers() -> None:
    """RAL, RAH and PSRTYPE answer at the 82598's places too (IXGBE_RAL, IXGBE_PSRTYPE)."""
    registers = Registers()
    registers.write(0x05400 + 8 * 15, 1)
    registers.write(0x05404, 2)
    registers.write(0x05480, 3)
    places = Row.RAL.at(15), Row.RAH.at(0), Row.PSRTYPE.at(0)
    assert [registers.read(place) for place in places] == [1, 2, 3]


def test_no_register_is_in_the_way_of_another() -> None:
    """Rooms claim rows and blocks that lie between each other's."""
    places: dict[int, str] = {register: register.name for register in Register}
    for row in Row:
        for index in range(row.count):
            name = places.setdefault(row.at(index), row.name)
            assert name == row.name, f"{row.name}({index}) is {name}"


@pytest.mark.parametrize("offset", range(0, ixgbe_pf.BAR_BYTES, 8192))
def test_every_register_can_be_read_and_written(offset: int) -> None:
    """No register ends the chip; all ones written to some are a reset of everything."""
    with port_of_chip() as port:
        port.start(vfs=4)
        for at in range(offset, offset + 8192, 4):
            assert 0 <= port.read(at) <= 0xFFFFFFFF
            port.write(at, 0xFFFFFFFF)
            assert 0 <= port.read(at) <= 0xFFFFFFFF
