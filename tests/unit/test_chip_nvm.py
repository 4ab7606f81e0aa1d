"""Ixgbe reads the EEPROM word by word, and along its pointers."""

from __future__ import annotations

import pytest

from harness.chip.nvm import Nvm, image
from harness.chip.registers import Registers
from harness.uapi.ixgbe_eeprom import EERD_DONE, EERD_START
from harness.uapi.ixgbe_pf import Register

SFP_LIST = 0x2B  # IXGBE_PHY_INIT_OFFSET_NL
SR_CORE_0, SR_CORE_1 = 5, 6  # ixgbe_sfp_type_srlr_core0 and 1
END = 0xFFFF


class Eeprom:
    """The driver reads words of the EEPROM (ixgbe_read_eerd_buffer_generic)."""

    def __init__(self) -> None:
        self.registers = Registers()
        Nvm(self.registers, image())
        eec = self.registers.read(Register.EEC_8259X)
        self.words = 1 << ((eec >> 11 & 0xF) + 6)

    def read(self, offset: int) -> int:
        assert offset < self.words, f"the driver refuses to read word {offset:#x}"
        self.registers.write(Register.EERD, offset << 2 | EERD_START)
        value = self.registers.read(Register.EERD)
        assert value & EERD_DONE
        return value >> 16


@pytest.fixture
def eeprom() -> Eeprom:
    return Eeprom()


def test_the_first_words_sum_up(eeprom: Eeprom) -> None:
    """The first words and the checksum make BABAh (ixgbe_validate_eeprom_checksum_generic)."""
    assert sum(eeprom.read(word) for word in range(0x40)) & 0xFFFF == 0xBABA


def test_no_control_word_turns_the_link_off(eeprom: Eeprom) -> None:
    """IXGBE_EEPROM_CCD_BIT would have the driver do so in D3; ixgbe_stop_mac_link_on_d3_82599."""
    assert not eeprom.read(1) & 2


@pytest.mark.parametrize("module", [SR_CORE_0, SR_CORE_1])
def test_a_modules_initialization_sequence_ends(eeprom: Eeprom, module: int) -> None:
    """ixgbe_get_sfp_init_sequence_offsets and ixgbe_setup_sfp_modules_82599 follow these words.

    The driver skips the first word of a sequence: one that ended there was read to the end of the
    EEPROM, and the port's driver gave up.
    """
    place = eeprom.read(SFP_LIST) + 1
    while (found := eeprom.read(place)) != module:
        assert found != END, "No matching SFP+ module found"
        place += 2
    place = eeprom.read(place + 1) + 1
    written = 0
    while eeprom.read(place + written) != END:
        written += 1
    assert written == 0, "nothing has to be written to the core"


def test_its_firmware_is_no_pre_production_one(eeprom: Eeprom) -> None:
    """The driver refuses firmware before 5 for an SFP+ module (ixgbe_verify_fw_version_82599)."""
    module = eeprom.read(0x0F)
    parameters = eeprom.read(module + 4)  # IXGBE_FW_PASSTHROUGH_PATCH_CONFIG_PTR
    assert eeprom.read(parameters + 7) > 5  # IXGBE_FW_PATCH_VERSION_4
