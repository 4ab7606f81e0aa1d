"""The event loop of a chip serves functions over vfio-user, and takes frames from the wires."""

from __future__ import annotations

import itertools
import select
import socket
from collections.abc import Callable
from contextlib import ExitStack, closing
from pathlib import Path

from harness.chip.configuration import Disguise
from harness.chip.control import Control
from harness.chip.physical_function import PhysicalFunction
from harness.chip.placing import Failed, Placing, vf_function
from harness.chip.record import Record
from harness.twin.channel import Channel, ClientGone
from harness.twin.control import ControlConnection
from harness.twin.function import Function
from harness.twin.say import say
from harness.twin.server import Server
from harness.twin.sockets import accepted, listening
from harness.twin.tap import Tap, WireGoneError

CONTROL = "control"
"""The chip's folder has a socket of this name; see ``harness.chip.control``."""

_FRAMES_AT_ONCE = 64
_IDLE_SECONDS = 1.0


class Served:
    """The socket *path* serves *function*, a port or a VF, to one client at a time."""

    def __init__(self, path: Path, function: Function) -> None:
        self.path = path
        self.function = function
        self.server = Server(function)
        self.channel: Channel | None = None
        self.listener = listening(str(path))

    def accept(self) -> Channel | None:
        """Accept a client and return its channel.

        Return None if the function has a client already, or if no client can be accepted now.
        """
        connection = accepted(self.listener)
        if connection is None:
            return None
        if self.channel:
            say(f"{self.path.name}: refused a second client, since the first is still connected")
            connection.close()
            return None
        self.channel = Channel(connection, self.server.answer)
        self.function.memory.channel = self.channel
        return self.channel

    def let_go(self) -> None:
        """Close the channel of the client, which is gone, and reset the function.

        See `Server.client_gone`.
        """
        assert self.channel is not None
        self.server.client_gone()
        self.channel.close()
        self.channel = None

    def close(self) -> None:
        """Close both sockets, and remove the file of the listening socket."""
        if self.channel:
            self.let_go()
        self.listener.close()
        self.path.unlink(missing_ok=True)


