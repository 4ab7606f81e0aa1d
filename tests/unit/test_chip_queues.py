"""Each of 128 queues each way has registers, which lead to whoever owns the queue now.

Ref: Linux, ixgbe_type.h: IXGBE_RDBAL, IXGBE_SRRCTL, IXGBE_PVFTDWBAL; ixgbe_vf_reset_msg.
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from port_driver import PEER_MAC, Port, port_of_chip
from vf_of_port import mac_of, vf_of
from vf_rings import frame_of

from harness.uapi.ixgbe_pf import RX_DCA_ALIAS, SRRCTL_ALIAS
from harness.uapi.ixgbe_vf import QueueControl, QueueRegister

RECEIVE, RECEIVE_HIGH, TRANSMIT, TRANSMIT_HIGH = 0x01000, 0x0D000, 0x06000, 0x07000
BASES = {"receive": (RECEIVE, RECEIVE_HIGH), "transmit": (TRANSMIT, TRANSMIT_HIGH)}


@pytest.fixture
def port() -> Iterator[Port]:
    with port_of_chip(63) as port:
        yield port


def place(direction: str, number: int, register: int) -> int:
    return BASES[direction][number // 64] + 0x40 * (number % 64) + register


@pytest.mark.parametrize("direction", BASES)
def test_each_of_128_queues_has_registers_of_its_own(port: Port, direction: str) -> None:
    port.start()
    for number in range(128):
        port.write(place(direction, number, QueueRegister.BAH), 1000 + number)
    for number in range(128):
        assert port.read(place(direction, number, QueueRegister.BAH)) == 1000 + number


@pytest.mark.parametrize(("vfs", "queues"), [(4, 4), (31, 4), (32, 2), (63, 2)])
def test_a_vfs_queues_are_the_chips_at_its_place(port: Port, vfs: int, queues: int) -> None:
    """Queue 0 of VF n is the chip's queue n times the queues of a pool; both see one register."""
    port.start(vfs=vfs)
    for vf in (0, 1, vfs - 1):
        function = port.chip.vfs[vf]
        for queue in range(queues):
            number = vf * queues + queue
            function.write(0x1000 + 0x40 * queue + QueueRegister.BAH, 7 + number)
            assert port.read(place("receive", number, QueueRegister.BAH)) == 7 + number
            port.write(place("transmit", number, QueueRegister.WBAH), 9 + number)
            assert function.read(0x2000 + 0x40 * queue + QueueRegister.WBAH) == 9 + number


def test_the_queues_behind_those_of_the_vfs_are_the_ports(port: Port) -> None:
    port.start(vfs=4, queues=2)
    for queue in (0, 1):
        control = port.read(place("receive", 16 + queue, QueueRegister.DCTL))
        assert control & QueueControl.ENABLE
    assert not port.read(place("receive", 15, QueueRegister.DCTL)) & QueueControl.ENABLE


def test_the_first_16_queues_have_older_places_too(port: Port) -> None:
    """The driver uses the older places of SRRCTL and DCA_RXCTRL."""
    port.start()
    for number in range(16):
        port.write(SRRCTL_ALIAS + 4 * number, 2 + number)
        port.write(RX_DCA_ALIAS + 4 * number, 3 + number)
    for number in range(16):
        assert port.read(SRRCTL_ALIAS + 4 * number) == 2 + number
        assert port.read(place("receive", number, QueueRegister.SRRCTL)) == 2 + number
        assert port.read(place("receive", number, QueueRegister.DCA)) == 3 + number


def test_the_port_can_stop_and_start_a_vfs_queue(port: Port) -> None:
    """ixgbe_vf_reset_event enables the queues of a VF and disables them again."""
    port.start(vfs=4)
    with vf_of(port, 1) as vf:
        control = place("transmit", 4, QueueRegister.DCTL)
        port.write(control, 0)
        vf.tx.send(frame_of(100, head=PEER_MAC + mac_of(1)))
        assert port.sent == []
        port.write(control, QueueControl.ENABLE)
        assert len(port.sent) == 1, "what waited goes out"


def test_a_tail_that_the_port_writes_sends_the_vfs_frames(port: Port) -> None:
    port.start(vfs=4)
    with vf_of(port, 1) as vf:
        vf.tx.put_frame(frame_of(100, head=PEER_MAC + mac_of(1)))
        port.write(place("transmit", 4, QueueRegister.TAIL), 1)
        assert len(port.sent) == 1
        assert vf.function.statistics.sent == 1
