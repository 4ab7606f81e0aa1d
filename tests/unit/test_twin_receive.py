"""Frames from the wire into a driver's ring: buffers, write-back, and what finds no place."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scapy.layers.inet import IP, UDP
from scapy.layers.l2 import Ether
from vf_driver import Guest, guest_with_vf
from vf_rings import MAC, MEMORY, MEMORY_BYTES, PEER, SLOT, frame_of

from harness.twin.dma_log import Kind
from harness.uapi.ixgbe_vf import (
    Message,
    QueueControl,
    QueueRegister,
    Register,
    RxStatus,
)

JUMBO = 9000
TAG = b"\x81\x00\x60\x07"  # priority 3, VLAN 7
WHOLE = RxStatus.DD | RxStatus.EOP


@pytest.fixture
def guest(tmp_path: Path) -> Iterator[Guest]:
    """The port takes the largest frames that there are; the VF is not started yet."""
    with guest_with_vf(tmp_path / "dma.log", port_mtu=9710) as guest:
        yield guest


# --- buffers --------------------------------------------------------------------------------


def test_a_short_frame_is_in_one_buffer_with_nothing_behind_it(guest: Guest) -> None:
    guest.start()
    guest.hear(frame_of(60))
    at = guest.rx[0].buffer(0)
    assert guest.memory[at : at + SLOT] == frame_of(60) + bytes(SLOT - 60)
    (got,) = guest.rx[0].took()
    assert (got.lengths, got.status, got.tag) == ([60], WHOLE, 0)


@pytest.mark.parametrize(
    ("buffer_bytes", "lengths"),
    [
        (1024, [*[1024] * 8, 822]),
        (2048, [*[2048] * 4, 822]),
        (3072, [3072, 3072, 2870]),
    ],
)
def test_a_9014_byte_frame_is_in_several_buffers(
    guest: Guest, buffer_bytes: int, lengths: list[int]
) -> None:
    """IXGBEVF_RXBUFFER_3072 is what the driver takes for jumbo frames; none reaches further."""
    guest.start(mtu=JUMBO, buffer_bytes=buffer_bytes)
    guest.hear(frame_of(9014))
    (got,) = guest.rx[0].took()
    assert (got.data, got.lengths) == (frame_of(9014), lengths)
    for index in range(len(lengths)):
        behind = guest.rx[0].buffer(index) + buffer_bytes
        assert not any(guest.memory[behind : behind + SLOT - buffer_bytes])


def test_only_the_last_descriptor_of_a_frame_has_its_end_and_its_checksums(guest: Guest) -> None:
    """The driver gathers buffers until EOP: set too early, one frame becomes two."""
    guest.start(mtu=JUMBO)
    guest.hear(bytes(Ether(dst=MAC.hex(":")) / IP(dst="192.0.2.1") / UDP() / bytes(6000)))
    words = [int.from_bytes(guest.rx[0].descriptor(at)[8:12], "little") for at in range(4)]
    assert words == [RxStatus.DD, RxStatus.DD, WHOLE | RxStatus.IPCS | RxStatus.L4CS, 0]


@pytest.mark.parametrize(
    ("size", "lengths"), [(2048, [2048]), (2049, [2048, 1]), (4096, 2 * [2048])]
)
def test_a_frame_that_fills_its_buffers_takes_no_other(
    guest: Guest, size: int, lengths: list[int]
) -> None:
    """An empty last buffer would leave EOP for the next frame to find."""
    guest.start(mtu=JUMBO)
    guest.hear(frame_of(size), frame_of(60, 1))
    first, second = guest.rx[0].took()
    assert (first.lengths, second.data) == (lengths, frame_of(60, 1))


@pytest.mark.parametrize(("size", "arrives"), [(9724, True), (9725, False)])
def test_the_largest_frame_has_9728_bytes_with_its_checksum(
    guest: Guest, size: int, arrives: bool
) -> None:
    """IXGBE_MAX_JUMBO_FRAME_SIZE; what is larger is dropped by the port's filter and counted."""
    guest.start(mtu=9710)
    guest.hear(frame_of(size))
    assert [got.data for got in guest.rx[0].took()] == [frame_of(size)] * arrives
    assert guest.device.statistics.filtered == (not arrives)


