"""The bits by which an 82599's driver reaches its EEPROM, its SFP+ module and a PHY.

Ref: Linux 6.12, drivers/net/ethernet/intel/ixgbe: ixgbe_type.h, ixgbe_phy.h.  `ixgbe_pf` has
the registers that hold these bits.
"""

from __future__ import annotations

from enum import IntEnum


class I2c(IntEnum):
    """Bits of I2CCTL, as an 82599 has them."""

    CLK_IN = 0x1
    CLK_OUT = 0x2
    DATA_IN = 0x4
    DATA_OUT = 0x8


class Eec(IntEnum):
    """EEC has bits for the EEPROM's four wires, for the right to use them, and for its kind."""

    SK = 0x00000001
    CS = 0x00000002
    DI = 0x00000004
    DO = 0x00000008
    FWE_MASK = 0x00000030
    REQ = 0x00000040
    GNT = 0x00000080
    PRES = 0x00000100
    ARD = 0x00000200
    ADDR_SIZE = 0x00000400


EEC_SIZE_SHIFT, EEPROM_WORD_SIZE_SHIFT = 11, 6
"""EEC says the binary logarithm of the EEPROM's words, less 6."""

EERD_DONE, EERD_START, EERD_ADDRESS_SHIFT, EERD_DATA_SHIFT = 0x2, 0x1, 2, 16
SWSM_SMBI = 0x1
MSCA_MDI_COMMAND = 0x40000000
