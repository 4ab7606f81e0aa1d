"""The cables of a software chip carry whole frames, or lead nowhere."""

from __future__ import annotations

import select
from contextlib import ExitStack

from harness.lab.cable import cables
from harness.twin.tap import Tap

FRAME = bytes(9014)


def test_two_ports_are_cabled_to_each_other() -> None:
    """Frames of one port come out at the other, each whole, and nothing else does."""
    with ExitStack() as stack:
        one, other = (Tap(descriptor) for descriptor in cables(2, [], stack))
        for frame in (FRAME, FRAME[:60]):
            assert one.write([frame[:14], frame[14:]])
        for frame in (FRAME, FRAME[:60]):
            select.select([other], [], [], 5)
            assert bytes(other.read() or b"") == frame
        assert other.read() is one.read() is None


def test_a_single_port_has_a_cable_that_leads_nowhere() -> None:
    """The cable takes whatever a port sends, however much, and gives the port nothing."""
    with ExitStack() as stack:
        (descriptor,) = cables(1, [], stack)
        wire = Tap(descriptor)
        assert all(wire.write([FRAME]) for _ in range(1000))
        assert wire.read() is None
