"""Throw messages at the twin's vfio-user server that are almost right, and see that it stands.

    PYTHONPATH=tests:tests/unit .venv/bin/python tests/fuzz/twin_server.py --messages 1000000

A message begins as one that a client would send, about memory, registers, rings and interrupts;
then fields, sizes, flags and descriptors are changed, streams cut, connections dropped.  Where the
device's DMA goes by message, it is answered right, wrong, late or never, with commands in between.
Meanwhile frames come from the wire, and lines over the control socket that are almost right as
well; some of them make the twin misbehave.
Whatever happens, nothing but ClientGone is raised, each connection leaves no descriptor behind,
and after it a client that does all right is served.
"""

from __future__ import annotations

import json
import random
import socket
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

from fuzz.counted import Counted, main
from vfio_client import Client, Said, Twin, access, packed
from vfio_messages import DESCRIPTOR, ODD, WHILE_ASKED, Files, spoilt, wanted

from harness.twin import channel as channel_module
from harness.twin.channel import Channel, ClientGone
from harness.twin.control import Control, ControlConnection
from harness.uapi import vfio_user
from harness.uapi.vfio import PciRegion
from harness.uapi.vfio_user import Command, Flag

PATIENCE_SECONDS = 0.05
HEADS = (b"\xff" * 6, bytes.fromhex("020000000001"), bytes.fromhex("333300000001"), bytes(6))
TYPES = (b"\x88\xb5", b"\x08\x00\x45\x00", b"\x86\xdd\x60", b"\x81\x00\x00\x07\x08\x00\x45")
LINES = [
    json.dumps({"do": word, **arguments}).encode()
    for word, arguments in (
        ("status", {}), ("now", {}), ("released", {}), ("reset_port", {}),
        ("set_bus_master", {"on": False}), ("set_bus_master", {"on": True}), ("reset_function", {}),
        ("receive_rings", {}),
        ("set_mac", {"mac": "02:00:00:00:00:01"}), ("set_vlan", {"vlan": 7}),
        ("set_vlan", {"vlan": 0}), ("set_trust", {"trusted": True}),
        ("set_state", {"enabled": True}), ("set_spoof_check", {"checked": False}),
        ("set_link", {"up": True, "mbit": 1000}), ("set_port_mtu", {"mtu": 9000}),
        ("set_api", {"newest": 2}), ("set_tracked", {"on": True}), ("set_tracked", {"on": False}),
        ("announce", {"mac": "02:00:00:00:00:01"}), ("mark", {"since": 0}), ("misbehave", {}),
        ("misbehave", {"ignores_bme": True, "corrupts": 2}), ("misbehave", {"late_ms": 0.1}),
        ("misbehave", {"loses": 3}), ("misbehave", {"late_mailbox_ms": 0.1}),
    )
]  # fmt: skip


