"""A wire that changes frames, between two made-up ends."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass

import pytest

from harness.errors import LabError
from harness.lab.tampering import Tampering
from harness.waiting import wait_for


@dataclass
class Ends:
    """What the wire lies between, and the wire."""

    peer: socket.socket
    bridge: socket.socket
    wire: Tampering


@pytest.fixture
def ends() -> Iterator[Ends]:
    with ExitStack() as stack:
        (peer, to_peer), (bridge, to_bridge) = (
            map(stack.enter_context, socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM))
            for _ in range(2)
        )
        yield Ends(peer, bridge, Tampering(to_peer, to_bridge, every=1))


def is_carrying() -> bool:
    return "tampering" in {thread.name for thread in threading.enumerate()}


def test_a_wire_that_carries_no_more_is_told(ends: Ends) -> None:
    """Frames that it lost would pass for those of the migration."""
    ends.bridge.close()
    ends.peer.send(b"frame")
    wait_for("the wire to fail", lambda: not is_carrying(), within=5, every_s=0.01)
    with pytest.raises(LabError, match="the thread that changes frames on the wire failed"):
        ends.wire.close()


def test_a_wire_that_is_ended_in_time_is_fine(ends: Ends) -> None:
    ends.peer.send(b"frame")
    assert ends.bridge.recv(100) == b"frame"
    ends.wire.close()
