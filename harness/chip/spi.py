"""A driver reads and writes a serial EEPROM bit by bit through EEC.

The EEPROM takes the commands of the AT25 type, with 16 bits of address.  Ref: Linux,
drivers/net/ethernet/intel/ixgbe/ixgbe_common.c: ixgbe_acquire_eeprom,
ixgbe_write_eeprom_buffer_bit_bang, ixgbe_read_eeprom_buffer_bit_bang.
"""

from __future__ import annotations

from harness.chip.registers import Registers
from harness.uapi.ixgbe_eeprom import Eec
from harness.uapi.ixgbe_pf import Register

PAGE_BYTES = 64
"""A write that reaches the end of a page continues at the beginning of that page."""

_WRITE, _READ, _WRITE_ENABLE = 0x02, 0x03, 0x06
_ADDRESS_BYTES = 2
_DRIVEN = Eec.SK | Eec.CS | Eec.DI | Eec.REQ | Eec.FWE_MASK
"""Software writes these bits of EEC, and the chip sets the other bits."""


class SpiEeprom:
    """The EEPROM holds the bytes of *words*, the lower byte of each word first.

    A driver speaks to the EEPROM while EEC.REQ is set and chip select (CS) is low.  EEC.GNT grants
    the request at once.
    """

    def __init__(self, registers: Registers, words: list[int], fixed: int) -> None:
        """Claim EEC of *registers*, with *fixed* as the bits that the chip sets from the start."""
        self._registers = registers
        self._words = words
        self._may_write = False
        self._begin()
        registers.default(Register.EEC_8259X, fixed)
        registers.claim(Register.EEC_8259X, write=self._drive)

    def _begin(self) -> None:
        self._bits = self._bit_count = 0
        self._bytes: list[int] = []

    def _drive(self, value: int) -> None:
        before = self._registers.held(Register.EEC_8259X)
        now = before & ~_DRIVEN & ~Eec.GNT | value & _DRIVEN
        if value & Eec.REQ:
            now |= Eec.GNT
        if now & Eec.CS or not now & Eec.GNT:
            if not before & Eec.CS:
                self._end()
        elif now & Eec.SK and not before & Eec.SK:
            now = now & ~Eec.DO | (Eec.DO if self._clock(bool(now & Eec.DI)) else 0)
        self._registers.hold(Register.EEC_8259X, now)

    def _clock(self, bit: bool) -> int:
        """Take one bit from the driver, and return the bit that the EEPROM sends meanwhile."""
        out = self._sent_byte() >> (7 - self._bit_count) & 1
        self._bits = self._bits << 1 & 0xFF | bit
        self._bit_count += 1
        if self._bit_count == 8:
            self._bytes.append(self._bits)
            self._bit_count = 0
        return out

    def _sent_byte(self) -> int:
        """Return the byte that the EEPROM sends while the driver sends its next byte."""
        if not self._bytes or self._bytes[0] != _READ:
            return 0  # the status of the EEPROM is 0 too: never busy
        past = len(self._bytes) - 1 - _ADDRESS_BYTES
        if past < 0:
            return 0
        word, upper = divmod(self._address + past, 2)
        return self._words[word % len(self._words)] >> 8 * upper & 0xFF

    def _end(self) -> None:
        """Do the command that the driver sent, since chip select rises."""
        command = self._bytes[0] if self._bytes else 0
        if command == _WRITE_ENABLE:
            self._may_write = True
        elif command == _WRITE and self._may_write:
            self._may_write = False
            for at, byte in enumerate(self._bytes[1 + _ADDRESS_BYTES :]):
                page, place = divmod(self._address, PAGE_BYTES)
                self._put(page * PAGE_BYTES + (place + at) % PAGE_BYTES, byte)
        self._begin()

    def _put(self, address: int, byte: int) -> None:
        word, upper = divmod(address, 2)
        if word < len(self._words):
            kept = self._words[word] & (0xFF00 if not upper else 0x00FF)
            self._words[word] = kept | byte << 8 * upper

    @property
    def _address(self) -> int:
        address = self._bytes[1 : 1 + _ADDRESS_BYTES]
        return int.from_bytes(bytes(address), "big")