@pytest.mark.parametrize(("size", "arrives"), [(1518, True), (1519, False)])
def test_a_tagged_frame_may_be_longer_by_its_tag(tmp_path: Path, size: int, arrives: bool) -> None:
    """82599 datasheet, MAXFRS: what is set there does not include the four bytes of the tag.

    Otherwise no full frame of a VLAN reaches a guest with an MTU of 1500.
    """
    with guest_with_vf(tmp_path / "dma.log", port_mtu=1500) as guest:
        guest.start()
        guest.ask(1 << 16 | Message.SET_VLAN, 7)
        guest.hear(MAC + PEER + TAG + bytes(size - 16))
        assert len(guest.rx[0].took()) == arrives


def test_a_buffer_size_of_0_is_the_one_after_a_reset(guest: Guest) -> None:
    """SRRCTL's default is 2 KiB; 0 as it stands would never hold a frame."""
    guest.start(mtu=JUMBO)
    guest.rx[0].write(QueueRegister.SRRCTL, 0)
    guest.hear(frame_of(2100))
    assert guest.rx[0].took()[0].lengths == [2048, 52]


# --- the ring -------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [60, 5000])
def test_a_ring_is_gone_round_again_and_again(guest: Guest, size: int) -> None:
    """Frames of three buffers in eight descriptors: one of them lies over the ring's end."""
    guest.start(mtu=JUMBO, descriptors=8)
    for number in range(50):
        guest.hear(frame_of(size, number))
        (got,) = guest.rx[0].took()
        assert got.data == frame_of(size, number)
        guest.rx[0].give(len(got.lengths))
    assert guest.device.statistics.missed == 0


def test_more_is_in_the_ring_than_is_fetched_at_once(guest: Guest) -> None:
    """96 descriptors, fetched by 64; the frames of one go find all of them, each once."""
    guest.start(mtu=JUMBO, descriptors=96)
    frames = [frame_of(2100 if number % 3 else 60, number) for number in range(57)]
    guest.hear(*frames)
    assert [got.data for got in guest.rx[0].took()] == frames
    assert guest.rx[0].read(QueueRegister.HEAD) == 95


def test_the_head_tells_how_far_the_device_is(guest: Guest) -> None:
    guest.start(mtu=JUMBO, descriptors=8)
    heads = []
    for number in range(3):
        guest.hear(frame_of(5000, number))
        heads.append(guest.rx[0].read(QueueRegister.HEAD))
        guest.rx[0].give(3)
    assert heads == [3, 6, 1]


def test_without_a_descriptor_a_frame_is_dropped_and_counted(guest: Guest) -> None:
    """The descriptor at the tail is the driver's: 7 of 8 can be used.  Then all goes on."""
    guest.start(descriptors=8)
    guest.hear(*(frame_of(60, number) for number in range(9)))
    assert [got.data for got in guest.rx[0].took()] == [frame_of(60, at) for at in range(7)]
    assert guest.device.statistics.missed == 2
    guest.rx[0].give(1)
    guest.hear(frame_of(60, 9), frame_of(60, 10))
    assert [got.data for got in guest.rx[0].took()] == [frame_of(60, 9)]
    assert guest.device.statistics.missed == 3


def test_a_frame_that_finds_too_few_descriptors_is_dropped_whole(guest: Guest) -> None:
    """A part of it would stand before the next frame, which takes the buffers that were left."""
    guest.start(mtu=JUMBO, descriptors=8)
    guest.hear(frame_of(9014), frame_of(9014, 1), frame_of(4000, 2))
    first, second = guest.rx[0].took()
    assert (first.data, second.data) == (frame_of(9014), frame_of(4000, 2))
    assert guest.device.statistics.missed == 1


