"""Guest memory as the device gets at it: straight or by message, gated, logged and marked."""

from __future__ import annotations

import mmap
import os
import socket
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import pytest
from descriptors import memory_file, open_descriptors
from vfio_client import LENT, Asked, Client

from harness.twin.channel import Channel, ClientGone, Message
from harness.twin.config_space import ConfigSpace
from harness.twin.dma_log import HEAD, MISBEHAVED, RECORD, DmaLog, Kind
from harness.twin.marking import mark
from harness.twin.memory import DmaFault, GuestMemory
from harness.twin.misbehaviour import Misbehaviour
from harness.uapi.pci_regs import Register
from harness.uapi.vfio_user import MAX_TRANSFER, Command, MapFlag

PAGE = 4096
SHARED, BY_MESSAGE = 4 * PAGE, 64 * PAGE
"""Where four pages are lent with a descriptor, and where without."""


@dataclass
class Guest:
    """The device's memory, the client that lends it, and what the client sees of it."""

    memory: GuestMemory
    misbehaviour: Misbehaviour
    config: ConfigSpace
    client: Client
    shared: mmap.mmap
    kept: bytearray
    marked: bytearray
    log: Path

    def records(self) -> list[tuple[int, int, int, int]]:
        """The log's file: address, length, kind and queue of each access."""
        content = self.log.read_bytes()
        assert self.memory.log is not None
        end = HEAD.size + self.memory.log.count * RECORD.size
        return [tuple(record[1:]) for record in RECORD.iter_unpack(content[HEAD.size : end])]

    def set_master(self, on: bool) -> None:
        self.config.write(Register.COMMAND, b"\4\0" if on else b"\0\0")


@pytest.fixture
def guest(tmp_path: Path) -> Iterator[Guest]:
    """Bus Master Enable is set; the client answers in a thread."""
    near, far = socket.socketpair()
    client, channel = Client(near), Channel(far, _no_command)
    config = ConfigSpace()
    misbehaviour = Misbehaviour(config)
    memory = GuestMemory(misbehaviour, DmaLog(str(path := tmp_path / "dma.log"), capacity=100))
    memory.channel = channel
    with ThreadPoolExecutor(1) as pool, memory_file(4 * PAGE) as file:
        memory.map(SHARED, 4 * PAGE, LENT, 0, file)
        memory.map(BY_MESSAGE, 4 * PAGE, LENT, 0, None)
        answering = pool.submit(client.answer_dma)
        with mmap.mmap(file, 4 * PAGE) as shared:
            kept, marked = client.keep(BY_MESSAGE, 4 * PAGE), client.keep(SHARED, 4 * PAGE)
            guest = Guest(memory, misbehaviour, config, client, shared, kept, marked, path)
            guest.set_master(True)
            yield guest
        memory.unmap_all()
        channel.close()
        answering.result(5)
    client.hang_up()


def _no_command(_channel: Channel, message: Message) -> None:
    raise AssertionError(f"{message} is none of the client's to send here")


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


# --- the log --------------------------------------------------------------------------------


def test_the_log_is_a_file_of_records(tmp_path: Path) -> None:
    """Read here as bytes at their offsets, as whoever analyses it does."""
    log = DmaLog(str(tmp_path / "log"), capacity=3)
    before_ns = time.monotonic_ns()
    log.add(0x1122334455667788, 0x99AABBCC, Kind.RX_WRITEBACK, 1)
    log.add(PAGE, 1, Kind.TX_DESCRIPTOR, 0)
    log.settle()
    content = (tmp_path / "log").read_bytes()
    assert len(content) == 24 + 3 * 24
    assert content[:24] == bytes([2, *bytes(7), 0, *bytes(7), 3, *bytes(7)])
    times = [int.from_bytes(content[at : at + 8], "little") for at in (24, 48)]
    assert before_ns <= times[0] <= times[1] <= time.monotonic_ns()
    assert content[32:48] == bytes.fromhex("8877665544332211 ccbbaa99 0900 0100")
    assert content[56:72] == bytes.fromhex("0010000000000000 01000000 0000 0000")
    assert content[72:] == bytes(24)


def test_a_full_log_counts_what_it_has_no_room_for(tmp_path: Path) -> None:
    """What is lost without a word would be taken for what was never done."""
    log = DmaLog(str(tmp_path / "log"), capacity=2)
    for address in range(5):
        log.add(address, 1, Kind.RX_DATA, 0)
    assert HEAD.unpack_from((tmp_path / "log").read_bytes()) == (2, 3, 2)
    assert log.written() == [(0, 1), (1, 1)]


