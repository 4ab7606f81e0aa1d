"""A thread between the peer's end of the wire and the bridge changes frames of flows.

The thread takes and sends frames by two packet sockets, and counts the frames that it changes.
"""

from __future__ import annotations

import os
import select
import socket
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

from harness.agent.payload import locate, peek
from harness.errors import LabError
from harness.lab.emulated import wire_of
from harness.lab.wire import BRIDGE, Wire, inside, ip
from harness.topology import Topology
from harness.uapi.if_packet import ETH_P_ALL, SOL_PACKET, PacketOption, SocketOption

NEAR, FAR = "tamper0", "tamper1"
PEER = "peer"
"""The interface of this name in the wire's namespace leads to the peer; see `Wire.make`."""

LARGEST = 16 << 10
BUFFER_BYTES = 8 << 20


class Tampering:
    """A thread carries frames both ways, and changes some frames of flows on the way to the peer.

    The thread counts the frames of all flows that go to the peer, and changes the last byte of the
    payload whenever the count is a multiple of *every*.  `close` ends the thread; the caller owns
    both sockets.
    """

    def __init__(self, to_peer: socket.socket, to_bridge: socket.socket, every: int) -> None:
        self.changed = 0
        """The thread has changed this many frames."""
        self._failed: OSError | None = None
        self._every = every
        self._seen = 0
        self._ways = {to_peer: to_bridge, to_bridge: to_peer}
        self._to_peer = to_peer
        self._end, self._ending = os.pipe()
        # A daemon, so that a program can end that failed before close().
        self._thread = threading.Thread(target=self._carry, name="tampering", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """End the thread.  Raises LabError if the thread had failed before."""
        os.write(self._ending, b"x")
        self._thread.join()
        os.close(self._end)
        os.close(self._ending)
        if self._failed:
            raise LabError(
                f"this machine: the thread that changes frames on the wire failed: {self._failed}",
                because="a packet socket on the lab's wire did not take or give a frame",
                fix="send fewer frames, or look at the links in the lab's network namespaces",
            )

    def _carry(self) -> None:
        try:
            self._carry_until_ended()
        except OSError as failed:
            self._failed = failed

    def _carry_until_ended(self) -> None:
        while True:
            waiting: list[socket.socket | int] = [*self._ways, self._end]
            ready, _, _ = select.select(waiting, [], [])
            if self._end in ready:
                return
            for arriving, leaving in self._ways.items():
                if arriving not in ready:
                    continue
                data = arriving.recv(LARGEST)
                leaving.send(self._changed(data) if leaving is self._to_peer else data)

    def _changed(self, data: bytes) -> bytes:
        place = locate(data, len(data))
        if place is None or peek(data, place) is None:
            return data
        self._seen += 1
        if self._seen % self._every:
            return data
        self.changed += 1
        return data[: place.end - 1] + bytes([data[place.end - 1] ^ 1]) + data[place.end :]


@contextmanager
def tampered(topology: Topology, *, every: int) -> Iterator[Tampering]:
    """Let a thread change frames on the wire of an emulated lab during the body; see `Tampering`.

    When the body ends, the wire is as before.  Raises LabError if ``ip`` fails, or if the thread
    failed.
    """
    wire = wire_of(topology)
    with ExitStack() as undo:
        undo.callback(ip, "-n", wire.namespace, "link", "set", PEER, "master", BRIDGE)
        ip("-n", wire.namespace, "link", "set", PEER, "nomaster")
        ip(
            "-n", wire.namespace, "link", "add", NEAR, "mtu", str(wire.mtu), "type", "veth",
            "peer", "name", FAR, "mtu", str(wire.mtu),
        )  # fmt: skip
        undo.callback(ip, "-n", wire.namespace, "link", "delete", NEAR)
        ip("-n", wire.namespace, "link", "set", FAR, "up")
        ip("-n", wire.namespace, "link", "set", NEAR, "master", BRIDGE, "up")
        ends = [undo.enter_context(_listening(wire, name)) for name in (PEER, FAR)]
        tampering = Tampering(ends[0], ends[1], every)
        undo.callback(tampering.close)
        yield tampering


def _listening(wire: Wire, interface: str) -> socket.socket:
    with inside(wire.namespace):
        end = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0)
    end.setsockopt(socket.SOL_SOCKET, SocketOption.RCVBUFFORCE, BUFFER_BYTES)
    end.setsockopt(SOL_PACKET, PacketOption.IGNORE_OUTGOING, 1)
    end.bind((interface, ETH_P_ALL))
    return end