@pytest.mark.parametrize("register", [QueueRegister.HEAD, QueueRegister.TAIL])
def test_a_place_that_the_ring_does_not_have_stops_it(guest: Guest, register: int) -> None:
    """Else descriptors are read from behind the ring, and whatever is there is written to."""
    guest.start(descriptors=8)
    guest.rx[0].write(register, 9)
    before = guest.memory[:]
    guest.hear(frame_of(60))
    assert (guest.memory[:], guest.records()) == (before, [])
    assert guest.device.statistics.missed == 1


def test_a_buffer_that_is_not_lent_costs_its_frame_alone(guest: Guest) -> None:
    """A fault on the bus is no end of the twin; the driver that gave it starts the ring anew."""
    guest.start()
    ring = guest.rx[0]
    ring.configure()
    ring.put((MEMORY + MEMORY_BYTES).to_bytes(16, "little"))
    ring.go()
    guest.hear(frame_of(60))
    assert (guest.device.statistics.missed, guest.device.memory.faults) == (1, 1)
    ring.configure()
    ring.give(4)
    guest.hear(frame_of(60, 1))
    assert [got.data for got in ring.took()] == [frame_of(60, 1)]


# --- what a descriptor says -----------------------------------------------------------------


def test_a_tag_of_the_ports_own_vlan_is_told_as_any_other(guest: Guest) -> None:
    """The driver leaves out what it did not ask for (ixgbevf_process_skb_fields, active_vlans)."""
    guest.device.port.set_vlan(7)
    guest.start()
    guest.rx[0].configure(QueueControl.ENABLE | QueueControl.VME)
    guest.rx[0].give(4)
    guest.hear(MAC + PEER + TAG + frame_of(60)[12:])
    (got,) = guest.rx[0].took()
    assert (got.data, got.status & RxStatus.VP) == (frame_of(60), RxStatus.VP)


def test_data_come_first_and_then_the_descriptors_from_the_first_to_the_last(guest: Guest) -> None:
    """The driver looks at them in that order: a DD that is too early shows it an old buffer."""
    guest.start(mtu=JUMBO, descriptors=8)
    ring = guest.rx[0]
    guest.hear(frame_of(9014))
    ring.took()
    ring.give(5)
    already = len(guest.records())
    guest.hear(frame_of(9014))
    writes = [(each.kind, each.address) for each in guest.records()[already:] if each.kind > 2]
    assert writes == [
        *((Kind.RX_DATA, MEMORY + ring.buffer(5 + at)) for at in range(5)),
        *((Kind.RX_WRITEBACK, MEMORY + ring.place + 16 * at) for at in (5, 6, 7, 0, 1)),
    ]


def test_the_counters_tell_frames_and_bytes_with_their_checksums(guest: Guest) -> None:
    """VFGORC counts what was on the wire; a frame that was missed is in none of them."""
    guest.start(mtu=JUMBO, descriptors=8)
    guest.hear(frame_of(60), frame_of(60, head=b"\xff" * 6 + PEER), frame_of(9014))
    guest.hear(frame_of(9014))
    counted = [Register.VFGPRC, Register.VFMPRC, Register.VFGORC_LSB, Register.VFGORC_MSB]
    assert [guest.device.read(each) for each in counted] == [3, 1, 60 + 60 + 9014 + 3 * 4, 0]


@given(
    kind=st.sampled_from([b"\x08\0E", b"\x86\xdd", TAG + b"\x08\0E", TAG + b"\x86\xdd", TAG[:2]]),
    rest=st.binary(max_size=80),
)
def test_no_frame_ends_the_twin(
    tmp_path_factory: pytest.TempPathFactory, kind: bytes, rest: bytes
) -> None:
    """Headers cut anywhere, lengths that lie: all arrive as they are, whatever is told of them."""
    with guest_with_vf(tmp_path_factory.getbasetemp() / "dma.log") as guest:
        guest.start()
        guest.ask(1 << 16 | Message.SET_VLAN, 7)
        frame = (MAC + PEER + kind + rest).ljust(14, b"\0")
        guest.hear(frame)
        filtered = guest.device.statistics.filtered
        assert [got.data for got in guest.rx[0].took()] == [frame] * (not filtered)
