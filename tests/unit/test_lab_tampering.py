"""A wire that changes frames, between two made-up ends."""

from __future__ import annotations

import socket

import pytest

from harness.errors import LabError
from harness.lab.tampering import Tampering
from harness.waiting import wait_for


def test_a_wire_that_carries_no_more_is_told() -> None:
    """Frames that it lost would pass for those of the migration."""
    (peer, to_peer), (bridge, to_bridge) = (
        socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM) for _ in range(2)
    )
    with peer, to_peer, to_bridge:
        tampering = Tampering(to_peer, to_bridge, every=1)
        bridge.close()
        peer.send(b"frame")
        wait_for("the wire to fail", lambda: not tampering.is_carrying, within=5, every_s=0.01)
        with pytest.raises(LabError, match="carried none any more"):
            tampering.close()


def test_a_wire_that_is_ended_in_time_is_fine() -> None:
    (peer, to_peer), (bridge, to_bridge) = (
        socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM) for _ in range(2)
    )
    with peer, to_peer, to_bridge, bridge:
        tampering = Tampering(to_peer, to_bridge, every=1)
        peer.send(b"frame")
        assert bridge.recv(100) == b"frame"
        tampering.close()
