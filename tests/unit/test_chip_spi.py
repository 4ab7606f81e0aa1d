"""Ixgbe writes the EEPROM over the serial bus behind EEC, whose size and owner it reads.

Ref: Linux, ixgbe_common.c, ixgbe_82599.c; `ethtool -e` and `-E`.
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from port_driver import Port, port_of_chip

from harness.chip.nvm import WORDS
from harness.chip.spi import PAGE_BYTES
from harness.uapi.ixgbe_eeprom import Eec
from harness.uapi.ixgbe_pf import Register

EEC = Register.EEC_8259X
WRITE, READ, READ_STATUS, WRITE_ENABLE = 2, 3, 5, 6


@pytest.fixture
def port() -> Iterator[Port]:
    with port_of_chip() as port:
        yield port


def eerd(port: Port, word: int) -> int:
    """Read a word as ixgbe_read_eerd_generic does.  Raises OSError where that is never done."""
    port.write(Register.EERD, word << 2 | 1)
    value = port.read(Register.EERD)
    if not value & 2:
        raise OSError("Eeprom read timed out")
    return value >> 16


def checksum(port: Port) -> int:
    """Return the checksum of words and pointers, as ixgbe_calc_eeprom_checksum_generic does."""
    total = sum(eerd(port, word) for word in range(0x3F))
    for pointer in range(0x03, 0x0F):
        if (at := eerd(port, pointer)) not in (0, 0xFFFF) and eerd(port, at) not in (0, 0xFFFF):
            total += sum(eerd(port, at + 1 + word) for word in range(eerd(port, at)))
    return 0xBABA - total & 0xFFFF


class Bus:
    """A driver moves this bus bit by bit, as ixgbe_shift_out_eeprom_bits does."""

    def __init__(self, port: Port) -> None:
        self._port = port

    def acquire(self) -> None:
        """Take the bus (ixgbe_acquire_eeprom).  Raises OSError where it is not granted."""
        self._port.write(EEC, self._port.read(EEC) | Eec.REQ)
        if not self._port.read(EEC) & Eec.GNT:
            raise OSError("Could not acquire EEPROM grant")
        self._set(Eec.CS | Eec.SK, on=False)

    def release(self) -> None:
        """Give the bus back; ixgbe_release_eeprom."""
        self._set(Eec.CS, on=True)
        self._set(Eec.REQ, on=False)

    def standby(self) -> None:
        self._set(Eec.CS, on=True)
        self._set(Eec.CS, on=False)

    def send(self, value: int, bits: int = 8) -> None:
        for bit in reversed(range(bits)):
            self._set(Eec.DI, on=bool(value >> bit & 1))
            self._set(Eec.SK, on=True)
            self._set(Eec.SK, on=False)
        self._set(Eec.DI, on=False)

    def receive(self, bits: int) -> int:
        value = 0
        for _ in range(bits):
            self._set(Eec.SK, on=True)
            value = value << 1 | bool(self._port.read(EEC) & Eec.DO)
            self._set(Eec.SK, on=False)
        return value

    def write(self, word: int, *values: int, enabled: bool = True) -> None:
        """Write words in one burst; ixgbe_write_eeprom_buffer_bit_bang."""
        self.acquire()
        self.send(READ_STATUS)
        assert not self.receive(8) & 1, "SPI EEPROM Status error"
        self.standby()
        if enabled:
            self.send(WRITE_ENABLE)
        self.standby()
        self.send(WRITE)
        self.send(2 * word, 16)
        for value in values:
            self.send(value >> 8 | (value & 0xFF) << 8, 16)
        self.standby()
        self.release()

    def read(self, word: int, count: int) -> list[int]:
        """Read words; ixgbe_read_eeprom_buffer_bit_bang."""
        self.acquire()
        self.send(READ)
        self.send(2 * word, 16)
        found = [self.receive(16) for _ in range(count)]
        self.standby()
        self.release()
        return [each >> 8 | (each & 0xFF) << 8 for each in found]

    def _set(self, line: int, *, on: bool) -> None:
        self._port.set_bits(EEC, line, on=on)


def test_the_checksum_is_right(port: Port) -> None:
    """Ixgbe checks it at each probe and in the offline test."""
    assert eerd(port, 0x3F) == checksum(port)


def test_the_driver_finds_an_eeprom_of_that_size(port: Port) -> None:
    """Ixgbe reads the size from EEC, and `ethtool -e` shows so many words."""
    eec = port.read(EEC)
    assert eec & Eec.PRES
    assert eec & Eec.ADDR_SIZE, "16 bits of address"
    assert 1 << ((eec >> 11 & 0xF) + 6) == WORDS
    assert [eerd(port, word) for word in (WORDS, 0x3FFF)] == [0xFFFF, 0xFFFF]


def test_a_read_takes_the_semaphore(port: Port) -> None:
    """A read of SWSM takes the semaphore (SMBI), and a write of 0 gives it back."""
    assert [port.read(Register.SWSM_8259X) & 1 for _ in range(2)] == [0, 1]
    port.write(Register.SWSM_8259X, 0)
    assert port.read(Register.SWSM_8259X) & 1 == 0


def test_the_firmware_is_there(port: Port) -> None:
    """ixgbe_check_fw_error looks at FWSM every two seconds."""
    assert port.read(Register.FWSM_8259X) == 1 << 15


# --- written --------------------------------------------------------------------------------


def test_words_are_written_over_the_serial_bus(port: Port) -> None:
    """The 82599's driver has no other way for `ethtool -E` (eeprom_ops_82599)."""
    bus = Bus(port)
    bus.write(0x30, 0x1234, 0xABCD)
    assert [eerd(port, word) for word in (0x2F, 0x30, 0x31, 0x32)] == [0, 0x1234, 0xABCD, 0]
    assert bus.read(0x30, 2) == [0x1234, 0xABCD]
    assert eerd(port, 0x3F) != checksum(port)
    bus.write(0x3F, checksum(port))  # ixgbe_update_eeprom_checksum_generic
    assert eerd(port, 0x3F) == checksum(port)


