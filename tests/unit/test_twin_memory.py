"""Guest memory as the device gets at it: straight or by message, gated, logged and marked."""

from __future__ import annotations

import os
import socket
from collections.abc import Callable
from unittest.mock import patch

import pytest
from descriptors import memory_file, open_descriptors
from lent_memory import BY_MESSAGE, PAGE, SHARED, Guest, refused
from lent_memory import guest as guest
from vfio_client import LENT, Asked

from harness.twin.channel import ClientGone, Message
from harness.twin.dma_log import MISBEHAVED, Kind
from harness.twin.memory import DmaFault
from harness.uapi.vfio_user import MAX_TRANSFER, Command, MapFlag

# --- two ways to it -------------------------------------------------------------------------


def test_memory_with_a_descriptor_is_written_and_read_straight(guest: Guest) -> None:
    """The client is not asked: a hundred thousand frames a second could not all be messages."""
    guest.memory.write(SHARED + PAGE - 2, b"data", Kind.RX_DATA)
    guest.shared[0:3] = b"abc"
    assert guest.shared[PAGE - 2 : PAGE + 2] == b"data"
    assert bytes(guest.memory.read(SHARED, 3, Kind.TX_DATA)) == b"abc"
    assert guest.client.asked == []


def test_memory_without_a_descriptor_is_written_and_read_by_message(guest: Guest) -> None:
    """Addresses are the guest's: an offset into the region would be written elsewhere."""
    guest.memory.write(BY_MESSAGE + 8, b"data", Kind.RX_DATA)
    guest.kept[0:3] = b"abc"
    assert guest.kept[8:12] == b"data"
    assert guest.memory.read(BY_MESSAGE, 3, Kind.TX_DATA) == b"abc"
    written, read = guest.client.asked
    assert written == Asked(Command.DMA_WRITE, BY_MESSAGE + 8, 4)
    assert read == Asked(Command.DMA_READ, BY_MESSAGE, 3)


def test_what_is_more_than_was_agreed_on_goes_in_parts(guest: Guest) -> None:
    """Both ways; the last part is what is left."""
    guest.memory.largest_transfer = 16
    guest.memory.write(BY_MESSAGE, bytes(range(40)), Kind.RX_DATA)
    assert guest.memory.read(BY_MESSAGE, 40, Kind.TX_DATA) == bytes(range(40))
    assert [asked.length for asked in guest.client.asked] == [16, 16, 8] * 2


def test_tracked_writes_go_by_message_and_reads_do_not(guest: Guest) -> None:
    """It is the client's write that marks the page; a read dirties nothing."""
    guest.memory.tracked = True
    guest.memory.write(SHARED + 8, b"data", Kind.RX_DATA)
    guest.memory.read(SHARED, 4, Kind.TX_DATA)
    assert guest.client.asked == [Asked(Command.DMA_WRITE, SHARED + 8, 4)]
    assert guest.marked[8:12] == b"data"


def test_a_write_that_is_too_long_for_a_message_goes_in_parts(guest: Guest) -> None:
    """The client refuses more than was agreed on; the parts must not overlap or leave gaps."""
    big = 1 << 32
    guest.memory.map(big, MAX_TRANSFER + PAGE, LENT, 0, None)
    kept = guest.client.keep(big, MAX_TRANSFER + PAGE)
    data = os.urandom(MAX_TRANSFER + 10)
    guest.memory.write(big, data, Kind.RX_DATA)
    assert kept == data + bytes(PAGE - 10)
    assert [asked.length for asked in guest.client.asked] == [MAX_TRANSFER, 10]


@pytest.mark.parametrize(
    ("address", "length"),
    [(SHARED - 1, 2), (SHARED + 4 * PAGE - 1, 2), (SHARED + 4 * PAGE, 1), (0, 1),
     (BY_MESSAGE - 1, 1), (BY_MESSAGE + 4 * PAGE - 1, 2), ((1 << 64) - 1, 2)],
)  # fmt: skip
def test_an_access_must_lie_within_what_is_lent(guest: Guest, address: int, length: int) -> None:
    """A byte further is another's memory, or a Python exception; it is counted, and not logged."""
    with pytest.raises(DmaFault):
        guest.memory.read(address, length, Kind.TX_DATA)
    with pytest.raises(DmaFault):
        guest.memory.write(address, bytes(length), Kind.RX_DATA)
    assert guest.memory.faults == 2
    assert (guest.records(), guest.client.asked) == ([], [])


@pytest.mark.parametrize("flag", MapFlag)
def test_memory_is_used_for_what_it_is_lent_for(guest: Guest, flag: MapFlag) -> None:
    """A guest's ROM is lent for reading alone, and a write would be a signal that ends the twin."""
    with memory_file(PAGE) as file:
        guest.memory.map(0, PAGE, flag, 0, file)
    done: set[MapFlag] = set()
    tries: dict[MapFlag, Callable[[], object]] = {
        MapFlag.READABLE: lambda: guest.memory.read(0, 1, Kind.TX_DATA),
        MapFlag.WRITABLE: lambda: guest.memory.write(0, b"a", Kind.RX_DATA),
    }
    for kind, attempt in tries.items():
        try:
            attempt()
            done.add(kind)
        except DmaFault:
            pass
    assert done == {flag}


