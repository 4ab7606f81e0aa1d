"""``ethtool -d`` shows registers that a driver only reads, or takes to be as after a reset.

Ref: Linux, ixgbe_get_regs; ixgbe_type.h for the names of bits.
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from port_driver import Port, port_of_chip

from harness.chip.physical_function import PhysicalFunction
from harness.uapi.ixgbe_pf import (
    FDIRCMD_CMD_MASK,
    FDIRCTRL_INIT_DONE,
    HLREG0_JUMBOEN,
    HLREG0_RXCRCSTRP,
    HLREG0_TXCRCEN,
    HLREG0_TXPADEN,
    STATUS_GIO,
    VLNCTRL_VFE,
    Ctrl,
    Register,
)

LAN_ID = 0xC


@pytest.fixture
def port() -> Iterator[Port]:
    with port_of_chip() as port:
        port.start()
        yield port


def test_checksums_are_added_and_taken_off_and_short_frames_padded(port: Port) -> None:
    """A driver changes other bits of HLREG0, and relies on these (ixgbe_set_rx_buffer_len)."""
    checked = HLREG0_TXCRCEN | HLREG0_RXCRCSTRP | HLREG0_TXPADEN
    assert port.read(Register.HLREG0) == checked | HLREG0_JUMBOEN


def test_a_tag_has_the_type_that_no_driver_sets(port: Port) -> None:
    """The driver keeps what it reads of VLNCTRL.VET; ixgbe_set_rx_mode."""
    assert port.read(Register.VLNCTRL) == VLNCTRL_VFE | 0x8100


@pytest.mark.parametrize("number", [0, 1])
def test_a_port_knows_which_of_the_chips_it_is(number: int) -> None:
    """The driver asks the port; ixgbe_set_lan_id_multi_port_pcie."""
    port = PhysicalFunction(number=number, mac=b"\2" * 6, vfs=1, to_wire=lambda _: True)
    assert port.read(Register.STATUS) & LAN_ID == number << 2


def test_the_status_tells_whether_the_bus_is_the_ports(port: Port) -> None:
    """The driver waits for that before each reset; ixgbe_disable_pcie_primary."""
    assert port.read(Register.STATUS) & STATUS_GIO
    port.write(Register.CTRL, Ctrl.GIO_DIS)
    assert not port.read(Register.STATUS) & STATUS_GIO
    port.write(Register.CTRL, Ctrl.RST)
    assert port.read(Register.STATUS) & STATUS_GIO
    port.set_master(False)
    assert not port.read(Register.STATUS) & STATUS_GIO


def test_the_flow_director_is_ready_when_it_was_configured(port: Port) -> None:
    """The driver waits for that when it opens the port; ixgbe_fdir_enable_82599."""
    port.write(Register.FDIRCTRL, 0x1)
    assert port.read(Register.FDIRCTRL) == 0x1 | FDIRCTRL_INIT_DONE


@pytest.mark.parametrize("command", [1, 2, 3], ids=["add", "remove", "query"])
def test_a_command_to_the_flow_director_is_over_at_once(port: Port, command: int) -> None:
    """The driver polls for that (ixgbe_fdir_check_cmd_complete), or `ethtool -N` fails."""
    port.write(Register.FDIRCMD, 0x100 | command)
    assert port.read(Register.FDIRCMD) & FDIRCMD_CMD_MASK == 0
