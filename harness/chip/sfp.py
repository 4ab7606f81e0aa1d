"""A driver reads the SFP+ module in a port's cage bit by bit over I2C.

Ref: SFF-8472, two-wire interface A0h and A2h; Linux, ixgbe_phy.c: ixgbe_read_i2c_byte_generic,
ixgbe_identify_sfp_module_generic.
"""

from __future__ import annotations

import struct

from harness.chip.registers import Registers
from harness.uapi.ixgbe_eeprom import I2c
from harness.uapi.ixgbe_pf import Register

_IDENTITY, _DIAGNOSTICS = 0xA0, 0xA2
_ACKNOWLEDGE = 0


def _text(text: str, length: int) -> bytes:
    return text.encode().ljust(length)


def _with_checksum(page: bytearray, first: int, at: int) -> None:
    page[at] = sum(page[first:at]) & 0xFF


def _identity() -> bytes:
    """Return page A0h of Intel's 10GBASE-SR module.

    ixgbe takes modules of other vendors only with permission (IXGBE_DEVICE_CAPS_ALLOW_ANY_SFP).
    """
    page = bytearray(256)
    page[0], page[1], page[2] = 0x03, 0x04, 0x07  # SFP, identified by its serial id, connector LC
    page[3] = 0x10  # IXGBE_SFF_10GBASESR_CAPABLE
    page[11], page[12] = 0x06, 103  # 64B/66B, 10.3 Gbit/s
    page[16], page[17], page[18], page[19] = 8, 2, 0, 30  # tens of metres of each fibre
    page[20:36] = _text("Intel Corp", 16)
    page[37:40] = b"\x00\x1b\x21"  # IXGBE_SFF_VENDOR_OUI_INTEL
    page[40:56] = _text("FTLX8571D3BCV-IT", 16)
    page[56:60] = _text("A", 4)
    page[60:62] = (850).to_bytes(2, "big")  # nm
    page[65] = 0x1A  # has wires for loss of signal, transmitter fault and disable
    page[68:84] = _text("VFH0001", 16)
    page[84:92] = _text("260101", 8)
    page[92], page[94] = 0x68, 0x05  # internally calibrated diagnostics; SFF-8472 rev 11
    _with_checksum(page, 0, 63)
    _with_checksum(page, 64, 95)
    return bytes(page)


def _diagnostics() -> bytes:
    """Return page A2h: limits and values of temperature, voltage, current and light."""
    page = bytearray(256)
    warm, cold = 85 << 8, -5 << 8 & 0xFFFF
    for at, high, low in ((0, warm, cold), (8, 36300, 29700), (16, 11800, 2000),
                          (24, 8913, 1698), (32, 12589, 102)):  # fmt: skip
        struct.pack_into(">HHHH", page, at, high, low, high, low)
    struct.pack_into(">HHHHH", page, 96, 35 << 8, 33000, 4000, 5623, 5012)
    _with_checksum(page, 0, 95)
    return bytes(page)


class Module:
    """A 10GBASE-SR module has *pages* of 256 bytes, by their address on the I2C bus."""

    def __init__(self) -> None:
        self.pages = {_IDENTITY: _identity(), _DIAGNOSTICS: _diagnostics()}


class I2cBus:
    """Two wires lead from a port (master) to its module (slave); I2CCTL drives and reads them."""

    def __init__(self, registers: Registers, module: Module) -> None:
        self._module = module
        self._clock = self._data = 1  # the levels that the master drives
        self._drives = 1  # the level that the slave drives on the data wire; 0 wins
        self._bits: list[int] | None = None  # of the current byte; None outside a transfer
        self._page: bytes | None = None
        self._at = 0
        self._expects = "address"
        self._sends = self._sends_next = False
        registers.claim(Register.I2CCTL_8259X, self._read, self._write)

    def _read(self) -> int:
        data = self._data & self._drives
        value = (I2c.CLK_OUT | I2c.CLK_IN) * self._clock
        return value | I2c.DATA_OUT * self._data | I2c.DATA_IN * data

    def _write(self, value: int) -> None:
        clock, data = int(bool(value & I2c.CLK_OUT)), int(bool(value & I2c.DATA_OUT))
        if self._clock and clock and data != self._data:
            self._start() if not data else self._stop()
        elif clock and not self._clock:
            self._rise(data)
        elif self._clock and not clock:
            self._fall()
        self._clock, self._data = clock, data

    def _start(self) -> None:
        self._bits, self._expects, self._drives = [], "address", 1
        self._sends = self._sends_next = False

    def _stop(self) -> None:
        self._bits, self._drives = None, 1

    def _rise(self, data: int) -> None:
        """Take a bit of a byte, or the acknowledgement after a byte, since the clock rises."""
        if self._bits is None:
            return
        if len(self._bits) < 8:
            self._bits.append(self._drives if self._sends else data)
        elif self._sends and data != _ACKNOWLEDGE:
            self._stop()  # the master did not acknowledge, and reads no further byte
        else:
            self._bits.append(data)  # the ninth bit, which acknowledges the byte

    def _fall(self) -> None:
        """Let the slave drive its next bit, or 1 if the master has the wire: the clock falls."""
        if self._bits is None:
            return
        if len(self._bits) > 8:
            self._bits, self._sends = [], self._sends_next
        if len(self._bits) == 8:
            self._drives = 1 if self._sends else self._taken()
        elif self._sends:
            self._drives = self._next_bit()
        else:
            self._drives = 1

    def _taken(self) -> int:
        """Take a whole byte from the master, and return the slave's answer: 0 acknowledges."""
        assert self._bits is not None
        byte = int("".join(map(str, self._bits)), 2)
        if self._expects == "address":
            self._page = self._module.pages.get(byte & 0xFE)
            if self._page is None:
                return 1 - _ACKNOWLEDGE
            self._expects = "data" if byte & 1 else "offset"
            self._sends_next = bool(byte & 1)
            self._at -= self._sends_next
        elif self._expects == "offset":
            self._at, self._expects = byte, "data"
        return _ACKNOWLEDGE

    def _next_bit(self) -> int:
        assert self._bits is not None
        assert self._page is not None
        number = len(self._bits)
        if number == 0:
            self._at += 1
        return self._page[self._at & 0xFF] >> (7 - number) & 1
