"""Throw messages at a chip, over its port and its VFs at once, and see that it stands.

    PYTHONPATH=tests:tests/unit .venv/bin/python tests/fuzz/chip_server.py --messages 1000000

Every function has a client of its own, which comes and vanishes as it likes.  A message begins as
one that a client would send, to a port or to a VF; then fields, sizes, flags and descriptors are
changed, streams cut.  Where a function's DMA goes by message, it is answered right, wrong, late or
never.  The port and its VFs are reset in every way meanwhile, VFs enabled and disabled, the port
set up as its driver does it; frames come from the wire, and lines over the control socket.

Whatever happens, nothing but ClientGone is raised, what is refused is refused with an errno, no
descriptor is left behind, and after each round a client of each function that does all right is
served.
"""

from __future__ import annotations

import json
import random
import socket
import sys
import time
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path

from chip_messages import started, wanted_of_port, wanted_of_vf
from fuzz.counted import Counted, main
from fuzz.twin_server import PATIENCE_SECONDS, TYPES, Guest
from port_driver import PORT_MAC, Port
from vf_of_port import mac_of
from vf_rings import MEMORY_BYTES
from vfio_client import Client, access, packed
from vfio_messages import Files, spoilt

from harness.chip.control import Control
from harness.twin import channel as channel_module
from harness.twin.channel import Channel, ClientGone
from harness.twin.control import ControlConnection
from harness.twin.function import Function
from harness.twin.server import Server
from harness.uapi import ixgbe_vf, vfio_user
from harness.uapi.ixgbe_pf import Row, Vmolr
from harness.uapi.vfio import PciRegion
from harness.uapi.vfio_user import Command

VFS = 6
ROUND = 20_000
"""Messages of a round, at whose end every client is gone."""

HEADS = (b"\xff" * 6, PORT_MAC, bytes.fromhex("333300000001"), bytes(6), *map(mac_of, range(VFS)))
LINES = [
    json.dumps({"do": word, **arguments}).encode()
    for word, arguments in (
        ("status", {}), ("set_link", {"port": 0, "up": True}),
        ("set_link", {"port": 0, "up": True, "mbit": 1000}), ("set_link", {"port": 0, "up": False}),
        ("misbehave", {"port": 0}), ("misbehave", {"port": 0, "loses": 3}),
        ("misbehave", {"port": 0, "silent_mailbox": True, "loses_resets": True}),
        ("misbehave", {"port": 0, "vf": 0}), ("misbehave", {"port": 0, "vf": 1}),
        ("misbehave", {"port": 0, "vf": 0, "ignores_bme": True, "corrupts": 2}),
        ("misbehave", {"port": 0, "vf": 1, "hears_all": True}),
        ("misbehave", {"port": 0, "vf": 2, "late_ms": 0.1}),
    )
]  # fmt: skip


class Seat:
    """One function of the chip, and the client that it has now, if any."""

    def __init__(self, name: str, function: Function) -> None:
        self.name = name
        self.function = function
        self.server = Server(function)
        self.channel: Channel | None = None
        self.guest: Guest | None = None
        self._running: Future[None] | None = None

    def connect(
        self, chance: random.Random, files: Files, counted: Counted, pool: ThreadPoolExecutor
    ) -> None:
        near, far = socket.socketpair()
        self.channel = Channel(far, self.server.answer)
        self.function.memory.channel = self.channel
        self.guest = Guest(near, chance.getrandbits(32), files, counted)
        self._running = pool.submit(self.guest.run)
        counted.connections += 1
        if chance.random() < 0.98:
            self.guest.client.send_bytes(packed(1, Command.VERSION, _VERSION))

    def let_go(self) -> None:
        """The client is gone, as the chip's loop finds out."""
        assert self.channel
        assert self.guest
        assert self._running
        self.server.client_gone()
        self.channel.close()
        self._running.result(10)
        self.guest.client.hang_up()
        self.channel = self.guest = self._running = None

    def serve_well(self, word: int) -> None:
        """Serve a client that does nothing wrong, which reads configuration space: *word* first."""
        near, far = socket.socketpair()
        channel = Channel(far, self.server.answer)
        client = Client(near)
        try:
            client.send_bytes(packed(1, Command.VERSION, _VERSION))
            client.send_bytes(packed(2, Command.REGION_READ, access(PciRegion.CONFIG, 0, 4096)))
            channel.serve()
            assert client.receive().error == 0
            assert int.from_bytes(client.receive().payload[16:20], "little") == word
        finally:
            self.server.client_gone()
            channel.close()
            client.hang_up()


_VERSION = vfio_user.VERSION_HEAD.pack(0, 1)


