"""A client of vfio-user, as QEMU is one: real sockets, real memory files, real eventfds."""

from __future__ import annotations

import errno
import gc
import os
import select
import socket
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from harness.twin.channel import Channel
from harness.twin.device import Device
from harness.twin.dma_log import DmaLog
from harness.twin.port import Port
from harness.twin.server import Server
from harness.twin.transmit import Part
from harness.uapi import vfio_user
from harness.uapi.vfio import PciRegion
from harness.uapi.vfio_user import Command, Flag

MEMORY_BYTES = 1 << 20
MAC = bytes.fromhex("525400123456")
OPENED = {"capabilities": {"max_msg_fds": 8, "write_multiple": True}}


class Refusal(Exception):
    """The server answered with an errno."""

    def __init__(self, number: int) -> None:
        super().__init__(errno.errorcode.get(number, str(number)))
        self.number = number


@dataclass
class Wire:
    """Where the device's frames go."""

    sent: list[bytes]

    def send(self, parts: list[Part]) -> bool:
        self.sent.append(b"".join(parts))
        return True


class Client:
    """One connection; each request is answered before the call returns."""

    def __init__(self, device: Device) -> None:
        self.socket, theirs = socket.socketpair()
        self.socket.settimeout(5)
        self.server = Server(device)
        self.channel = Channel(theirs, self.server.answer)
        device.memory.channel = self.channel
        self._number = 0

    def ask(
        self, command: int, payload: bytes = b"", descriptors: Iterable[int] = (), flags: int = 0
    ) -> bytes:
        """Send a command and return the reply's payload.  Raises Refusal."""
        self.send(command, payload, descriptors, flags)
        self.channel.serve()
        return self.reply(command)

    def send(
        self, command: int, payload: bytes = b"", descriptors: Iterable[int] = (), flags: int = 0
    ) -> None:
        self._number = (self._number + 1) & 0xFFFF
        size = vfio_user.HEADER.size + len(payload)
        head = vfio_user.HEADER.pack(self._number, command, size, flags, 0)
        socket.send_fds(self.socket, [head + payload], list(descriptors))

    def send_raw(self, data: bytes, descriptors: Iterable[int] = ()) -> None:
        """Send bytes as they are, right or wrong."""
        socket.send_fds(self.socket, [data], list(descriptors))

    def answers_waiting(self) -> Iterator[int]:
        """The errno of each reply that has come, 0 for one that was done."""
        while select.select([self.socket], [], [], 0)[0]:
            yield self.receive()[3]

    def reply(self, command: int) -> bytes:
        number, said, flags, error, payload, _ = self.receive()
        assert (number, said) == (self._number, command)
        assert flags & vfio_user.TYPE_MASK == Flag.REPLY
        if flags & Flag.ERROR:
            assert payload == b"", "an error is a header and nothing else"
            raise Refusal(error)
        return payload

    def receive(self) -> tuple[int, int, int, int, bytes, list[int]]:
        """The next message from the server, and the descriptors that came with it."""
        head, descriptors, _, _ = socket.recv_fds(self.socket, vfio_user.HEADER.size, 8)
        number, command, size, flags, error = vfio_user.HEADER.unpack(head)
        payload = b""
        while len(payload) < size - vfio_user.HEADER.size:
            payload += self.socket.recv(size - vfio_user.HEADER.size - len(payload))
        return number, command, flags, error, payload, descriptors

    def negotiate(self, text: bytes = b'{"capabilities":{"max_msg_fds":8}}\0') -> bytes:
        return self.ask(Command.VERSION, vfio_user.VERSION_HEAD.pack(0, 1) + text)

    def map(self, address: int, size: int, descriptor: int | None, *, offset: int = 0) -> bytes:
        request = vfio_user.DMA_MAP.pack(32, 3, offset, address, size)
        return self.ask(Command.DMA_MAP, request, [] if descriptor is None else [descriptor])

    def unmap(self, address: int, size: int) -> bytes:
        return self.ask(Command.DMA_UNMAP, vfio_user.DMA_UNMAP.pack(24, 0, address, size))

    def read(self, region: int, offset: int, count: int) -> bytes:
        head = vfio_user.REGION_ACCESS.pack(offset, region, count)
        return self.ask(Command.REGION_READ, head)[vfio_user.REGION_ACCESS.size :]

    def write(self, region: int, offset: int, data: bytes) -> bytes:
        head = vfio_user.REGION_ACCESS.pack(offset, region, len(data))
        return self.ask(Command.REGION_WRITE, head + data)

    def config(self, offset: int, count: int) -> int:
        return int.from_bytes(self.read(PciRegion.CONFIG, offset, count), "little")

    def close(self) -> None:
        self.socket.close()
        self.server.client_gone()
        self.channel.close()


@contextmanager
def device(folder: Path | None = None, *, erratum_35: bool = False) -> Iterator[Device]:
    """A VF with a MAC of its administrator's; its frames go to ``device.wire``."""
    log = DmaLog(str(folder / "dma.log"), 10_000) if folder else None
    made = Device(port=Port(mtu=9000), send=Wire([]).send, log=log, erratum_35=erratum_35)
    made.port.set_mac(MAC)
    yield made
    if log:
        log.close()


@contextmanager
def client(device: Device) -> Iterator[Client]:
    """A client that has said its version."""
    connected = Client(device)
    connected.negotiate()
    try:
        yield connected
    finally:
        connected.close()


@contextmanager
def memory(size: int = MEMORY_BYTES) -> Iterator[int]:
    """A guest's memory as QEMU makes it: a file that is nowhere."""
    descriptor = os.memfd_create("guest")
    os.ftruncate(descriptor, size)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


@contextmanager
def eventfds(count: int) -> Iterator[list[int]]:
    made = [os.eventfd(0, os.EFD_NONBLOCK) for _ in range(count)]
    try:
        yield made
    finally:
        for each in made:
            os.close(each)


def open_descriptors() -> int:
    """How many this process has, without what only waits to be collected."""
    gc.collect()
    return len(list(Path("/proc/self/fd").iterdir()))
