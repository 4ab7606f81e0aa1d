"""A port shows its number and whether the port may use the bus; registers have initial values.

Registers that ixgbe changes a bit of, or waits for, have the initial values of an 82599.
Ref: 82599 datasheet, "General Control Registers".
"""

from __future__ import annotations

from harness.chip.configuration import PortConfig
from harness.chip.registers import Registers
from harness.uapi.ixgbe_pf import (
    FDIRCMD_CMD_MASK,
    FDIRCTRL_INIT_DONE,
    HLREG0_RXCRCSTRP,
    HLREG0_TXCRCEN,
    HLREG0_TXPADEN,
    MAXFRS_SHIFT,
    STATUS_GIO,
    STATUS_LAN_ID_SHIFT,
    Ctrl,
    Register,
    Row,
)

_TAGGED = 0x8100  # ETH_P_8021Q
_DEFAULTS = {
    Register.SECTXSTAT: 3,
    Register.SECRXSTAT: 3,
    Register.FDIRCTRL: FDIRCTRL_INIT_DONE,
    Register.HLREG0: HLREG0_TXCRCEN | HLREG0_RXCRCSTRP | HLREG0_TXPADEN,
    Register.VLNCTRL: _TAGGED,  # VET, which ixgbe leaves as it is
    Register.MAXFRS: 1518 << MAXFRS_SHIFT,
    Row.RXPBSIZE.at(0): 0x80000,
}


class General:
    """`General` answers for STATUS and the flow director, and sets registers' initial values.

    *number* is the port's number on its chip, and *config* its configuration space.
    """

    def __init__(self, registers: Registers, number: int, config: PortConfig) -> None:
        self._registers = registers
        self._number = number
        self._config = config
        registers.claim(Register.STATUS, self._status)
        registers.claim(Register.FDIRCTRL, write=self._configure_flow_director)
        registers.claim(Register.FDIRCMD, write=self._command_flow_director)
        for offset, value in _DEFAULTS.items():
            registers.default(offset, value)

    def _status(self) -> int:
        """Return the value of STATUS, which no write changes.

        Ref: ixgbe_set_lan_id_multi_port_pcie, ixgbe_disable_pcie_primary.
        """
        disabled = self._registers.held(Register.CTRL) & Ctrl.GIO_DIS
        masters = self._config.masters_bus and not disabled
        return self._number << STATUS_LAN_ID_SHIFT | (STATUS_GIO if masters else 0)

    def _configure_flow_director(self, value: int) -> None:
        """Set INIT_DONE at once, for which ixgbe_fdir_enable_82599 waits."""
        self._registers.hold(Register.FDIRCTRL, value | FDIRCTRL_INIT_DONE)

    def _command_flow_director(self, value: int) -> None:
        """Complete the command at once, for which ixgbe_fdir_check_cmd_complete waits."""
        self._registers.hold(Register.FDIRCMD, value & ~FDIRCMD_CMD_MASK)
