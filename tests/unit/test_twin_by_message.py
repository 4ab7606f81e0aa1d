"""What a driver changes while its VF waits: rings and frames go by message, one after the other.

Each message is a moment at which the guest runs, and may take away what the device has in hand.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from vf_driver import Guest, answering, guest_with_vf
from vf_rings import MAC, MEMORY, PEER, Ring, frame_of
from vfio_client import Asked, Client

from harness.uapi.ixgbe_vf import QueueRegister, Register, VfControl
from harness.uapi.vfio_user import Command

READ, WRITE = Command.DMA_READ, Command.DMA_WRITE
SENT = frame_of(60, head=PEER + MAC)


@pytest.fixture
def guest(tmp_path: Path) -> Iterator[Guest]:
    with guest_with_vf(tmp_path / "dma.log", port_mtu=9710) as guest:
        yield guest


@pytest.fixture
def client(guest: Guest) -> Iterator[Client]:
    with answering(guest) as client:
        guest.lend_by_message(client)
        guest.start(mtu=9000, descriptors=8)
        yield client


def taken_away(how: str, guest: Guest, ring: Ring) -> Callable[[], None]:
    """One of the ways in which a driver takes a ring from its device."""
    return {
        "off": lambda: ring.write(QueueRegister.DCTL, 0),
        "another": lambda: ring.write(QueueRegister.BAL, 0x40000),
        "shorter": lambda: ring.write(QueueRegister.LEN, 0),
        "reset": lambda: guest.device.write(Register.VFCTRL, VfControl.RST),
        "set up again": ring.configure,
    }[how]


WAYS = ["off", "another", "shorter", "reset", "set up again"]


def test_frames_come_and_go_by_message(guest: Guest, client: Client) -> None:
    """As by shared memory; the next frame finds its descriptor fetched already."""
    guest.hear(frame_of(60), frame_of(5000, 1))
    assert [got.data for got in guest.rx[0].took()] == [frame_of(60), frame_of(5000, 1)]
    assert [asked.command for asked in client.asked] == [READ, *[WRITE] * 2, *[WRITE] * 6]
    assert client.asked[0] == Asked(READ, MEMORY + guest.rx[0].place, 7 * 16)
    guest.tx[0].send(SENT[:20], SENT[20:])
    assert guest.sent == [SENT]
    assert [asked.command for asked in client.asked[9:]] == [READ, READ, READ, WRITE]


@pytest.mark.parametrize("how", WAYS)
@pytest.mark.parametrize("when", range(5))
def test_a_receive_ring_that_is_taken_away_is_left_at_once(
    guest: Guest, client: Client, when: int, how: str
) -> None:
    """The descriptors are asked for, two parts of a frame, and two statuses.

    Whatever comes after is the driver's own memory again, and the frame is missed.
    """
    ring = guest.rx[0]
    client.meanwhile += [*[lambda: None] * when, taken_away(how, guest, ring)]
    guest.hear(frame_of(3000))
    assert len(client.asked) == when + 1
    assert (ring.read(QueueRegister.HEAD), guest.device.statistics.missed) == (0, 1)
    guest.start(mtu=9000, descriptors=8)
    guest.hear(frame_of(60, 1))
    assert [got.data for got in guest.rx[0].took()] == [frame_of(60, 1)]


def test_a_receive_ring_that_is_set_up_again_has_new_buffers(guest: Guest, client: Client) -> None:
    """Those that were being fetched are another's by now."""
    ring = guest.rx[0]

    def again() -> None:
        ring.configure()
        ring.put((MEMORY + ring.buffer(7)).to_bytes(16, "little"))
        ring.go()

    client.meanwhile.append(again)
    guest.hear(frame_of(60), frame_of(60, 1))
    assert guest.memory[ring.buffer(7) :][:60] == frame_of(60, 1)
    assert not any(guest.memory[ring.buffer(0) : ring.buffer(7)])


@pytest.mark.parametrize("how", WAYS)
@pytest.mark.parametrize("when", range(4))
def test_a_transmit_ring_that_is_taken_away_is_left_at_once(
    guest: Guest, client: Client, when: int, how: str
) -> None:
    """The descriptors are asked for, two parts of a frame, and its status: by then it is sent."""
    ring = guest.tx[0]
    ring.put_frame(SENT[:20], SENT[20:])
    ring.put_frame(SENT)
    client.meanwhile += [*[lambda: None] * when, taken_away(how, guest, ring)]
    ring.go()
    assert len(client.asked) == when + 1
    assert guest.sent == [SENT] * (when == 3)
    assert ring.read(QueueRegister.HEAD) == 0
    guest.start(mtu=9000, descriptors=8)
    guest.tx[0].send(SENT)
    assert guest.sent == [SENT] * (1 + (when == 3))


@pytest.mark.parametrize("when", range(3))
def test_a_tail_that_is_written_meanwhile_is_not_overlooked(
    guest: Guest, client: Client, when: int
) -> None:
    """By the guest's other processor: each frame goes once, in its place, and none waits."""
    ring = guest.tx[0]
    another = frame_of(70, head=PEER + MAC)
    client.meanwhile += [*[lambda: None] * when, lambda: ring.send(another)]
    ring.send(SENT)
    assert guest.sent == [SENT, another]
    assert ring.done() == [0, 1]


@pytest.mark.parametrize("before", [0, 1])
def test_a_message_that_is_refused_leaves_the_ring_as_it_was(
    guest: Guest, client: Client, before: int
) -> None:
    """As QEMU refuses without Bus Master Enable: to read descriptors, or to write a frame.

    That frame is missed, and the next one has its place.
    """
    frames = [frame_of(60, number) for number in range(before)]
    guest.hear(*frames)
    refusal = b"".join(number.to_bytes(4, "little") for number in (16, 0x21, 14))
    client.answers.append(refusal)
    guest.hear(frame_of(60, 7))
    guest.hear(frame_of(60, 8))
    assert guest.device.statistics.missed == 1
    assert [got.data for got in guest.rx[0].took()] == [*frames, frame_of(60, 8)]
