"""The DMA log held against what really happened in memory, and pages marked by it."""

from __future__ import annotations

import time
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from vf_driver import Guest, answering, guest_with_vf
from vf_rings import MAC, MEMORY, MEMORY_BYTES, PEER, TX_DATA, frame_of
from vfio_client import Asked

from harness.twin.dma_log import HEAD, Kind
from harness.twin.marking import mark
from harness.uapi.vfio_user import Command

PAGE = 4096
OUT = frame_of(60, head=PEER + MAC)


@pytest.fixture
def guest(tmp_path: Path) -> Iterator[Guest]:
    with guest_with_vf(tmp_path / "dma.log", port_mtu=9710) as guest:
        guest.start(mtu=9000, queues=2)
        yield guest


Entry = tuple[int, int, int, int]


def entries(guest: Guest, since: int = 0) -> list[Entry]:
    """What the log has, but for the times: kind, queue, address in the lent memory, length."""
    return [
        (each.kind, each.queue, each.address - MEMORY, each.length)
        for each in guest.records()[since:]
    ]


def pages(places: list[tuple[int, int]]) -> set[int]:
    """The pages of (address, length) each."""
    return {page for at, size in places for page in range(at // PAGE, (at + size - 1) // PAGE + 1)}


# --- one entry for each access --------------------------------------------------------------


def test_a_frame_that_came_is_its_descriptors_its_data_and_their_statuses(guest: Guest) -> None:
    """Descriptors are fetched as far as there are any, once; the second frame needs none."""
    ring = guest.rx[0]
    guest.hear(frame_of(9014), frame_of(60, 1))
    assert entries(guest) == [
        (Kind.RX_DESCRIPTOR, 0, ring.place, 15 * 16),
        *((Kind.RX_DATA, 0, ring.buffer(at), 2048) for at in range(4)),
        (Kind.RX_DATA, 0, ring.buffer(4), 822),
        *((Kind.RX_WRITEBACK, 0, ring.place + 16 * at, 16) for at in range(5)),
        (Kind.RX_DATA, 0, ring.buffer(5), 60),
        (Kind.RX_WRITEBACK, 0, ring.place + 16 * 5, 16),
    ]


def test_a_frame_that_went_is_its_descriptors_its_data_and_its_status(guest: Guest) -> None:
    """A ring that is read over its end is two accesses; four bytes tell that it is done."""
    ring = guest.tx[0]
    for _ in range(14):
        ring.put_frame(OUT, command=0)
    ring.go()
    already = len(guest.records())
    ring.send(OUT[:20], OUT[20:50], OUT[50:])
    begin = TX_DATA + 14 * 60
    assert entries(guest, already) == [
        (Kind.TX_DESCRIPTOR, 0, ring.place + 14 * 16, 2 * 16),
        (Kind.TX_DESCRIPTOR, 0, ring.place, 16),
        (Kind.TX_DATA, 0, begin, 20),
        (Kind.TX_DATA, 0, begin + 20, 30),
        (Kind.TX_DATA, 0, begin + 50, 10),
        (Kind.TX_WRITEBACK, 0, ring.place + 12, 4),
    ]


def test_an_entry_tells_the_queue(guest: Guest) -> None:
    guest.tx[1].send(OUT)
    guest.tx[0].send(OUT)
    assert [queue for _, queue, _, _ in entries(guest)] == [1, 1, 1, 0, 0, 0]


def test_entries_are_in_the_order_of_their_times(guest: Guest) -> None:
    """The clock is that of the host's other records, and each access has its own moment."""
    moments = [time.monotonic_ns()]
    for number in range(3):
        guest.hear(frame_of(9014, number))
        moments.append(time.monotonic_ns())
    times = [each.time_ns for each in guest.records()]
    assert times == sorted(times)
    found = [sum(begin <= at < end for at in times) for begin, end in pairwise(moments)]
    assert found == [11, 10, 10]


@settings(max_examples=40)
@given(st.lists(st.tuples(st.integers(14, 9014), st.booleans()), max_size=8))
def test_no_byte_changes_but_by_a_write_that_is_in_the_log(
    tmp_path_factory: pytest.TempPathFactory, frames: list[tuple[int, bool]]
) -> None:
    """Ground truth, for whoever counts lost pages by it: all that was written, and nothing else.

    There was no byte but 0 before, and there is none in a frame.
    """
    log = tmp_path_factory.getbasetemp() / "dma.log"
    with guest_with_vf(log, port_mtu=9710) as guest:
        guest.start(mtu=9000, descriptors=8)
        for size, comes in frames:
            before, already = guest.memory[:], len(guest.records())
            if comes:
                guest.hear(frame_of(size, head=b"\xff" * 12))
            else:
                guest.tx[0].put_frame(OUT)
                before = guest.memory[:]
                guest.tx[0].go()
            expected = bytearray(before)
            for each in guest.records()[already:]:
                if each.kind >= Kind.RX_DATA:
                    place = slice(each.address - MEMORY, each.address - MEMORY + each.length)
                    assert each.kind != Kind.RX_DATA or 0 not in guest.memory[place]
                    expected[place] = guest.memory[place]
            assert expected == guest.memory[:]


# --- the file -------------------------------------------------------------------------------


def test_the_number_of_entries_is_written_once_a_turn(guest: Guest, tmp_path: Path) -> None:
    """The entries are there before: whoever reads the file meanwhile sees whole batches."""
    log = tmp_path / "dma.log"
    guest.turn()
    guest.device.receive(memoryview(frame_of(60)))
    assert HEAD.unpack_from(log.read_bytes())[0] == 0
    guest.turn()
    assert HEAD.unpack_from(log.read_bytes())[0] == 3


def test_a_full_log_keeps_what_it_has_and_counts_the_rest(tmp_path: Path) -> None:
    """The device goes on: a log that is too small must not change what it is a log of."""
    log = tmp_path / "small.log"
    with guest_with_vf(log, capacity=4) as guest:
        guest.start()
        for number in range(3):
            guest.hear(frame_of(60, number))
        assert len(guest.rx[0].took()) == 3
        assert [kind for kind, *_ in entries(guest)] == [
            Kind.RX_DESCRIPTOR, Kind.RX_DATA, Kind.RX_WRITEBACK, Kind.RX_DATA,
        ]  # fmt: skip
        assert HEAD.unpack_from(log.read_bytes()) == (4, 3, 4, 0)
        dma_log = guest.device.memory.log
        assert dma_log is not None
        first = MEMORY + guest.rx[0].buffer(0)
        assert dma_log.written()[0] == (first, 60)
        assert dma_log.written(since=4) == []


def test_what_was_written_since_is_what_came_since(guest: Guest) -> None:
    """Reads are none of it, nor is what went; a migration asks again and again."""
    log = guest.device.memory.log
    assert log is not None
    guest.hear(frame_of(3000))
    since = log.count
    guest.tx[0].send(OUT, command=0)
    assert log.written(since) == []
    guest.hear(frame_of(100, 1))
    ring = guest.rx[0]
    status = MEMORY + ring.place + 2 * 16
    assert log.written(since) == [(MEMORY + ring.buffer(2), 100), (status, 16)]


# --- marking --------------------------------------------------------------------------------


def test_marking_dirties_the_pages_that_were_written_and_no_others(guest: Guest) -> None:
    """By message, a byte each, and none of it changes; one buffer is filled to its page's end.

    The client's copy is empty at first: what it has then is what was sent to it.
    """
    guest.start(mtu=9000, buffer_bytes=4096)
    with answering(guest) as client:
        copy = client.keep(MEMORY, MEMORY_BYTES)
        guest.hear(frame_of(60), frame_of(8192, 1))
        guest.tx[0].send(OUT)
        before = guest.memory[:]
        written = pages([entry[2:] for entry in entries(guest) if entry[0] >= Kind.RX_DATA])
        assert mark(guest.device.memory, since=0) == len(client.asked) == len(written) == 5
        assert guest.memory[:] == before
        places = [asked.address - MEMORY for asked in client.asked]
        assert client.asked == [Asked(Command.DMA_WRITE, MEMORY + at, 1) for at in places]
        assert {at // PAGE for at in places} == written
        assert all(copy[at] == before[at] for at in places)
        assert sum(map(bool, copy)) == len([at for at in places if before[at]])


def test_marking_again_takes_only_what_came_since(guest: Guest) -> None:
    """The ring's page is among them again: each frame writes there."""
    log = guest.device.memory.log
    assert log is not None
    with answering(guest) as client:
        client.keep(MEMORY, MEMORY_BYTES)
        guest.hear(frame_of(9014))
        since = log.count
        mark(guest.device.memory, since=0)
        client.asked.clear()
        guest.hear(frame_of(60))
        assert mark(guest.device.memory, since) == 2
        ring = guest.rx[0]
        assert {asked.address - MEMORY for asked in client.asked} == {
            ring.buffer(5) + 59, ring.place + 5 * 16 + 15,
        }  # fmt: skip
        assert mark(guest.device.memory, log.count) == 0
