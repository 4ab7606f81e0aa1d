"""The program runs one twin until SIGTERM ends the program."""

from __future__ import annotations

import argparse
import json
import os
import select
import signal
import socket
import sys
import time
from contextlib import ExitStack

from harness.twin.capability import Capability
from harness.twin.channel import Channel, ClientGone
from harness.twin.control import Control, ControlConnection
from harness.twin.device import Device
from harness.twin.dma_log import DmaLog
from harness.twin.forwarding import Forwarding
from harness.twin.port import Port
from harness.twin.say import say
from harness.twin.server import Server
from harness.twin.sockets import accepted, listening
from harness.twin.tap import Tap, WireGoneError

_FRAMES_AT_ONCE = 64
_IDLE_SECONDS = 1.0
_SOON_SECONDS = 0.001


class EventLoop:
    """The event loop serves the twin's client, its wire and its control socket."""

    def __init__(self, options: argparse.Namespace, stack: ExitStack) -> None:
        self._log = DmaLog(options.dma_log) if options.dma_log else None
        if self._log:
            stack.callback(self._log.close)
        self._changes = os.open(options.bme, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        stack.callback(os.close, self._changes)
        self._tap = Tap.named(options.tap)
        stack.callback(self._tap.close)
        self._device = Device(
            port=Port(mtu=options.port_mtu, link_mbit=options.link_mbit),
            send=self._tap.write,
            log=self._log,
            erratum_35=options.erratum_35,
            capabilities=options.capability,
            commanded=lambda command: self._note(command=command),
            changed=lambda name, now: self._note(capability=name, bytes=now.hex()),
            follow=Forwarding(options.tap).follow,
        )
        self._server = Server(self._device)
        self._channel: Channel | None = None
        self._control = Control(self._device, lambda: self._channel is not None)
        self._controllers: dict[int, ControlConnection] = {}
        self._clients = stack.enter_context(listening(options.socket))
        self._callers = stack.enter_context(listening(options.control))
        self._ended, self._end = socket.socketpair()  # readable once it is to end
        stack.callback(self._ended.close)
        stack.callback(self._end.close)
        self._poll = select.epoll()
        for each in (self._clients, self._callers, self._tap, self._ended):
            self._poll.register(each, select.EPOLLIN)

    def end(self, *_: object) -> None:
        """Let `run` come to its end, at once; for a signal."""
        self._end.close()

    def run(self) -> None:
        """Serve until told to end."""
        receiver, interrupts = self._device.receiver, self._device.interrupts
        wait_s = _IDLE_SECONDS
        while True:
            select.select([self._poll], [], [], wait_s)  # to the microsecond, which epoll is not
            for descriptor, _ in self._poll.poll(0):
                if descriptor == self._ended.fileno():
                    return
                self._serve(descriptor)
            receiver.write_late()
            receiver.settle()
            self._device.port.mailbox.deliver()
            if refused := self._device.follow_filter():
                say(f"the host's bridge does not follow the filter: {refused}")
            wait_s = interrupts.deliver() or self._patience()
            if self._log:
                self._log.settle()

    def _patience(self) -> float:
        """How long nothing needs to be done if nobody asks for it."""
        return _SOON_SECONDS if self._device.has_late_work else _IDLE_SECONDS

    def _serve(self, descriptor: int) -> None:
        if descriptor == self._tap.fileno():
            self._receive()
        elif self._channel and descriptor == self._channel.fileno():
            self._answer(self._channel)
        elif descriptor == self._clients.fileno():
            self._accept_client()
        elif descriptor == self._callers.fileno():
            self._accept_caller()
        elif not self._controllers[descriptor].serve():
            self._poll.unregister(descriptor)
            self._controllers.pop(descriptor).close()

    def _receive(self) -> None:
        try:
            for _ in range(_FRAMES_AT_ONCE):
                frame = self._tap.read()
                if frame is None:
                    return
                self._device.receive(frame)
        except WireGoneError as gone:
            say(f"the VF's port: {gone}")
            self._poll.unregister(self._tap)
            self._device.port.set_link(False, self._device.port.link_mbit)

    def _answer(self, channel: Channel) -> None:
        try:
            channel.serve()
        except ClientGone as gone:
            say(f"{gone}; waiting for the next one")
            self._poll.unregister(channel.fileno())
            self._channel = None
            self._server.client_gone()
            channel.close()

    def _accept_caller(self) -> None:
        if connection := accepted(self._callers):
            caller = ControlConnection(connection, self._control)
            self._controllers[caller.fileno()] = caller
            self._poll.register(caller, select.EPOLLIN)

    def _accept_client(self) -> None:
        connection = accepted(self._clients)
        if connection is None:
            return
        if self._channel:
            say("a second client was refused: the twin has a guest")
            connection.close()
            return
        self._channel = Channel(connection, self._server.answer)
        self._device.memory.channel = self._channel
        self._poll.register(self._channel, select.EPOLLIN)

    def _note(self, **what: object) -> None:
        line = json.dumps({"t_ns": time.monotonic_ns(), **what})
        try:
            os.write(self._changes, line.encode() + b"\n")
        except OSError as full:
            self._control.not_noted += 1
            say(f"{line} could not be noted: {full}")


def _options(arguments: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="twin", description=__doc__)
    parser.add_argument("--socket", required=True, help="where the guest's QEMU connects to")
    parser.add_argument("--control", required=True, help="where it can be asked and told things")
    parser.add_argument("--tap", required=True, help="the tap that is its wire")
    parser.add_argument(
        "--bme",
        required=True,
        help="file for changes of its COMMAND register and of those described",
    )
    parser.add_argument(
        "--capability",
        action="append",
        default=[],
        type=Capability.parse,
        help="one that its topology describes, as JSON: see harness.twin.capability",
    )
    parser.add_argument("--dma-log", help="file for every access to the guest's memory")
    parser.add_argument("--port-mtu", type=int, default=1500, help="MTU of the port (PF)")
    parser.add_argument("--link-mbit", type=int, default=10_000, choices=(100, 1000, 10_000))
    parser.add_argument(
        "--erratum-35",
        action=argparse.BooleanOptionalAction,
        default=True,
        help="zeros in the PCIe capability",
    )
    return parser.parse_args(arguments)


def main() -> int:
    """Run one twin; its exit status: 1 if something that it needs is not there."""
    options = _options(sys.argv[1:])
    with ExitStack() as stack:
        try:
            loop = EventLoop(options, stack)
        except OSError as missing:
            say(f"it cannot be started: {missing}")
            return 1
        signal.signal(signal.SIGTERM, loop.end)
        loop.run()
    return 0


if __name__ == "__main__":
    sys.exit(main())
