"""Frames from a driver's ring onto the wire: descriptors, write-back, and what is not sent."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from unittest.mock import patch

import pytest
from descriptors import eventfds, signals
from hypothesis import given
from hypothesis import strategies as st
from vf_driver import Guest, guest_with_vf
from vf_rings import MAC, MEMORY, MEMORY_BYTES, PEER, TX_DATA, frame_of

from harness.twin import offload
from harness.twin.dma_log import Kind
from harness.uapi.ixgbe_vf import (
    POPTS_TXSM,
    TX_DESCRIPTOR,
    TX_TYPE_CONTEXT,
    TX_TYPE_DATA,
    VECTORS,
    Message,
    QueueControl,
    QueueRegister,
    Register,
    TxCommand,
    VfControl,
)

FROM_VF = PEER + MAC
RS, VLE = TxCommand.RS, TxCommand.VLE
WORDS = st.integers(0, 2**32 - 1)


def frame(size: int, number: int = 0) -> bytes:
    return frame_of(size, number, head=FROM_VF)


@pytest.fixture
def guest(tmp_path: Path) -> Iterator[Guest]:
    with guest_with_vf(tmp_path / "dma.log") as guest:
        guest.start(descriptors=8, queues=2)
        yield guest


# --- descriptors ----------------------------------------------------------------------------


@pytest.mark.parametrize("size", [60, 1514, 9014, 9724])
def test_a_frame_leaves_as_it_is(guest: Guest, size: int) -> None:
    """As large as there are, on a port of any MTU; the head has passed it and DD says so."""
    guest.tx[0].send(frame(size))
    assert guest.sent == [frame(size)]
    assert guest.tx[0].done() == [0]
    assert guest.tx[0].read(QueueRegister.HEAD) == 1


def test_a_frame_is_put_together_from_several_buffers(guest: Guest) -> None:
    """Cut within its addresses, too; DD is in the last descriptor alone, which asks for it."""
    whole = frame(9014)
    guest.tx[0].send(whole[:3], whole[3:13], whole[13:4000], whole[4000:])
    assert guest.sent == [whole]
    assert guest.tx[0].done() == [3]


def test_a_frame_of_more_buffers_than_the_host_takes_at_once_leaves(guest: Guest) -> None:
    """A driver may cut a frame as finely as its ring allows; writev(2) takes 1024 parts."""
    guest.start(descriptors=2048)
    data = frame(1100)
    guest.tx[0].send(data[:14], *(data[at : at + 1] for at in range(14, 1100)))
    assert guest.sent == [data]
    guest.tx[0].send(frame(30)[:15], *(frame(30)[at : at + 1] for at in range(15, 30)))
    assert guest.sent[1:] == [frame(30).ljust(60, b"\0")]


def test_without_rs_nothing_is_written_back(guest: Guest) -> None:
    """The driver asks for a report where it wants one; the head moves all the same."""
    guest.tx[0].send(frame(60), command=0)
    assert (guest.sent, guest.tx[0].done()) == ([frame(60)], [])
    assert guest.tx[0].read(QueueRegister.HEAD) == 1


def test_only_the_status_is_written_back(guest: Guest) -> None:
    """Four bytes: address and command stay, by which the driver unmaps the buffer."""
    guest.tx[0].put_frame(frame(60))
    before = guest.tx[0].descriptor(0)
    guest.tx[0].go()
    assert guest.tx[0].descriptor(0) == before[:12] + b"\1\0\0\0"
    writes = [(each.address, each.length) for each in guest.records() if each.kind >= Kind.RX_DATA]
    assert writes == [(MEMORY + guest.tx[0].place + 12, 4)]


def test_frames_leave_in_their_order(guest: Guest) -> None:
    """Several at one write of TAIL, each of them reported or not as it asks."""
    for number in range(5):
        guest.tx[0].put_frame(frame(100, number), command=RS if number % 2 else 0)
    guest.tx[0].go()
    assert guest.sent == [frame(100, number) for number in range(5)]
    assert guest.tx[0].done() == [1, 3]


def test_a_ring_is_gone_round_again_and_again(guest: Guest) -> None:
    """Three descriptors a frame in a ring of eight: one frame lies over the ring's end."""
    for number in range(40):
        whole = frame(300, number)
        guest.tx[0].send(whole[:20], whole[20:200], whole[200:])
    assert guest.sent == [frame(300, number) for number in range(40)]
    assert guest.tx[0].read(QueueRegister.HEAD) == 40 * 3 % 8


