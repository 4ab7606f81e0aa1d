"""A port's link needs cable, laser and training, and its driver learns of each change.

Ref: Linux, ixgbe_82599.c: ixgbe_setup_mac_link_82599, ixgbe_reset_pipeline_82599,
ixgbe_disable_tx_laser_multispeed_fiber; ixgbe_common.c: ixgbe_check_mac_link_generic.
"""

from __future__ import annotations

import select
import time
from collections.abc import Iterator

import pytest
from port_driver import PEER_MAC, PORT_MAC, Port, port_of_chip
from vf_rings import frame_of

from harness.chip.link import TRAINING_SECONDS
from harness.uapi.ixgbe_pf import Eicr, Links, Register
from harness.uapi.ixgbe_vf import Link
from harness.uapi.ixgbe_vf import Register as VfRegister

LASER_OFF, MODULE = 0x8, 0x4
RESTART = 0x1000
LMS = 7 << 13
FRAME = frame_of(60, head=PEER_MAC + PORT_MAC)


@pytest.fixture
def port() -> Iterator[Port]:
    with port_of_chip() as port:
        port.start(vfs=4)
        port.write(Register.EICR, Eicr.LSC)
        yield port


def changes(port: Port) -> bool:
    """Say whether the driver was told of a change since this was asked last."""
    port.turn()
    told = bool(port.read(Register.EICS) & Eicr.LSC)
    port.write(Register.EICR, Eicr.LSC)
    return told


def wait_for_link(port: Port) -> float:
    """Let the loop turn until there is a link, and return how long that took."""
    begin = time.monotonic()
    while not port.read(Register.LINKS):
        select.select([], [], [], port.turn())
        assert time.monotonic() - begin < 5
    return time.monotonic() - begin


@pytest.mark.parametrize(
    ("mbit", "speed", "vf_speed"),
    [
        (10_000, Links.SPEED_10G, Link.SPEED_10G),
        (1000, Links.SPEED_1G, Link.SPEED_1G),
        (100, Links.SPEED_100, Link.SPEED_100M),
    ],
)
def test_port_and_vfs_see_the_same_speed(
    port: Port, mbit: int, speed: Links, vf_speed: Link
) -> None:
    port.chip.link.plug(True, mbit, trained=True)
    assert port.read(Register.LINKS) == Links.UP | speed
    assert port.chip.vfs[3].read(VfRegister.VFLINKS) == Link.UP | vf_speed


def test_a_speed_that_there_is_not_is_refused(port: Port) -> None:
    with pytest.raises(ValueError, match="no link of 2500 Mbit/s"):
        port.chip.link.plug(True, 2500)
    assert port.chip.link.mbit == 10_000


def test_a_change_is_told_once_each_way(port: Port) -> None:
    port.chip.link.plug(False, 10_000)
    assert [changes(port), changes(port)] == [True, False]
    port.chip.link.plug(True, 10_000, trained=True)
    assert [changes(port), changes(port)] == [True, False]


def test_training_takes_its_time_and_the_loop_is_told_how_long(port: Port) -> None:
    """AUTOC's restart bit takes the link down for the training, and clears itself."""
    port.write(Register.AUTOC, port.read(Register.AUTOC) | RESTART)
    assert not port.read(Register.AUTOC) & RESTART
    assert port.read(Register.LINKS) == 0
    assert changes(port)
    assert 0 < port.turn() <= TRAINING_SECONDS
    assert wait_for_link(port) < 4
    assert changes(port)


def test_without_a_laser_there_is_no_link(port: Port) -> None:
    """The driver turns the laser off and on by ESDP's SDP3 (ixgbe_down, ixgbe_up_complete)."""
    port.write(Register.ESDP, LASER_OFF)
    assert port.read(Register.LINKS) == 0
    assert port.read(Register.ESDP) & MODULE, "the module stays in its cage"
    assert port.turn() == 0.0, "nothing is to be waited for"
    port.write(Register.ESDP, 0)
    assert port.read(Register.LINKS) == 0, "the other end trains anew"
    wait_for_link(port)
    assert port.read(Register.ESDP) == MODULE


def test_without_a_cable_no_training_helps(port: Port) -> None:
    port.chip.link.plug(False, 10_000)
    port.write(Register.AUTOC, port.read(Register.AUTOC) | RESTART)
    assert (port.turn(), port.read(Register.LINKS)) == (0.0, 0)


def test_without_a_link_the_rings_stand_still(port: Port) -> None:
    """ixgbe_watchdog_flush_tx finds frames that wait (h != t), and resets the port for them."""
    port.chip.link.plug(False, 10_000)
    port.tx[0].send(FRAME)
    assert (port.sent, port.tx[0].done()) == ([], [])
    port.link_up()
    assert (port.sent, port.tx[0].done()) == ([FRAME], [0])


def test_the_driver_finds_a_serial_link_of_10_gbit(port: Port) -> None:
    """Ixgbe reads AUTOC for what the port can, and waits for ANLP1."""
    assert port.read(Register.AUTOC) & LMS == 3 << 13
    assert port.read(Register.AUTOC2) & 3 << 16 == 2 << 16
    assert port.read(Register.ANLP1) & 0xF0000


def test_a_reset_turns_the_laser_on_and_keeps_the_cable(port: Port) -> None:
    port.write(Register.ESDP, LASER_OFF)
    port.reset_hw()
    assert port.read(Register.LINKS) & Links.UP
    port.chip.link.plug(False, 10_000)
    port.write(Register.CTRL, 1 << 26)
    assert not port.read(Register.LINKS)


def test_no_phy_answers_on_mdio(port: Port) -> None:
    """mdio45_probe reads all ones, once the command bit is clear (ixgbe_read_phy_reg_mdi)."""
    port.write(Register.MSCA, 1 << 30 | 0x20)
    assert port.read(Register.MSCA) & 1 << 30 == 0
    assert port.read(Register.MSRWD) >> 16 == 0xFFFF
