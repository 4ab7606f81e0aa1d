"""What an audit finds in a guest's memory: receive buffers, and the newest frame of a flow."""

from __future__ import annotations

import ctypes
import mmap
import os
import struct
import zlib
from typing import Any, cast

import pytest

from harness.agent import memory_frames
from harness.agent.payload import HEADER_BYTES, MAGIC
from harness.agent.process_memory import CHUNK
from harness.audit.evidence import RingPages, as_given, buffers
from harness.guest.memory import GuestMemory
from harness.host.vf import Ring
from harness.uapi.ixgbe_vf import RX_READ, RX_WRITEBACK, RxStatus


def descriptors(*addresses: int, done: int | None = None, given_again: bool = False) -> bytes:
    """Four of a ring, as the driver wrote them, but one that is *done*: written back.

    If *given_again* they have been so all, and ixgbevf has cleared but their lengths since.
    """
    read = [RX_READ.pack(address, given_again) for address in addresses]
    if done is not None:
        read[done] = RX_WRITEBACK.pack(0, 0xCAFE, RxStatus.DD | RxStatus.EOP, 3072, 0)
    return b"".join(read)


@pytest.mark.parametrize(
    ("head", "tail", "expected"),
    [(1, 3, [0x1000, 0x2000]), (3, 1, [0x3000, 0x0]), (2, 2, [])],
)
def test_the_buffers_of_a_ring_are_those_from_head_to_tail(
    head: int, tail: int, expected: list[int]
) -> None:
    """The others are the driver's: their descriptors hold what was received, and no address."""
    ring = Ring(0x8000, count=4, head=head, tail=tail)
    assert buffers(descriptors(0x0, 0x1000, 0x2000, 0x3000), ring) == expected


def test_a_descriptor_that_was_written_back_holds_no_address() -> None:
    """It was the VF's when its registers were read, and is not any more."""
    ring = Ring(0x8000, count=4, head=1, tail=0)
    read = descriptors(0x0, 0x1000, 0x2000, 0x3000, done=2)
    assert buffers(read, ring) == [0x1000, 0x3000]


def test_a_descriptor_that_was_given_again_holds_one() -> None:
    """The driver goes by the length; a status that it left there says nothing."""
    ring = Ring(0x8000, count=4, head=1, tail=0)
    read = descriptors(0x0, 0x1000, 0x2000, 0x3000, done=3, given_again=True)
    assert buffers(read, ring) == [0x1000, 0x2000]


def test_a_vf_that_walks_through_its_ring_in_vain_is_watched_where_it_did() -> None:
    """QEMU's igb without BME: its head comes to its tail, and no descriptor was written back.

    Those next behind the tail may be the driver's.
    """
    ring = Ring(0x8000, count=4, head=0, tail=0)
    assert as_given([ring]) == [ring, Ring(0x8000, 4, head=1, tail=0)]
    read = descriptors(0x0, 0x1000, 0x2000, 0x3000)
    found = [buffers(read, each) for each in as_given([ring])]
    assert found == [[], [0x1000, 0x2000, 0x3000]]
    large = Ring(0x8000, count=1024, head=900, tail=1020)
    assert as_given([large])[1].head == 1020 + 32 - 1024


def test_an_address_for_headers_is_no_length() -> None:
    """Of igbvf, which gives one beside each buffer: above 4 GiB its high bits stand there."""
    read = RX_READ.pack(0x1000, 0x5_0000_2000) * 4
    assert buffers(read, Ring(0x8000, count=4, head=0, tail=2)) == [0x1000, 0x1000]


class Memory:
    """A guest's, of 16 MiB, with one ring of four in it."""

    def __init__(self, *addresses: int) -> None:
        self._ring = descriptors(*addresses)

    def read(self, address: int, size: int) -> bytes:
        assert (address, size) == (0x8000, len(self._ring))
        return self._ring

    def has(self, page_frame: int) -> bool:
        return page_frame < 0x1000


@pytest.mark.parametrize(
    ("addresses", "numbers", "count"),
    [
        ((0x10000, 0x20800, 0x20000, 0x30000), (0x8, 0x10, 0x20), 3),
        ((0, 0, 0, 0), (0x8,), 0),
        ((1 << 40, 2 << 40, 3 << 40, 4 << 40), (0x8,), 0),
    ],
    ids=["given", "never filled", "not of this memory"],
)
def test_a_buffer_counts_if_it_is_in_memory(
    addresses: tuple[int, ...], numbers: tuple[int, ...], count: int
) -> None:
    """Addresses through an IOMMU of the guest's lead elsewhere: nothing is watched then."""
    memory = cast("GuestMemory", Memory(*addresses))
    pages = RingPages.of(memory, [Ring(0x8000, count=4, head=0, tail=3)])
    assert (pages.numbers, pages.buffers) == (numbers, count)


def header(flow: int, sequence: int) -> bytes:
    covered = struct.pack(">HHIHI", MAGIC, flow, sequence, 0, 0)
    return covered + struct.pack(">I", zlib.crc32(covered))


def test_the_newest_frame_of_a_flow_is_found_wherever_it_lies() -> None:
    """Also across two chunks; not of another flow, and not what only begins like one."""
    with mmap.mmap(-1, 3 * CHUNK, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS) as memory:
        places = {40: header(7, 3), CHUNK - 7: header(7, 9), CHUNK + 999: header(8, 50)}
        places[2 * CHUNK - 1] = header(7, 5)
        places[600] = header(7, 77)[:-1] + b"\xff"  # its checksum is wrong
        for at, text in places.items():
            memory[at : at + HEADER_BYTES] = text
        view = ctypes.c_char.from_buffer(memory)
        where: dict[str, Any] = {"address": ctypes.addressof(view), "size": 3 * CHUNK}
        assert memory_frames.newest(os.getpid(), 7, **where) == {"frames": 3, "newest": 9}
        assert memory_frames.newest(os.getpid(), 9, **where) == {"frames": 0, "newest": None}
        read = memory_frames.read(os.getpid(), where["address"] + 40, HEADER_BYTES)
        assert bytes.fromhex(read) == header(7, 3)
        del view
