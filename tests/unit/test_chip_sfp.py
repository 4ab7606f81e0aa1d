"""Ixgbe reads the module in the cage bit by bit over two wires."""

from __future__ import annotations

import pytest

from harness.chip.registers import Registers
from harness.chip.sfp import I2cBus, Module
from harness.uapi.ixgbe_eeprom import I2c
from harness.uapi.ixgbe_pf import Register

IDENTITY, DIAGNOSTICS = 0xA0, 0xA2


class Master:
    """The driver has this end of the bus (ixgbe_read_i2c_byte_generic and what it calls)."""

    def __init__(self) -> None:
        self.registers = Registers()
        I2cBus(self.registers, Module())
        self._value = self.registers.read(Register.I2CCTL_8259X)

    def read(self, device: int, offset: int) -> int:
        """Return one byte of a device's memory.  Raises OSError where nobody acknowledges."""
        self._start()
        self._send(device)
        self._send(offset)
        self._start()
        self._send(device | 1)
        byte = sum(self._clock_in() << bit for bit in reversed(range(8)))
        self._clock_out(1)  # no more
        self._set(I2c.DATA_OUT, 0)
        self._set(I2c.CLK_OUT, 1)
        self._set(I2c.DATA_OUT, 1)
        return byte

    def _start(self) -> None:
        for line, level in ((I2c.DATA_OUT, 1), (I2c.CLK_OUT, 1), (I2c.DATA_OUT, 0),
                            (I2c.CLK_OUT, 0)):  # fmt: skip
            self._set(line, level)

    def _send(self, byte: int) -> None:
        for bit in reversed(range(8)):
            self._clock_out(byte >> bit & 1)
        self._set(I2c.DATA_OUT, 1)
        if self._clock_in():
            raise OSError("I2C ack was not received")

    def _clock_out(self, bit: int) -> None:
        self._set(I2c.DATA_OUT, bit)
        assert self._data == bit, "ixgbe_set_i2c_data finds another level on the wire"
        self._set(I2c.CLK_OUT, 1)
        self._set(I2c.CLK_OUT, 0)

    def _clock_in(self) -> int:
        self._set(I2c.CLK_OUT, 1)
        bit = self._data
        self._set(I2c.CLK_OUT, 0)
        return bit

    @property
    def _data(self) -> int:
        return int(bool(self.registers.read(Register.I2CCTL_8259X) & I2c.DATA_IN))

    def _set(self, line: I2c, level: int) -> None:
        self._value = self._value & ~line | (line if level else 0)
        self.registers.write(Register.I2CCTL_8259X, self._value)


@pytest.fixture
def master() -> Master:
    return Master()


def test_the_driver_finds_a_module_that_it_takes_without_being_told_to(master: Master) -> None:
    """Ixgbe takes an SFP of 10GBASE-SR from Intel (ixgbe_identify_sfp_module_generic)."""
    assert master.read(IDENTITY, 0) == 0x03
    assert master.read(IDENTITY, 3) & 0x10
    assert bytes(master.read(IDENTITY, at) for at in (37, 38, 39)) == b"\x00\x1b\x21"


def test_every_byte_of_both_pages_is_what_is_read(master: Master) -> None:
    """A bit that is shifted by one place shows as a wrong byte somewhere in 512."""
    for device, page in Module().pages.items():
        assert bytes(master.read(device, at) for at in range(256)) == page


def test_the_checksums_of_the_pages_are_right(master: Master) -> None:
    """SFF-8472 has checksums in bytes 63 and 95 of A0h, and in byte 95 of A2h."""
    for device, first, at in ((IDENTITY, 0, 63), (IDENTITY, 64, 95), (DIAGNOSTICS, 0, 95)):
        total = sum(master.read(device, place) for place in range(first, at))
        assert master.read(device, at) == total & 0xFF


def test_nobody_answers_for_another_device(master: Master) -> None:
    """The driver asks for a thermal sensor too, which an X520 has not (0xF8)."""
    with pytest.raises(OSError, match="ack"):
        master.read(0xF8, 0)
    assert master.read(IDENTITY, 0) == 0x03, "the bus is free again"
