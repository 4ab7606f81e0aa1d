"""DMA of a twin: gated by Bus Master Enable, logged, straight or by message, and marked."""

from __future__ import annotations

import errno
import os
import select
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pandas as pd
import pytest
from twin_client import MEMORY_BYTES, Client, client, device, memory

from harness.analysis.memory import read_log
from harness.twin.device import Device
from harness.twin.dma_log import DmaLog, Kind
from harness.twin.marking import mark
from harness.twin.memory import DmaFault
from harness.uapi import vfio_user
from harness.uapi.vfio_user import Command, Flag

BME = (0x0406).to_bytes(2, "little")
ACCESS = vfio_user.REGION_ACCESS.pack


@pytest.fixture
def vf(tmp_path: Path) -> Iterator[Device]:
    with device(tmp_path) as made:
        yield made


@pytest.fixture
def ram() -> Iterator[int]:
    with memory() as descriptor:
        yield descriptor


@contextmanager
def answering(connected: Client, answer: Callable[[int, int, bytes], None]) -> Iterator[None]:
    """Let the client's other thread receive the server's next requests, as QEMU's does."""
    done = threading.Event()

    def serve() -> None:
        while not done.is_set():
            if select.select([connected.socket], [], [], 0.05)[0]:
                number, command, _, _, payload, _ = connected.receive()
                answer(number, command, payload)

    thread = threading.Thread(target=serve)
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join()


def replied(connected: Client, number: int, command: int, payload: bytes, error: int = 0) -> None:
    flags = Flag.REPLY | (Flag.ERROR if error else 0)
    head = vfio_user.HEADER.pack(number, command, 16 + len(payload), flags, error)
    connected.socket.send(head + payload)


def test_memory_without_a_descriptor_is_reached_by_message(vf: Device) -> None:
    """A client that does not share its memory is served all the same, only slower."""
    written: list[tuple[int, bytes]] = []
    with client(vf) as connected:

        def answer(number: int, command: int, payload: bytes) -> None:
            address, count = vfio_user.DMA_ACCESS.unpack_from(payload)
            if command == Command.DMA_WRITE:
                written.append((address, payload[16:]))
                replied(connected, number, command, payload[:16])
            else:
                replied(connected, number, command, payload[:16] + b"r" * count)

        connected.map(0x4000, 0x1000, None)
        vf.config.write(4, BME)
        with answering(connected, answer):
            vf.memory.write(0x4010, b"by message", 8)
            assert bytes(vf.memory.read(0x4020, 3, 0)) == b"rrr"
    assert written == [(0x4010, b"by message")]


def test_tracked_writes_go_by_message_though_the_memory_is_mapped(vf: Device, ram: int) -> None:
    """Only those that the client makes itself are in its dirty bitmap."""
    written: list[bytes] = []
    with client(vf) as connected:

        def answer(number: int, command: int, payload: bytes) -> None:
            written.append(payload[16:])
            replied(connected, number, command, payload[:16])

        connected.map(0, MEMORY_BYTES, ram)
        vf.config.write(4, BME)
        vf.memory.tracked = True
        with answering(connected, answer):
            vf.memory.write(0x10, b"tracked", 8)
    assert (written, os.pread(ram, 7, 0x10)) == ([b"tracked"], bytes(7))


def test_the_clients_commands_are_served_while_it_is_asked(vf: Device) -> None:
    """Its thread that would answer us may be waiting for one of them: else both wait for good."""
    commands: list[int] = []
    pending: list[tuple[int, bytes]] = []
    with client(vf) as connected:

        def first_a_command_of_its_own(number: int, command: int, payload: bytes) -> None:
            commands.append(command)
            if command == Command.DMA_WRITE:
                pending.append((number, payload[:16]))
                connected.send(Command.REGION_READ, ACCESS(0, 7, 2))
            else:
                replied(connected, pending[0][0], Command.DMA_WRITE, pending[0][1])

        connected.map(0x4000, 0x1000, None)
        vf.config.write(4, BME)
        with answering(connected, first_a_command_of_its_own):
            vf.memory.write(0x4000, b"x", 8)
    assert commands == [Command.DMA_WRITE, Command.REGION_READ]


def test_a_client_that_refuses_a_write_is_told_from_one_that_took_it(vf: Device) -> None:
    """QEMU refuses what a device without Bus Master Enable writes: nothing may pass for marked."""
    with client(vf) as connected:

        def refuse(number: int, command: int, _: bytes) -> None:
            replied(connected, number, command, b"", errno.ENODEV)

        with answering(connected, refuse), pytest.raises(DmaFault, match="No such device"):
            vf.memory.write_by_message(0x4000, b"x")


