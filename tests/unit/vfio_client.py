"""A twin in a thread and vfio-user clients for it: real sockets, guest memory and eventfds.

What a client may do wrong, this one can do too: it sends any bytes with any descriptors.
"""

from __future__ import annotations

import itertools
import json
import mmap
import os
import select
import socket
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Any, Self

from descriptors import memory_file, no_descriptor_left

from harness.twin.channel import Channel, ClientGone
from harness.twin.device import Device
from harness.twin.dma_log import DmaLog
from harness.twin.port import Port
from harness.twin.server import Server
from harness.twin.transmit import Part
from harness.uapi import vfio_user
from harness.uapi.vfio import IrqSet, PciIrq
from harness.uapi.vfio_user import Command, Flag, MapFlag

LENT = MapFlag.READABLE | MapFlag.WRITABLE
_PATIENCE_SECONDS = 5.0


class Refusal(Exception):
    """A command that the twin refused; *error* is its errno."""

    def __init__(self, error: int) -> None:
        super().__init__(os.strerror(error))
        self.error = error


@dataclass(frozen=True)
class Said:
    """A message as it came from the twin."""

    number: int
    command: int
    flags: int
    error: int
    payload: bytes

    @property
    def is_reply(self) -> bool:
        return self.flags & vfio_user.TYPE_MASK == Flag.REPLY


@dataclass(frozen=True)
class Asked:
    """A DMA of the twin's that came by message."""

    command: Command
    address: int
    length: int


def packed(
    number: int, command: int, payload: bytes = b"", *, flags: int = 0, error: int = 0
) -> bytes:
    """One message, its size as it is."""
    size = vfio_user.HEADER.size + len(payload)
    return vfio_user.HEADER.pack(number, command, size, flags, error) + payload


def mapping(
    address: int, size: int, *, flags: int = LENT, offset: int = 0, argsz: int = 32
) -> bytes:
    """The payload of DMA_MAP."""
    return vfio_user.DMA_MAP.pack(argsz, flags, offset, address, size)


def access(region: int, offset: int, count: int, data: bytes = b"") -> bytes:
    """The payload of REGION_READ and REGION_WRITE."""
    return vfio_user.REGION_ACCESS.pack(offset, region, count) + data


def irqs(
    flags: int, *, index: int = PciIrq.MSIX, start: int = 0, count: int = 1, data: bytes = b"",
    argsz: int = 20,
) -> bytes:  # fmt: skip
    """The payload of DEVICE_SET_IRQS."""
    head = IrqSet(argsz=argsz + len(data), flags=flags, index=index, start=start, count=count)
    return bytes(head) + data