def test_a_write_without_its_wren_changes_nothing(port: Port) -> None:
    """Each write needs a WREN of its own."""
    bus = Bus(port)
    bus.write(0x30, 0x1234, enabled=False)
    bus.write(0x31, 0x1111)
    bus.write(0x32, 0x2222, enabled=False)
    assert [eerd(port, word) for word in (0x30, 0x31, 0x32)] == [0, 0x1111, 0]


def test_a_burst_goes_on_at_the_beginning_of_its_page(port: Port) -> None:
    """ixgbe_detect_eeprom_page_size_generic finds the size of a page by that."""
    last = PAGE_BYTES // 2 - 1
    Bus(port).write(0x200 + last, 1, 2)
    assert [eerd(port, word) for word in (0x200, 0x200 + last, 0x201 + last)] == [2, 1, 0]


def test_the_bus_does_nothing_without_a_grant(port: Port) -> None:
    bus = Bus(port)
    bus.send(WRITE_ENABLE)
    bus.standby()
    bus.send(WRITE)
    bus.send(0x60, 16)
    bus.send(0x1234, 16)
    bus.standby()
    assert eerd(port, 0x30) == 0


def test_words_are_written_by_eewr_too(port: Port) -> None:
    """ixgbe_write_eewr_buffer_generic polls that the register is done before each word."""
    assert port.read(Register.EEWR) & 2
    port.write(Register.EEWR, 0x4321 << 16 | 0x30 << 2 | 1)
    assert port.read(Register.EEWR) & 3 == 2
    assert eerd(port, 0x30) == 0x4321


def test_what_was_written_outlives_a_reset(port: Port) -> None:
    Bus(port).write(0x30, 0x1234)
    port.start()
    assert eerd(port, 0x30) == 0x1234