class Chip:
    """A chip serves its ports and their VFs at sockets in *folder*.

    *folder* gets a socket ``port<P>`` for each port, ``port<P>-vf<N>`` for each VF, and `CONTROL`.
    *taps* are the wires, one for each port.  Each port has *vfs* VFs; *mac* is the address of the
    first port, and each further port has the next address.  QEMU has the functions on the PCI bus
    number *bus*.  The folder *logs* gets a `Record` of each VF; None records nothing.  *disguise*
    and *placing* say how the chip hides SR-IOV and places VFs.  *stack* closes sockets and records.
    """

    def __init__(
        self,
        folder: Path,
        taps: list[Tap],
        *,
        vfs: int,
        mac: bytes,
        bus: int,
        logs: Path | None,
        disguise: Disguise,
        placing: Placing,
        stack: ExitStack,
    ) -> None:
        self._bus = bus
        self._disguise = disguise
        self._placing = placing
        self._taps = taps
        self._logs = logs
        self._records: list[Record] = []
        self._poll = select.epoll()
        self._work: dict[int, Callable[[], None]] = {}
        self.ports = [self._port(number, mac, vfs, stack) for number in range(len(taps))]
        for port, after in itertools.pairwise(self.ports):
            port.config.name_next(after.number)
        self._served = [
            stack.enter_context(closing(Served(folder / name, function)))
            for name, function in self._functions()
        ]
        for served in self._served:
            self._register(served.listener.fileno(), self._accepting(served))
        for port, tap in zip(self.ports, taps, strict=True):
            self._register(tap.fileno(), self._receiving(port, tap))
        self._control = Control(self.ports, self._has_client)
        callers = stack.enter_context(listening(str(folder / CONTROL)))
        stack.callback((folder / CONTROL).unlink, missing_ok=True)
        self._register(callers.fileno(), lambda: self._accept_caller(callers))
        self._ended, self._end = socket.socketpair()  # `end` makes the first readable
        stack.callback(self._ended.close)
        stack.callback(self._end.close)
        self._poll.register(self._ended, select.EPOLLIN)

    def end(self, *_: object) -> None:
        """Make `run` return at once; a signal's handler may call this."""
        self._end.close()

    def run(self) -> None:
        """Serve clients, callers and wires until `end` is called."""
        wait_s = _IDLE_SECONDS
        while True:
            select.select([self._poll], [], [], wait_s)
            for descriptor, _ in self._poll.poll(0):
                if descriptor == self._ended.fileno():
                    return
                if work := self._work.get(descriptor):
                    work()
            for port in self.ports:
                port.settle()
            waits = [port.deliver_interrupts() for port in self.ports]
            wait_s = min((wait for wait in waits if wait), default=_IDLE_SECONDS)
            for record in self._records:
                record.settle()

    def _port(self, number: int, mac: bytes, vfs: int, stack: ExitStack) -> PhysicalFunction:
        own = mac[:5] + bytes([mac[5] + number & 0xFF])
        records = []
        if self._logs is not None:
            records = [Record(self._logs, f"port{number}-vf{vf}") for vf in range(vfs)]
        for record in records:
            stack.callback(record.close)
        self._records += records
        return PhysicalFunction(
            number=number,
            mac=own,
            vfs=vfs,
            to_wire=self._taps[number].write,
            disguise=self._disguise,
            records=records,
            placed=lambda count: self._place(number, count),
        )

    def _functions(self) -> list[tuple[str, Function]]:
        found: list[tuple[str, Function]] = []
        for port in self.ports:
            found.append((f"port{port.number}", port))
            found += [(f"port{port.number}-vf{n}", vf) for n, vf in enumerate(port.vfs)]
        return found

    def _place(self, number: int, count: int) -> None:
        """Tell QEMU where the BARs of the first *count* VFs of port *number* are."""
        port = self.ports[number]
        channel = port.memory.channel
        if channel is None:
            return
        failed = _told_once(f"port{number}")
        for vf in range(count):
            self._placing.place(
                channel, bus=self._bus, function=vf_function(number, vf),
                bars=port.config.vf_bars(vf), failed=failed,
            )  # fmt: skip

    def _register(self, descriptor: int, work: Callable[[], None]) -> None:
        self._work[descriptor] = work
        self._poll.register(descriptor, select.EPOLLIN)

    def _forget(self, descriptor: int) -> None:
        self._poll.unregister(descriptor)
        del self._work[descriptor]

    def _has_client(self, name: str) -> bool:
        return any(each.channel and each.path.name == name for each in self._served)

    def _accept_caller(self, listener: socket.socket) -> None:
        connection = accepted(listener)
        if connection is None:
            return
        caller = ControlConnection(connection, self._control)

        def serve() -> None:
            if not caller.serve():
                self._forget(caller.fileno())
                caller.close()

        self._register(caller.fileno(), serve)

    def _accepting(self, served: Served) -> Callable[[], None]:
        def accept() -> None:
            if channel := served.accept():
                self._register(channel.fileno(), self._answering(served, channel))

        return accept

    def _answering(self, served: Served, channel: Channel) -> Callable[[], None]:
        def answer() -> None:
            try:
                channel.serve()
            except ClientGone as gone:
                say(f"{served.path.name}: {gone}")
                self._forget(channel.fileno())
                served.let_go()

        return answer

    def _receiving(self, port: PhysicalFunction, tap: Tap) -> Callable[[], None]:
        def receive() -> None:
            try:
                for _ in range(_FRAMES_AT_ONCE):
                    frame = tap.read()
                    if frame is None:
                        return
                    port.receive(frame)
            except WireGoneError as gone:
                say(f"port{port.number}: {gone}")
                self._forget(tap.fileno())
                port.link.plug(False, port.link.mbit)

        return receive


def _told_once(port: str) -> Failed:
    """Return a function that logs the first failure to place a VF of *port*, and no later one."""
    said = False

    def failed(what: str, fix: str) -> None:
        nonlocal said
        if not said:
            said = True
            say(f"{port}: {what}; no driver can reach its VFs, which QEMU has not mapped; {fix}")

    return failed