def test_without_bus_master_enable_nothing_is_read_or_written(vf: Device, ram: int) -> None:
    """The register means that and nothing else; the one way out is a fault put in by intent."""
    vf.memory.map(0, MEMORY_BYTES, 3, 0, ram)
    for access in (lambda: vf.memory.read(0, 4, 0), lambda: vf.memory.write(0, b"x", 8)):
        with pytest.raises(DmaFault, match="Bus Master Enable is clear"):
            access()
    assert vf.memory.log is not None
    assert (vf.memory.log.count, os.pread(ram, 1, 0)) == (0, b"\0")
    vf.misbehaviour.ignores_bme = True
    vf.memory.write(0, b"x", Kind.RX_DATA)
    assert os.pread(ram, 1, 0) == b"x"
    assert logged(vf, "kind") == [Kind.MISBEHAVED], "what it had no right to is told apart"


@pytest.mark.parametrize(("address", "length"), [(MEMORY_BYTES, 1), (MEMORY_BYTES - 1, 2)])
def test_what_is_not_lent_is_not_reached(vf: Device, ram: int, address: int, length: int) -> None:
    """A ring that a driver set up wrong must not write over somebody else's memory."""
    vf.memory.map(0, MEMORY_BYTES, 3, 0, ram)
    vf.config.write(4, BME)
    with pytest.raises(DmaFault, match="not lent"):
        vf.memory.write(address, bytes(length), Kind.RX_DATA)
    assert (logged(vf, "kind"), vf.memory.faults) == ([], 1)


def test_the_log_has_each_access_in_order_with_its_time(vf: Device, ram: int) -> None:
    """It is read by another program, from the file: both must mean the same layout."""
    vf.memory.map(0, MEMORY_BYTES, 3, 0, ram)
    vf.config.write(4, BME)
    vf.memory.read(0x1000, 16, Kind.TX_DESCRIPTOR, 1)
    vf.memory.write(0x2000, b"frame", Kind.RX_DATA, 0)
    log = frame_of(vf)
    assert log[["address", "length", "kind", "queue"]].to_numpy().tolist() == [
        [0x1000, 16, Kind.TX_DESCRIPTOR, 1], [0x2000, 5, Kind.RX_DATA, 0],
    ]  # fmt: skip
    assert log["writes"].tolist() == [False, True]
    assert log["t_ns"].is_monotonic_increasing


def test_a_full_log_says_how_much_it_lacks(tmp_path: Path) -> None:
    """A ground truth with a hole in it must not pass for a whole one."""
    log = DmaLog(str(tmp_path / "small.log"), capacity=2)
    for address in range(5):
        log.add(address, 1, Kind.RX_DATA, 0)
    log.close()
    read = read_log((tmp_path / "small.log").read_bytes())
    assert (len(read), read.attrs["dropped"]) == (2, 3)


def test_marking_writes_one_byte_of_each_page_with_the_value_that_it_has(
    vf: Device, ram: int
) -> None:
    """A mark that changed a byte would be a loss of its own; one page left out is lost too."""
    marks: list[tuple[int, bytes]] = []

    with client(vf) as connected:

        def take(number: int, command: int, payload: bytes) -> None:
            address, _ = vfio_user.DMA_ACCESS.unpack_from(payload)
            marks.append((address, payload[16:]))
            replied(connected, number, command, payload[:16])

        connected.map(0, MEMORY_BYTES, ram)
        vf.config.write(4, BME)
        vf.memory.write(0x0100, b"before the mark", Kind.RX_DATA)
        since = vf.memory.log.count if vf.memory.log else 0
        vf.memory.write(0x1FFE, b"abcd", Kind.RX_DATA)  # the end of one page, the start of another
        vf.memory.write(0x5000, b"x", Kind.RX_WRITEBACK)
        vf.memory.read(0x7000, 1, Kind.TX_DATA)
        with answering(connected, take):
            assert mark(vf.memory, since) == 3
    assert marks == [(0x1FFF, b"b"), (0x2001, b"d"), (0x5000, b"x")]


def frame_of(vf: Device) -> pd.DataFrame:
    assert vf.memory.log is not None
    vf.memory.log.settle()
    return read_log(Path(vf.memory.log.path).read_bytes())


def logged(vf: Device, column: str) -> list[int]:
    return [int(value) for value in frame_of(vf)[column]]
