"""A client lends memory to the device: pages with a descriptor, and pages by message."""

from __future__ import annotations

import mmap
import socket
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import pytest
from descriptors import memory_file
from vfio_client import LENT, Client

from harness.twin.channel import Channel, Message
from harness.twin.config_space import ConfigSpace
from harness.twin.dma_log import HEAD, RECORD, DmaLog
from harness.twin.memory import GuestMemory
from harness.twin.misbehaviour import Misbehaviour
from harness.uapi.pci_regs import Register

PAGE = 4096
SHARED, BY_MESSAGE = 4 * PAGE, 64 * PAGE
"""Where four pages are lent with a descriptor, and where without."""


@dataclass
class Guest:
    """A client lends *memory* to the device, and sees the device's accesses."""

    memory: GuestMemory
    misbehaviour: Misbehaviour
    config: ConfigSpace
    client: Client
    shared: mmap.mmap
    kept: bytearray
    marked: bytearray
    log: Path

    def records(self) -> list[tuple[int, int, int, int]]:
        """Return address, length, kind and queue of each access in the log's file."""
        content = self.log.read_bytes()
        assert self.memory.log is not None
        end = HEAD.size + self.memory.log.count * RECORD.size
        return [tuple(record[1:]) for record in RECORD.iter_unpack(content[HEAD.size : end])]

    def set_master(self, on: bool) -> None:
        self.config.write(Register.COMMAND, b"\4\0" if on else b"\0\0")


@pytest.fixture
def guest(tmp_path: Path) -> Iterator[Guest]:
    """Yield a guest whose client answers in a thread, with Bus Master Enable set."""
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


def refused() -> bytes:
    """Return QEMU's answer to a device without Bus Master Enable: size, flags, EFAULT."""
    return b"".join(number.to_bytes(4, "little") for number in (16, 0x21, 14))