class Run:
    """One chip, its port and VFs, and clients for all of them."""

    def __init__(self, seed: int, files: Files, pool: ThreadPoolExecutor) -> None:
        self.counted = Counted()
        self._chance = random.Random(seed)
        self._files = files
        self._pool = pool
        self._port = Port(bytearray(MEMORY_BYTES), VFS)
        chip = self._port.chip
        self._seats = [Seat("port0", chip)]
        self._seats += [Seat(f"port0-vf{n}", vf) for n, vf in enumerate(chip.vfs)]
        self._control, far = socket.socketpair()
        self._controller = ControlConnection(far, Control([chip], lambda _: True))

    def round(self, messages: int) -> None:
        """So many messages over all functions, until every client is gone."""
        before = _descriptors()
        for _ in range(messages):
            seat = (
                self._seats[0] if self._chance.random() < 0.4 else self._chance.choice(self._seats)
            )
            if seat.channel is None:
                seat.connect(self._chance, self._files, self.counted, self._pool)
            try:
                self._send(seat)
            except (ClientGone, OSError):
                seat.let_go()
            else:
                if self._chance.random() < 0.0005:
                    seat.let_go()
            self._chip_goes_on()
        for seat in self._seats:
            if seat.channel is not None:
                seat.let_go()
        for seat in self._seats:
            seat.serve_well(0x10FB8086 if seat is self._seats[0] else 0x10ED8086)
        assert _descriptors() == before, "a round left descriptors behind"

    def _send(self, seat: Seat) -> None:
        """Send a message whole, or in two parts; or a part alone, and the client vanishes."""
        assert seat.channel
        assert seat.guest
        kinds = wanted_of_port if seat is self._seats[0] else wanted_of_vf
        data, files = spoilt(self._chance, kinds(self._chance))
        self.counted.messages += 1
        cut = len(data)
        if self._chance.random() < 0.05:
            cut = self._chance.randrange(1, len(data))
        seat.guest.client.send_bytes(data[:cut], *self._files.of(files))
        seat.channel.serve()
        if cut < len(data):
            if self._chance.random() < 0.01:
                seat.guest.client.socket.shutdown(socket.SHUT_WR)
            else:
                seat.guest.client.send_bytes(data[cut:])
            seat.channel.serve()

    def _chip_goes_on(self) -> None:
        """What the program does between messages; Ref: harness/chip/loop.py."""
        if self._chance.random() < 0.02:
            self._hear()
        if self._chance.random() < 0.005:
            self._tell()
        if self._chance.random() < 0.004:
            self._drive()
        self._port.chip.settle()
        self._port.chip.deliver_interrupts()
        self._port.sent.clear()

    def _drive(self) -> None:
        """Set the port up as its driver does, with some VFs, whose filters are there."""
        port = self._port
        port.vfs = port.chip.vfs_enabled
        port.start(vfs=self._chance.choice((0, 4, VFS)), queues=self._chance.choice((1, 2)))
        for vf in range(port.vfs):
            port.set_rar(1 + vf, mac_of(vf), vf)
            port.write(Row.VMOLR.at(vf), Vmolr.AUPE | Vmolr.BAM | Vmolr.ROMPE)
            port.set_spoof_check(vf, self._chance.random() < 0.3)
        for row in (Row.VFRE, Row.VFTE):
            port.write(row.at(0), 0xFFFFFFFF)
        for index in range(Row.RETA.count):
            port.write(Row.RETA.at(index), self._chance.getrandbits(32))
        for number, seat in enumerate(self._seats):
            queue = ixgbe_vf.RECEIVE if number else ixgbe_vf.RECEIVE + 0x40 * port.first_queue
            if seat.channel is not None and self._chance.random() < 0.8:
                self._start(seat, queue)
        self._hear()

    def _start(self, seat: Seat, queue: int) -> None:
        """Have a function's client do what a driver does, so that frames come and go."""
        assert seat.channel
        assert seat.guest
        try:
            for number, (command, payload, kinds) in enumerate(started(queue)):
                data = packed(number, command, payload)
                seat.guest.client.send_bytes(data, *self._files.of(kinds))
                seat.channel.serve()
        except (ClientGone, OSError):
            seat.let_go()

    def _hear(self) -> None:
        """Frames of any size, few of which are whole packets."""
        for _ in range(self._chance.randrange(1, 8)):
            head = self._chance.choice(HEADS) + bytes(6) + self._chance.choice(TYPES)
            size = self._chance.choice((14, 60, 1514, 9014, 9728, self._chance.randrange(14, 9729)))
            self._port.chip.receive(memoryview(head.ljust(size, b"\x11")[:size]))
            self.counted.frames += 1

    def _tell(self) -> None:
        line = bytearray(self._chance.choice(LINES))
        if self._chance.random() < 0.5:
            line[self._chance.randrange(len(line))] = self._chance.choice(b'09-"[]{}.e\xff')
        self._control.sendall(bytes(line) + b"\n")
        assert self._controller.serve()
        reply = json.loads(self._control.recv(1 << 20))
        assert reply.keys() <= {"ok", "error"}
        self.counted.lines += 1

    def close(self) -> None:
        """End the control's connection; each client's is closed by then."""
        self._control.close()
        self._controller.close()


def fuzz(*, messages: int, seed: int) -> Counted:
    """Send so many messages.  Raises AssertionError, or whatever the chip raised."""
    patience, channel_module.PATIENCE_SECONDS = channel_module.PATIENCE_SECONDS, PATIENCE_SECONDS
    files, begin = Files(), time.monotonic()
    try:
        with ThreadPoolExecutor(1 + VFS) as pool, ExitStack() as stack:
            for started in [pool.submit(time.monotonic) for _ in range(1 + VFS)]:
                started.result()
            run = Run(seed, files, pool)
            stack.callback(run.close)
            while run.counted.messages < messages:
                run.round(min(ROUND, messages))
    finally:
        channel_module.PATIENCE_SECONDS = patience
        files.close()
    run.counted.seconds = time.monotonic() - begin
    return run.counted


def _descriptors() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


if __name__ == "__main__":
    sys.exit(main(fuzz, __doc__))
