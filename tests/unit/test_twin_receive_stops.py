"""A receive ring that is off gets nothing, and goes on as its driver expects."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from vf_driver import Guest, guest_with_vf
from vf_rings import MEMORY, MEMORY_BYTES, PEER, SLOT, frame_of

from harness.twin.control import Control
from harness.uapi.ixgbe_vf import (
    QueueControl,
    QueueRegister,
    Register,
    VfControl,
)


@pytest.fixture
def guest(tmp_path: Path) -> Iterator[Guest]:
    """Yield a VF that its driver has not started yet."""
    with guest_with_vf(tmp_path / "dma.log", port_mtu=9710) as guest:
        yield guest


def test_a_queue_that_is_off_gets_nothing(guest: Guest) -> None:
    """The device reads no descriptor of the queue, and counts the frame as missed."""
    guest.start()
    guest.rx[0].write(QueueRegister.DCTL, 0)
    before = guest.memory[:]
    guest.hear(frame_of(60))
    assert (guest.memory[:], guest.records()) == (before, [])
    assert guest.device.statistics.missed == 1


@pytest.mark.parametrize("frames_before", [0, 3])
def test_without_bus_master_enable_there_is_no_access_at_all(
    guest: Guest, frames_before: int
) -> None:
    """The device must not use descriptors either that it fetched before."""
    guest.start()
    guest.hear(*(frame_of(60, number) for number in range(frames_before)))
    before, records = guest.memory[:], guest.records()
    guest.set_master(False)
    guest.hear(frame_of(60, 10), frame_of(1000, 11))
    assert guest.memory[:MEMORY_BYTES] == before
    assert (guest.records(), guest.device.statistics.missed) == (records, 2)


def test_with_bus_master_enable_back_the_ring_goes_on_where_it_was(guest: Guest) -> None:
    """The device loses frames that came meanwhile, and no descriptor."""
    guest.start()
    for number, on in enumerate((True, False, True)):
        guest.set_master(on)
        guest.hear(frame_of(60, number))
    assert [got.data for got in guest.rx[0].took()] == [frame_of(60, 0), frame_of(60, 2)]
    assert guest.rx[0].read(QueueRegister.HEAD) == 2


def test_a_ring_that_was_off_is_read_anew(guest: Guest) -> None:
    """The driver has given the old buffers away; a frame there overwrites another's memory."""
    guest.start(descriptors=16)
    guest.hear(frame_of(60))
    ring = guest.rx[0]
    old = ring.buffer(1)
    ring.configure()
    for index in range(8):
        ring.put((MEMORY + ring.buffer(8 + index)).to_bytes(16, "little"))
    ring.go()
    guest.hear(frame_of(60, 1), frame_of(60, 2))
    assert not any(guest.memory[old : old + SLOT])
    assert guest.memory[ring.buffer(8) :][:60] == frame_of(60, 1)
    assert guest.memory[ring.buffer(9) :][:60] == frame_of(60, 2)


RING = (QueueRegister.BAL, QueueRegister.BAH, QueueRegister.LEN)
RESETS: dict[str, Callable[[Guest], None]] = {
    "FLR": lambda guest: guest.device.reset(),
    "VFCTRL": lambda guest: guest.device.write(Register.VFCTRL, VfControl.RST),
}


@pytest.mark.parametrize("how", RESETS)
def test_a_reset_stops_the_ring_and_its_place_alone_is_gone(guest: Guest, how: str) -> None:
    """The device writes no more to the old ring, even with Bus Master Enable back.

    A function reset keeps all but base and length, so the queue is on still (82599 specification
    update, software clarification 5); the VF's own turns the queue off and keeps the rest
    (datasheet, VFCTRL: "the queue enable and the interrupt registers").
    """
    guest.start()
    guest.rx[0].write(QueueRegister.DCA, 0x200)
    guest.hear(frame_of(60))
    ring = guest.rx[0]
    before = {register: ring.read(register) for register in QueueRegister}
    RESETS[how](guest)
    guest.set_master(True)
    memory, records = guest.memory[:], guest.records()
    guest.hear(frame_of(60, head=b"\xff" * 6 + PEER))
    assert (guest.memory[:], guest.records()) == (memory, records)
    lost = dict.fromkeys(RING, 0) if how == "FLR" else {
        QueueRegister.DCTL: before[QueueRegister.DCTL] & ~QueueControl.ENABLE
    }  # fmt: skip
    assert {register: ring.read(register) for register in QueueRegister} == before | lost
    assert before[QueueRegister.HEAD] == 1
    guest.start()
    guest.hear(frame_of(60, 1))
    assert [got.data for got in guest.rx[0].took()] == [frame_of(60, 1)]


def test_a_queue_that_a_function_reset_left_on_does_not_run(guest: Guest) -> None:
    """Such a queue has no ring, and an audit would read memory at address 0."""
    guest.start()
    control = Control(guest.device, lambda: False)
    assert (len(control.receive_rings()), control.status()["vf"]["queues"]) == (1, 1)
    guest.device.reset()
    assert guest.rx[0].read(QueueRegister.DCTL) & QueueControl.ENABLE
    assert (control.receive_rings(), control.status()["vf"]["queues"]) == ([], 0)