def test_a_frame_waits_for_its_end(guest: Guest) -> None:
    """TAIL may come before the last descriptor: half a frame must not go out, nor twice."""
    whole = frame(200)
    ring = guest.tx[0]
    ring.put_frame(frame(60))
    ring.put(TX_DESCRIPTOR.pack(MEMORY + TX_DATA + 60, TX_TYPE_DATA | 100, 0))
    guest.memory[TX_DATA + 60 : TX_DATA + 260] = whole
    ring.go()
    assert (guest.sent, ring.read(QueueRegister.HEAD)) == ([frame(60)], 1)
    word = TX_TYPE_DATA | TxCommand.EOP | 100
    ring.put(TX_DESCRIPTOR.pack(MEMORY + TX_DATA + 160, word, 0))
    ring.go()
    assert (guest.sent, ring.read(QueueRegister.HEAD)) == ([frame(60), whole], 3)


def test_queues_stand_by_themselves(guest: Guest) -> None:
    """Each has its ring, its registers and its context."""
    for vlan in (7, 8):
        guest.ask(1 << 16 | Message.SET_VLAN, vlan)
    guest.tx[0].put_context(vlan=7)
    guest.tx[0].send(frame(60), command=RS | VLE)
    guest.tx[1].put_context(vlan=8)
    guest.tx[1].send(frame(60, 1), command=RS | VLE)
    guest.tx[0].send(frame(60, 2), command=RS | VLE)
    assert [(sent[12:16], sent[18:]) for sent in guest.sent] == [
        (b"\x81\0\0" + bytes([vlan]), frame(60, number)[14:])
        for number, vlan in enumerate((7, 8, 7))
    ]
    assert (guest.tx[0].done(), guest.tx[1].done()) == ([1, 2], [1])


# --- off ------------------------------------------------------------------------------------


def test_a_queue_that_is_off_sends_nothing_until_it_is_on(guest: Guest) -> None:
    """Nor is anything read.  What was put meanwhile leaves then, without another write of TAIL."""
    guest.tx[0].write(QueueRegister.DCTL, 0)
    guest.tx[0].send(frame(60))
    assert (guest.sent, guest.records()) == ([], [])
    guest.tx[0].write(QueueRegister.DCTL, QueueControl.ENABLE)
    assert guest.sent == [frame(60)]


def test_without_bus_master_enable_nothing_is_read(guest: Guest) -> None:
    """The ring stands still, and goes on with all that is in it once TAIL is written again."""
    guest.set_master(False)
    guest.tx[0].send(frame(60))
    assert (guest.sent, guest.records(), guest.tx[0].done()) == ([], [], [])
    guest.set_master(True)
    guest.tx[0].send(frame(60, 1))
    assert guest.sent == [frame(60), frame(60, 1)]


def test_a_buffer_that_is_not_lent_stops_the_ring_there(guest: Guest) -> None:
    """A master abort: what came before it is sent and reported, and the twin goes on."""
    ring = guest.tx[0]
    ring.put_frame(frame(60))
    word = TX_TYPE_DATA | TxCommand.EOP | TxCommand.RS | 60
    ring.put(TX_DESCRIPTOR.pack(MEMORY + MEMORY_BYTES - 59, word, 0))
    with eventfds(VECTORS) as ends:
        for vector, end in enumerate(ends):
            guest.device.interrupts.connect(vector, os.dup(end))
        ring.go()
        assert signals(*ends) == [0, 1, 0]
        guest.device.interrupts.disconnect()
    assert (guest.sent, ring.done(), ring.read(QueueRegister.HEAD)) == ([frame(60)], [0], 1)
    assert guest.device.memory.faults == 1
    guest.tx[1].send(frame(60, 1))
    assert guest.sent == [frame(60), frame(60, 1)]