class Guest:
    """The client's end in a thread: it counts replies, and answers DMA, more or less."""

    def __init__(self, near: socket.socket, seed: int, files: Files, counted: Counted) -> None:
        self.client = Client(near)
        self._near = near
        self._chance = random.Random(seed)
        self._files = files
        self._counted = counted

    def run(self) -> None:
        """Until either end is closed."""
        with suppress(EOFError, OSError, ValueError):
            while True:
                message = self.client.receive()
                if message.is_reply:
                    self._counted.replies[message.error] += 1
                else:
                    self._counted.dma_by_message += 1
                    self._react(message)
        with suppress(OSError):
            self._near.shutdown(socket.SHUT_RDWR)

    def _react(self, asked: Said) -> None:
        """Answer after a command or two; one answer in eight is wrong, and a few never come."""
        while self._chance.random() < 0.3:
            data, files = spoilt(self._chance, self._chance.choice(WHILE_ASKED)(self._chance))
            self._counted.messages += 1
            self.client.send_bytes(data, *self._files.of(files))
        payload = asked.payload[:16]
        if asked.command == Command.DMA_READ:
            length = int.from_bytes(asked.payload[8:16], "little")
            payload += (DESCRIPTOR * (length // len(DESCRIPTOR) + 1))[:length]
        number, flags, error = asked.number, int(Flag.REPLY), 0
        which = self._chance.randrange(50)
        if which == 0:
            payload = payload[: self._chance.randrange(len(payload) + 1)]
        elif which == 1:
            payload += b"more"
        elif which == 2:
            flags, error = 0x21, self._chance.choice(ODD) & 0xFFFFFFFF
        elif which == 3:
            number ^= 1
        elif which == 4 and self._chance.random() < 0.3:
            raise EOFError
        stray = self._files.of("me" if which == 5 else "")
        self.client.send_bytes(
            packed(number, asked.command, payload, flags=flags, error=error), *stray
        )


# --- a run ----------------------------------------------------------------------------------


class Run:
    """One device, and one client after the other."""

    def __init__(self, seed: int, files: Files, pool: ThreadPoolExecutor) -> None:
        self.counted = Counted()
        self._chance = random.Random(seed)
        self._files = files
        self._pool = pool
        self._twin = Twin()
        self._control, far = socket.socketpair()
        self._controller = ControlConnection(far, Control(self._twin.device, lambda: True))

    def connection(self, messages: int) -> None:
        """One client, for so many messages or until it is gone; then one that does all right."""
        before = _descriptors()
        self.counted.connections += 1
        with self._connected() as (guest, channel), suppress(ClientGone, OSError):
            if self._chance.random() < 0.97:
                head = vfio_user.VERSION_HEAD.pack(0, 1)
                self._send(guest, channel, packed(0, Command.VERSION, head), "")
            for _ in range(messages):
                self._send(guest, channel, *spoilt(self._chance, wanted(self._chance)))
                self.counted.messages += 1
                self._twin_goes_on()
                if self._chance.random() < 0.0005:
                    break
        self._serve_well()
        assert _descriptors() == before, "a connection left descriptors behind"

    @contextmanager
    def _connected(self) -> Iterator[tuple[Guest, Channel]]:
        near, far = socket.socketpair()
        channel = Channel(far, self._twin.server.answer)
        self._twin.device.memory.channel = channel
        guest = Guest(near, self._chance.getrandbits(32), self._files, self.counted)
        running = self._pool.submit(guest.run)
        try:
            yield guest, channel
        finally:
            self._twin.server.client_gone()
            channel.close()
            running.result(10)
            guest.client.hang_up()

    def _send(self, guest: Guest, channel: Channel, data: bytes, kinds: str) -> None:
        """Send it whole, or in two parts; or a part alone, with which the client vanishes."""
        files = self._files.of(kinds)
        cut = len(data)
        if self._chance.random() < 0.1:
            cut = self._chance.randrange(1, len(data))
        guest.client.send_bytes(data[:cut], *files)
        channel.serve()
        if cut < len(data):
            if self._chance.random() < 0.01:
                guest.client.socket.shutdown(socket.SHUT_WR)
            else:
                guest.client.send_bytes(data[cut:])
            channel.serve()

    def _twin_goes_on(self) -> None:
        """What the program does between messages; Ref: harness/twin/__main__.py."""
        device = self._twin.device
        if self._chance.random() < 0.02:
            self._hear()
        if self._chance.random() < 0.01:
            self._tell()
        device.receiver.write_late()
        device.receiver.settle()
        device.port.mailbox.deliver()
        device.interrupts.deliver()
        self._twin.sent.clear()
        self._twin.commanded.clear()

    def _hear(self) -> None:
        """Frames of any size, few of which are whole packets."""
        for _ in range(self._chance.randrange(1, 8)):
            head = self._chance.choice(HEADS) + bytes(6) + self._chance.choice(TYPES)
            size = self._chance.choice((14, 60, 1514, 9014, 9728, self._chance.randrange(14, 9729)))
            self._twin.device.receive(memoryview(head.ljust(size, b"\x11")[:size]))
            self.counted.frames += 1

    def _tell(self) -> None:
        line = bytearray(self._chance.choice(LINES))
        if self._chance.random() < 0.5:
            line[self._chance.randrange(len(line))] = self._chance.choice(b'09-"[]{}.e\xff')
        self._control.sendall(bytes(line) + b"\n")
        assert self._controller.serve()
        assert json.loads(self._control.recv(1 << 16)).keys() <= {"ok", "error"}
        self.counted.lines += 1

    def close(self) -> None:
        """End the control's connection; each client's is closed by then."""
        self._control.close()
        self._controller.close()

    def _serve_well(self) -> None:
        """A client that does nothing wrong gets what it asks for."""
        near, far = socket.socketpair()
        channel = Channel(far, self._twin.server.answer)
        client = Client(near)
        try:
            version = vfio_user.VERSION_HEAD.pack(0, 1)
            client.send_bytes(packed(1, Command.VERSION, version))
            client.send_bytes(packed(2, Command.REGION_READ, access(PciRegion.CONFIG, 0, 4)))
            channel.serve()
            assert client.receive().error == 0
            assert client.receive().payload[-4:] == b"\x86\x80\xed\x10"
        finally:
            self._twin.server.client_gone()
            channel.close()
            client.hang_up()


def fuzz(*, messages: int, seed: int) -> Counted:
    """Send so many messages.  Raises AssertionError, or whatever the twin raised."""
    patience, channel_module.PATIENCE_SECONDS = channel_module.PATIENCE_SECONDS, PATIENCE_SECONDS
    files, begin = Files(), time.monotonic()
    try:
        with ThreadPoolExecutor(1) as pool, ExitStack() as stack:
            run = Run(seed, files, pool)
            pool.submit(int).result()  # its thread is there, and what that opens
            stack.callback(run.close)
            while run.counted.messages < messages:
                run.connection(min(1000, messages))
    finally:
        channel_module.PATIENCE_SECONDS = patience
        files.close()
    run.counted.seconds = time.monotonic() - begin
    return run.counted


def _descriptors() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


if __name__ == "__main__":
    sys.exit(main(fuzz, __doc__))
