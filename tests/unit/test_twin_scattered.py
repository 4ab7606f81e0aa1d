"""One access of the device may lie in several regions of memory that is lent."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

import pytest
from descriptors import memory_file
from vf_driver import Guest, answering, guest_with_vf
from vf_rings import MAC, MEMORY_BYTES, PEER, frame_of
from vfio_client import LENT, Asked, Client, Twin, first_client, mapping, served_twin

from harness.twin.dma_log import DmaLog, Kind
from harness.twin.memory import DmaFault
from harness.twin.regions import PAGE
from harness.uapi.pci_regs import Command as PciCommand
from harness.uapi.pci_regs import Register
from harness.uapi.vfio_user import Command, MapFlag

twin, client = pytest.fixture(served_twin), pytest.fixture(first_client)


@dataclass
class Scattered:
    """The device's pages 10, 11 and 12 are the file's pages 2, 0 and 1."""

    twin: Twin
    client: Client
    file: int
    log: DmaLog

    def page(self, number: int) -> bytes:
        return os.pread(self.file, PAGE, number * PAGE)

    def records(self) -> list[tuple[int, int]]:
        return self.log.written()


@pytest.fixture
def scattered(twin: Twin, client: Client, tmp_path: Path) -> Iterator[Scattered]:
    log = twin.device.memory.log = DmaLog(str(tmp_path / "log"), capacity=100)
    client.write(7, Register.COMMAND, PciCommand.MASTER, 2)
    with memory_file(3 * PAGE) as file, closing(log):
        for page, place in ((12, 1), (10, 2), (11, 0)):
            client.ask(Command.DMA_MAP, mapping(page * PAGE, PAGE, offset=place * PAGE), file)
        yield Scattered(twin, client, file, log)


def test_a_write_may_go_over_several_regions(scattered: Scattered) -> None:
    """A buffer of 9 KiB lies in three pages at least, and is one access all the same."""
    data = bytes(at % 251 for at in range(PAGE + 200))
    scattered.twin.device.memory.write(11 * PAGE - 100, data, Kind.RX_DATA)
    assert scattered.page(2) == bytes(PAGE - 100) + data[:100]
    assert scattered.page(0) == data[100 : 100 + PAGE]
    assert scattered.page(1) == data[100 + PAGE :] + bytes(PAGE - 100)
    assert scattered.records() == [(11 * PAGE - 100, len(data))]


@pytest.mark.parametrize("way", ["read", "peek"])
def test_a_read_may_go_over_several_regions(scattered: Scattered, way: str) -> None:
    """The memory joins the parts of a read over several regions into a copy."""
    memory = scattered.twin.device.memory
    for page in range(3):
        os.pwrite(scattered.file, bytes([page + 1]) * PAGE, page * PAGE)

    def look(address: int, length: int) -> bytes:
        if way == "peek":
            return bytes(memory.peek(address, length))
        return bytes(memory.read(address, length, Kind.TX_DATA))

    assert look(10 * PAGE, 3 * PAGE) == b"\3" * PAGE + b"\1" * PAGE + b"\2" * PAGE
    assert look(11 * PAGE - 1, 2) == b"\3\1"
    assert look(11 * PAGE, PAGE) == b"\1" * PAGE
    assert scattered.log.count == (3 if way == "read" else 0)


@pytest.mark.parametrize(("address", "length"), [(10, 4), (9, 2), (12, 2)])
def test_all_of_an_access_must_be_lent(scattered: Scattered, address: int, length: int) -> None:
    """The device writes nothing where a part is missing, and counts one fault."""
    memory = scattered.twin.device.memory
    with pytest.raises(DmaFault):
        memory.write(address * PAGE, b"x" * length * PAGE, Kind.RX_DATA)
    with pytest.raises(DmaFault):
        memory.read(address * PAGE, length * PAGE, Kind.TX_DATA)
    with pytest.raises(DmaFault):
        memory.peek(address * PAGE, length * PAGE)
    assert (memory.faults, scattered.log.count) == (2, 0)
    assert b"".join(map(scattered.page, range(3))) == bytes(3 * PAGE)


def test_all_of_an_access_must_be_lent_for_it(scattered: Scattered) -> None:
    """A page that is lent for reading is no part of a buffer."""
    memory = scattered.twin.device.memory
    scattered.client.unmap(11 * PAGE, PAGE)
    scattered.client.lend(11 * PAGE, PAGE, MapFlag.READABLE)
    with pytest.raises(DmaFault):
        memory.write(10 * PAGE, bytes(3 * PAGE), Kind.RX_DATA)
    with pytest.raises(DmaFault, match="not lent as shared memory"):
        memory.peek(10 * PAGE, 3 * PAGE)
    assert scattered.log.count == 0


@pytest.fixture
def mixed(tmp_path: Path) -> Iterator[tuple[Guest, Client, bytearray]]:
    """Yield a guest that lends three neighbours, the middle one without a descriptor."""
    with guest_with_vf(tmp_path / "log") as guest, answering(guest) as client:
        with memory_file(2 * PAGE) as file:
            for page, place in ((0, 0), (2, PAGE)):
                guest.device.memory.map(page * PAGE, PAGE, LENT, place, file)
        guest.device.memory.map(PAGE, PAGE, LENT, 0, None)
        guest.set_master(True)
        yield guest, client, client.keep(PAGE, PAGE)


def test_an_access_may_go_over_regions_of_both_kinds(
    mixed: tuple[Guest, Client, bytearray],
) -> None:
    """The client is asked for its part alone."""
    guest, client, kept = mixed
    data = b"a" * 10 + b"b" * PAGE + b"c" * 10
    guest.device.memory.write(PAGE - 10, data, Kind.RX_DATA)
    assert kept == b"b" * PAGE
    assert bytes(guest.device.memory.peek(2 * PAGE, 11)) == b"c" * 10 + b"\0"
    assert guest.device.memory.read(PAGE - 10, len(data), Kind.TX_DATA) == data
    assert client.asked == [
        Asked(Command.DMA_WRITE, PAGE, PAGE), Asked(Command.DMA_READ, PAGE, PAGE)
    ]  # fmt: skip
    assert [(each.address, each.length) for each in guest.records()] == [(PAGE - 10, len(data))] * 2


@pytest.mark.parametrize("again", [False, True], ids=["taken back", "lent for reading"])
def test_the_next_region_may_be_taken_back_while_the_client_is_asked(
    mixed: tuple[Guest, Client, bytearray], again: bool
) -> None:
    """The log has what the device wrote until then, since these pages did change."""
    guest, client, _ = mixed
    memory = guest.device.memory

    def take_back() -> None:
        memory.unmap(2 * PAGE, PAGE)
        if again:
            memory.map(2 * PAGE, PAGE, MapFlag.READABLE, 0, None)

    client.meanwhile.append(take_back)
    with pytest.raises(DmaFault):
        memory.write(PAGE - 10, bytes(PAGE + 20), Kind.RX_DATA)
    assert [(each.address, each.length) for each in guest.records()] == [(PAGE - 10, PAGE + 10)]


def test_all_of_a_tracked_write_goes_by_message(mixed: tuple[Guest, Client, bytearray]) -> None:
    """A page that is written straight is not marked."""
    guest, client, _ = mixed
    guest.device.memory.tracked = True
    client.keep(0, PAGE)
    client.keep(2 * PAGE, PAGE)
    guest.device.memory.write(PAGE - 10, bytes(PAGE + 20), Kind.RX_DATA)
    assert client.asked == [
        Asked(Command.DMA_WRITE, PAGE - 10, 10), Asked(Command.DMA_WRITE, PAGE, PAGE),
        Asked(Command.DMA_WRITE, 2 * PAGE, 10),
    ]  # fmt: skip


def test_a_vf_whose_memory_is_lent_page_by_page(tmp_path: Path) -> None:
    """The VF has rings, frames both ways, and buffers of 10 KiB as DPDK's are."""
    with guest_with_vf(tmp_path / "log", port_mtu=9000, lent_bytes=PAGE) as guest:
        assert guest.device.memory.maps == MEMORY_BYTES // PAGE
        guest.start(mtu=9000, buffer_bytes=10 << 10)
        frame = frame_of(9014)
        guest.hear(frame)
        assert guest.rx[0].took()[0].data == frame
        guest.tx[0].send(frame := frame_of(9014, head=PEER + MAC))
        assert guest.sent == [frame]
        assert len({each.address for each in guest.records() if each.length == 9014}) == 2