def test_what_no_frame_can_be_is_not_even_put_together(guest: Guest) -> None:
    """A chain of descriptors could ask for gigabytes; the next frame is sent."""
    ring, half = guest.tx[0], bytes(5000)
    ring.send(half, half, options=POPTS_TXSM)
    with patch.object(offload, "finished", wraps=offload.finished) as finished:
        ring.send(half, half, options=POPTS_TXSM)
    assert (guest.sent, finished.called) == ([], False)
    assert guest.device.statistics.malformed == 2
    ring.send(frame(60))
    assert guest.sent == [frame(60)]


@pytest.mark.parametrize(("head", "tail"), [(9, 3), (0, 9)])
def test_a_place_that_the_ring_does_not_have_stops_it(guest: Guest, head: int, tail: int) -> None:
    """Else it would be read from behind its end, whatever is there."""
    for number in range(3):
        guest.tx[0].put_frame(frame(60, number))
    guest.tx[0].write(QueueRegister.HEAD, head)
    guest.tx[0].write(QueueRegister.TAIL, tail)
    assert (guest.sent, guest.records()) == ([], [])


RESETS: dict[str, Callable[[Guest], None]] = {
    "FLR": lambda guest: guest.device.reset(),
    "VFCTRL": lambda guest: guest.device.write(Register.VFCTRL, VfControl.RST),
}


@pytest.mark.parametrize("how", RESETS)
def test_a_reset_stops_the_ring_and_takes_its_context(guest: Guest, how: str) -> None:
    """The port's driver turns a queue off that the function reset left on: ixgbe_vf_reset_event.

    Where heads are written back to it clears as the VF says that it was reset: ixgbe_vf_reset_msg.
    """
    guest.ask(1 << 16 | Message.SET_VLAN, 7)
    ring = guest.tx[0]
    ring.put_context(vlan=7)
    ring.send(frame(60), command=RS | VLE)
    ring.write(QueueRegister.WBAL, 0x1000)
    kept = ring.read(QueueRegister.DCTL) & ~QueueControl.ENABLE
    RESETS[how](guest)
    guest.set_master(True)
    ring.send(frame(60, 1))
    assert ring.read(QueueRegister.DCTL) == kept
    assert bool(ring.read(QueueRegister.LEN)) == (how == "VFCTRL")
    assert ring.read(QueueRegister.WBAL) == 0x1000
    guest.start(descriptors=8)
    assert guest.tx[0].read(QueueRegister.WBAL) == 0
    guest.tx[0].send(frame(60, 2), command=RS | VLE)
    assert guest.sent[1:] == [FROM_VF + b"\x81\0\0\0" + frame(60, 2)[12:]]


# --- whatever is in the ring ----------------------------------------------------------------


@given(
    words=st.lists(st.tuples(st.sampled_from([TX_TYPE_DATA, TX_TYPE_CONTEXT, 0]), WORDS, WORDS)),
    data=st.binary(min_size=64, max_size=512),
)
def test_no_descriptor_ends_the_twin(
    tmp_path_factory: pytest.TempPathFactory, words: list[tuple[int, int, int]], data: bytes
) -> None:
    """Any bits beside the type, over any data: the ring is worked off, or stands still."""
    with guest_with_vf(tmp_path_factory.getbasetemp() / "dma.log") as guest:
        guest.start(descriptors=8)
        guest.device.port.set_spoof_check(False)
        guest.memory[TX_DATA : TX_DATA + len(data)] = data
        for kind, word, status in words[:7]:
            address = word if kind == TX_TYPE_CONTEXT else MEMORY + TX_DATA
            word = word & 0xFF0F01FF | kind
            guest.tx[0].put(TX_DESCRIPTOR.pack(address, word, status))
        guest.tx[0].go()
        guest.tx[0].configure()
        guest.tx[0].send(frame(60))
        assert guest.sent[-1] == frame(60)
