"""A port's driver reads and writes the 16-bit words of the EEPROM by registers.

Ref: Linux, drivers/net/ethernet/intel/ixgbe/ixgbe_common.c: ixgbe_init_eeprom_params_generic,
ixgbe_read_eerd_buffer_generic, ixgbe_validate_eeprom_checksum_generic; ixgbe_type.h for the words.
"""

from __future__ import annotations

from harness.chip.registers import Registers
from harness.chip.spi import SpiEeprom
from harness.uapi.ixgbe_eeprom import (
    EEC_SIZE_SHIFT,
    EEPROM_WORD_SIZE_SHIFT,
    EERD_ADDRESS_SHIFT,
    EERD_DATA_SHIFT,
    EERD_DONE,
    EERD_START,
    SWSM_SMBI,
    Eec,
)
from harness.uapi.ixgbe_pf import Register

WORDS = 1 << 10
_CHECKSUM_AT, _CHECKSUM = 0x3F, 0xBABA
_POINTERS = range(0x03, 0x0F)
_FIRMWARE = 0x0F
_NOWHERE = 0xFFFF
_ADDRESS_MASK = 0x3FFF
_SIZE = (WORDS.bit_length() - 1 - EEPROM_WORD_SIZE_SHIFT) << EEC_SIZE_SHIFT
_SFP_TYPES = (0, 1, 2, 3, 4, 5, 6, 9, 10, 11, 12)
"""The EEPROM has an empty initialization sequence for each of these ixgbe_sfp_type_*."""


def image() -> list[int]:
    """Return 1024 words as an X520's EEPROM has them, with the right checksum.

    Words 0 to 2 are control words, all 0, so IXGBE_EEPROM_CCD_BIT of word 1 is clear.  The drivers
    take the port's address from RAR 0.
    """
    words = [0] * WORDS
    for pointer in _POINTERS:
        words[pointer] = _NOWHERE
    words[_FIRMWARE] = 0x80
    # The driver refuses firmware older than 5 (ixgbe_verify_fw_version_82599).
    words[0x82], words[0x84], words[0x97] = _NOWHERE, 0x90, 0x9
    words[0x15], words[0x16] = 0xE687, 0x9306  # the part number: ixgbe_read_pba_string_generic
    words[0x17] = _NOWHERE
    words[0x27] = words[0x28] = words[0x37] = _NOWHERE
    words[0x2C] = 0x81  # device capabilities: any SFP+ module; ixgbe_get_device_caps_generic
    words[0x2D], words[0x2E] = 0x0001, 0x8000  # the version of the image (NVM_ETK_OFF_*)
    words[0x29] = 0x1000  # NVM version
    words[0x2B] = _write_sfp_list(words, at=0x100)
    words[_CHECKSUM_AT] = (_CHECKSUM - sum(words[:_CHECKSUM_AT])) & 0xFFFF
    return words


def _write_sfp_list(words: list[int], *, at: int) -> int:
    """Write the list of SFP+ modules and their sequences to word *at*, and return *at*.

    Ref: Linux, ixgbe_get_sfp_init_sequence_offsets.
    """
    sequence = at + 0x40
    words[at] = 2 * len(_SFP_TYPES)
    place = at + 1
    for kind in _SFP_TYPES:
        words[place], words[place + 1] = kind, sequence
        place += 2
    words[place] = _NOWHERE
    words[sequence], words[sequence + 1] = 1, _NOWHERE  # the end: ixgbe_setup_sfp_modules_82599
    return at


class Nvm:
    """The driver of a port reads and writes *words*, the port's EEPROM, by *registers*.

    Every port has an EEPROM of its own here; the ports of an 82599 share one EEPROM.
    """

    def __init__(self, registers: Registers, words: list[int]) -> None:
        self._registers = registers
        self._words = words
        SpiEeprom(registers, words, Eec.PRES | Eec.ARD | Eec.ADDR_SIZE | _SIZE)
        registers.default(Register.FWSM_8259X, 1 << 15)  # IXGBE_FWSM_FW_VAL_BIT
        registers.default(Register.EEWR, EERD_DONE)
        registers.claim(Register.EERD, write=self._start_read)
        registers.claim(Register.EEWR, write=self._start_write)
        registers.claim(Register.SWSM_8259X, read=self._take_semaphore)

    def _start_read(self, value: int) -> None:
        if value & EERD_START:
            address = value >> EERD_ADDRESS_SHIFT & _ADDRESS_MASK
            data = self._words[address] if address < len(self._words) else _NOWHERE
            value = data << EERD_DATA_SHIFT | address << EERD_ADDRESS_SHIFT | EERD_DONE
        self._registers.hold(Register.EERD, value)

    def _start_write(self, value: int) -> None:
        """Write a word by EEWR, whose layout is that of EERD; ixgbe_write_eewr_buffer_generic."""
        address = value >> EERD_ADDRESS_SHIFT & _ADDRESS_MASK
        if value & EERD_START and address < len(self._words):
            self._words[address] = value >> EERD_DATA_SHIFT
        self._registers.hold(Register.EEWR, value & ~EERD_START | EERD_DONE)

    def _take_semaphore(self) -> int:
        """Return SWSM, and set SMBI; a reader that sees SMBI clear has the semaphore."""
        value = self._registers.held(Register.SWSM_8259X)
        self._registers.hold(Register.SWSM_8259X, value | SWSM_SMBI)
        return value