def test_a_new_log_begins_anew(tmp_path: Path) -> None:
    """A twin that is started again must not show what the one before it did."""
    DmaLog(str(tmp_path / "log"), capacity=2).add(1, 1, Kind.RX_DATA, 0)
    DmaLog(str(tmp_path / "log"), capacity=1)
    assert (tmp_path / "log").read_bytes() == HEAD.pack(0, 0, 1) + bytes(RECORD.size)


@pytest.mark.parametrize("kind", Kind)
def test_writes_are_told_from_reads(tmp_path: Path, kind: Kind) -> None:
    """By a threshold: a new kind with the wrong number is never marked, or always."""
    log = DmaLog(str(tmp_path / "log"), capacity=3)
    for each in (Kind.RX_DATA, kind, kind):
        log.add(each, 8, each, 0)
    writes = kind not in {Kind.TX_DESCRIPTOR, Kind.TX_DATA, Kind.RX_DESCRIPTOR}
    assert log.written(since=2) == ([(kind, 8)] if writes else [])


# --- marking --------------------------------------------------------------------------------


def test_each_page_is_marked_by_the_last_byte_that_was_written_there(guest: Guest) -> None:
    """Two writes to one page, the later one in front; one write over three pages; and a read.

    The byte must be the device's own: another might be the guest's, and be put back by that.
    """
    write = guest.memory.write
    write(SHARED + 100, b"early", Kind.RX_DATA)
    write(SHARED + 50, b"later", Kind.RX_DATA)
    write(SHARED + 2 * PAGE - 1, b"a" + b"b" * PAGE + b"c", Kind.RX_DATA)
    guest.memory.read(SHARED + 3 * PAGE, 8, Kind.TX_DATA)
    assert mark(guest.memory, since=0) == 4
    places = [SHARED + 54, SHARED + 2 * PAGE - 1, SHARED + 3 * PAGE - 1, SHARED + 3 * PAGE]
    assert guest.client.asked == [Asked(Command.DMA_WRITE, place, 1) for place in places]
    marked = [guest.marked[place - SHARED] for place in places]
    assert bytes(marked) == b"rabc"


def test_what_was_marked_before_is_not_marked_again(guest: Guest) -> None:
    """The driver's last pass is within the guest's silence: it has to be short."""
    guest.memory.write(SHARED, b"first", Kind.RX_DATA)
    guest.memory.write(SHARED + PAGE, b"second", Kind.RX_DATA)
    assert mark(guest.memory, since=1) == 1
    assert guest.client.asked == [Asked(Command.DMA_WRITE, SHARED + PAGE + 5, 1)]
    assert mark(guest.memory, since=2) == 0


def test_marking_is_not_the_devices_dma(guest: Guest) -> None:
    """With the gate shut it asks all the same, and QEMU decides; nor does it log, and mark that."""
    guest.memory.write(SHARED, b"data", Kind.RX_DATA)
    guest.set_master(False)
    assert mark(guest.memory, since=0) == 1
    assert len(guest.records()) == 1
    guest.client.answers.append(_refused())
    with pytest.raises(DmaFault, match="the client refused: Bad address"):
        mark(guest.memory, since=0)


def test_a_write_that_was_refused_is_not_in_the_log(guest: Guest) -> None:
    """It was not made: a page would be said to differ that the device never touched."""
    guest.client.answers.append(_refused())
    with pytest.raises(DmaFault, match="Bad address"):
        guest.memory.write(BY_MESSAGE, b"data", Kind.RX_DATA)
    assert guest.records() == []


def test_nothing_is_marked_where_the_log_does_not_tell_all(guest: Guest) -> None:
    """Some pages marked look like all of them: what is lost would be blamed on the order."""
    for number in range(101):
        guest.memory.write(SHARED + number, b"x", Kind.RX_DATA)
    with pytest.raises(ValueError, match="the DMA log is full"):
        mark(guest.memory, since=0)
    guest.memory.log = None
    with pytest.raises(ValueError, match="there is no DMA log"):
        mark(guest.memory, since=0)


def _refused() -> bytes:
    """What QEMU answers for a device without Bus Master Enable: size, flags, EFAULT."""
    return b"".join(number.to_bytes(4, "little") for number in (16, 0x21, 14))