def test_an_access_in_progress_keeps_what_is_taken_back_no_longer_than_it_lasts(
    guest: Guest,
) -> None:
    """A frame is put together from views while the client, asked for a part, takes all back."""
    guest.shared[0:5] = b"frame"
    before = open_descriptors()
    view = guest.memory.read(SHARED, 5, Kind.TX_DATA)
    guest.memory.unmap(SHARED, 4 * PAGE)
    assert bytes(view) == b"frame"
    del view
    assert len(before - open_descriptors()) == 1
    with pytest.raises(DmaFault):
        guest.memory.read(SHARED, 5, Kind.TX_DATA)


def test_what_the_client_takes_back_while_it_is_asked_is_a_fault(guest: Guest) -> None:
    """The rest of the access finds nothing there."""
    behind, channel = BY_MESSAGE + 4 * PAGE, guest.memory.channel
    assert channel
    guest.memory.map(behind, PAGE, LENT, 0, None)
    request = channel.request

    def answer(command: Command, *payload: bytes) -> Message:
        reply = request(command, *payload)
        guest.memory.unmap(behind, PAGE)
        return reply

    with patch.object(channel, "request", answer), pytest.raises(DmaFault, match="took back"):
        guest.memory.write(behind - 2, b"four", Kind.RX_DATA)
    assert guest.memory.faults == 1
    assert guest.records() == [(behind - 2, 2, Kind.RX_DATA, 0)]


def test_without_a_client_there_is_no_memory(guest: Guest) -> None:
    """Between two clients frames come in, with a ring where the last one had it."""
    guest.memory.unmap_all()
    guest.memory.channel = None
    with pytest.raises(DmaFault):
        guest.memory.read(SHARED, 4, Kind.RX_DESCRIPTOR)
    with pytest.raises(DmaFault, match="there is no client"):
        guest.memory.write_by_message(SHARED, b"a")


def test_a_client_that_is_gone_is_a_fault_like_any_other(guest: Guest) -> None:
    """A frame from the wire may meet it first; whoever serves the channel has to hear of it too."""
    channel = guest.memory.channel
    assert channel is not None
    guest.client.socket.shutdown(socket.SHUT_RDWR)
    with pytest.raises(DmaFault, match="the client closed the connection"):
        guest.memory.write(BY_MESSAGE, b"data", Kind.RX_DATA)
    with pytest.raises(ClientGone, match="the client closed the connection"):
        channel.serve()


# --- the gate -------------------------------------------------------------------------------


@pytest.mark.parametrize("place", [SHARED, BY_MESSAGE])
def test_without_bus_master_enable_nothing_is_read_or_written(guest: Guest, place: int) -> None:
    """The one thing that everything else relies on: neither memory, nor messages, nor the log."""
    guest.set_master(False)
    guest.memory.tracked = place == SHARED
    with pytest.raises(DmaFault, match="Bus Master Enable is clear"):
        guest.memory.read(place, 4, Kind.TX_DATA)
    with pytest.raises(DmaFault, match="Bus Master Enable is clear"):
        guest.memory.write(place, b"data", Kind.RX_DATA)
    assert (guest.shared[:], bytes(guest.kept)) == (bytes(4 * PAGE), bytes(4 * PAGE))
    assert (guest.records(), guest.client.asked, guest.memory.faults) == ([], [], 0)


def test_a_device_that_ignores_the_gate_is_told_by_its_log(guest: Guest) -> None:
    """The log is the truth about a fault that was put in: such a write is no ordinary one."""
    guest.memory.write(SHARED, b"right", Kind.RX_DATA, queue=1)
    guest.set_master(False)
    guest.misbehaviour.ignores_bme = True
    guest.memory.write(SHARED, b"wrong", Kind.RX_DATA, queue=1)
    assert guest.shared[:5] == b"wrong"
    assert guest.records() == [
        (SHARED, 5, Kind.RX_DATA, 1),
        (SHARED, 5, Kind.RX_DATA | MISBEHAVED, 1),
    ]


def test_we_look_at_memory_without_being_the_device(guest: Guest) -> None:
    """Marking reads what was written after BME was cleared; that is no DMA."""
    guest.shared[0:3] = b"abc"
    guest.set_master(False)
    assert bytes(guest.memory.peek(SHARED, 3)) == b"abc"
    assert guest.records() == []
    with pytest.raises(DmaFault, match="not lent as shared memory"):
        guest.memory.peek(BY_MESSAGE, 3)


def test_a_write_that_was_refused_is_not_in_the_log(guest: Guest) -> None:
    """It was not made: a page would be said to differ that the device never touched."""
    guest.client.answers.append(refused())
    with pytest.raises(DmaFault, match="Bad address"):
        guest.memory.write(BY_MESSAGE, b"data", Kind.RX_DATA)
    assert (guest.records(), guest.memory.faults) == ([], 1)