class Client:
    """One client; what it lends without a descriptor, it reads and writes for the twin itself."""

    def __init__(self, connection: socket.socket) -> None:
        connection.settimeout(_PATIENCE_SECONDS)
        self.socket = connection
        self.asked: list[Asked] = []
        self.meanwhile: list[Callable[[], object]] = []
        """What is done, one thing each time, before a DMA of the twin's is answered."""
        self.answers: list[bytes] = []
        """What the next DMAs of the twin's are answered with instead of what is right: the
        message after its number and command."""
        self._stream = connection.makefile("rb")
        self._numbers = itertools.count(100)
        self._lent: dict[int, bytearray] = {}
        self._replies: dict[int, Said] = {}

    # Messages.

    def send(self, command: int, payload: bytes = b"", *descriptors: int, flags: int = 0) -> int:
        """Send a command and return its number."""
        number = next(self._numbers)
        self.send_bytes(packed(number, command, payload, flags=flags), *descriptors)
        return number

    def send_bytes(self, data: bytes, *descriptors: int) -> None:
        """Send *data* as they are; the descriptors go with the first of them."""
        sent = socket.send_fds(self.socket, [data], descriptors)
        if sent < len(data):
            self.socket.sendall(data[sent:])

    def reply_to(self, number: int) -> Said:
        """The reply to that command; what the twin asks before is answered."""
        while number not in self._replies:
            message = self.receive()
            if message.is_reply:
                self._replies[message.number] = message
            else:
                self._answer(message)
        return self._replies.pop(number)

    def ask(self, command: int, payload: bytes = b"", *descriptors: int) -> bytes:
        """The payload of the reply.  Raises Refusal."""
        reply = self.reply_to(self.send(command, payload, *descriptors))
        if reply.flags & Flag.ERROR:
            raise Refusal(reply.error)
        return reply.payload

    def receive(self) -> Said:
        """The next message.  Raises EOFError once the twin has closed the connection."""
        try:
            head = self._stream.read(vfio_user.HEADER.size)
        except ConnectionResetError:
            head = b""
        if len(head) < vfio_user.HEADER.size:
            raise EOFError("the twin closed the connection")
        number, command, size, flags, error = vfio_user.HEADER.unpack(head)
        return Said(number, command, flags, error, self._stream.read(size - len(head)))

    def answer_dma(self) -> None:
        """Answer the twin until the connection is closed."""
        with suppress(EOFError):
            while True:
                self._answer(self.receive())

    def hang_up(self) -> None:
        """Close this end."""
        self._stream.close()
        self.socket.close()

    # Commands.

    def negotiate(
        self, *, minor: int = 1, **offered: Any
    ) -> tuple[tuple[int, int], dict[str, Any]]:
        """Propose capabilities; the version and the capabilities that are agreed on."""
        proposed = json.dumps({"capabilities": offered}).encode() + b"\0"
        reply = self.ask(Command.VERSION, vfio_user.VERSION_HEAD.pack(0, minor) + proposed)
        major, agreed_minor = vfio_user.VERSION_HEAD.unpack_from(reply)
        text = json.loads(reply[vfio_user.VERSION_HEAD.size :].rstrip(b"\0"))
        return (major, agreed_minor), text["capabilities"]

    def lend(self, address: int, size: int, flags: int = LENT) -> bytearray:
        """Lend memory without a descriptor: the twin has to ask for it."""
        self.ask(Command.DMA_MAP, mapping(address, size, flags=flags))
        return self.keep(address, size)

    def keep(self, address: int, size: int) -> bytearray:
        """What the twin's DMA by message at *address* reads and writes."""
        self._lent[address] = bytearray(size)
        return self._lent[address]

    @contextmanager
    def share(self, address: int, size: int, flags: int = LENT) -> Iterator[mmap.mmap]:
        """Lend memory with its descriptor, as this client sees it."""
        with memory_file(size) as descriptor, mmap.mmap(descriptor, size) as memory:
            self.ask(Command.DMA_MAP, mapping(address, size, flags=flags), descriptor)
            yield memory

    def unmap(self, address: int, size: int) -> bytes:
        return self.ask(Command.DMA_UNMAP, vfio_user.DMA_UNMAP.pack(24, 0, address, size))

    def read(self, region: int, offset: int, count: int = 4) -> int:
        """What a register holds; little-endian."""
        head = access(region, offset, count)
        reply = self.ask(Command.REGION_READ, head)
        assert (reply[: len(head)], len(reply)) == (head, len(head) + count)
        return int.from_bytes(reply[len(head) :], "little")

    def write(self, region: int, offset: int, value: int, count: int = 4) -> None:
        head = access(region, offset, count)
        assert self.ask(Command.REGION_WRITE, head + value.to_bytes(count, "little")) == head

    def set_irqs(self, flags: int, *eventfds: int, **fields: Any) -> None:
        assert self.ask(Command.DEVICE_SET_IRQS, irqs(flags, **fields), *eventfds) == b""

    # What the twin asks.

    def _answer(self, message: Said) -> None:
        head_bytes = vfio_user.DMA_ACCESS.size
        address, length = vfio_user.DMA_ACCESS.unpack_from(message.payload)
        self.asked.append(Asked(Command(message.command), address, length))
        if self.meanwhile:
            self.meanwhile.pop(0)()
        start = max(start for start in self._lent if start <= address)
        place = slice(address - start, address - start + length)
        payload = message.payload[:head_bytes]
        if message.command == Command.DMA_WRITE:
            self._lent[start][place] = message.payload[head_bytes:]
        else:
            payload += self._lent[start][place]
        answer = packed(message.number, message.command, payload, flags=Flag.REPLY)
        if self.answers:
            answer = answer[:4] + self.answers.pop(0)
        self.send_bytes(answer)


class Twin:
    """A device that serves one client after the other, in a thread of its own."""

    def __init__(self, *, log: DmaLog | None = None, erratum_35: bool = True) -> None:
        self.sent: list[bytes] = []
        self.commanded: list[int] = []
        self.device = Device(
            port=Port(), send=self._send, log=log,
            erratum_35=erratum_35, commanded=self.commanded.append,
        )  # fmt: skip
        self.server = Server(self.device)
        self._pool = ThreadPoolExecutor(1)
        self._clients: list[Client] = []
        self._served: Future[str] | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        for client in self._clients:
            client.hang_up()
        try:
            if self._served is not None:
                self.served()
        finally:
            self._pool.shutdown()

    def connect(self, *, negotiate: bool = True) -> Client:
        """The next client, once the one before it has been served."""
        if self._served is not None:
            self.served()
        near, far = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
        channel = Channel(far, self.server.answer)
        self.device.memory.channel = channel
        self._served = self._pool.submit(self._serve, channel)
        client = Client(near)
        self._clients.append(client)
        if negotiate:
            client.negotiate()
        return client

    def served(self) -> str:
        """Why the twin let go of its last client, once it has; raises what it failed with."""
        assert self._served is not None
        return self._served.result(_PATIENCE_SECONDS)

    def _serve(self, channel: Channel) -> str:
        """As the program does; Ref: harness/twin/__main__.py."""
        try:
            while True:
                select.select([channel], [], [])
                channel.serve()
        except ClientGone as gone:
            return str(gone)
        finally:
            self.server.client_gone()
            channel.close()

    def _send(self, parts: list[Part]) -> bool:
        assert len(parts) <= os.sysconf("SC_IOV_MAX"), "writev(2) refuses that"
        self.sent.append(b"".join(parts))
        return True


def served_twin() -> Iterator[Twin]:
    """A test's `twin`, as a fixture: it leaves no descriptor open, whatever clients send."""
    with no_descriptor_left(), Twin() as twin:
        yield twin


def first_client(twin: Twin) -> Client:
    """The `client` of that twin, as a fixture."""
    return twin.connect()
