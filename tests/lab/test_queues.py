"""Two queues, where the guest's driver asks for two."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import pytest

from harness.guest.spec import GuestSpec
from harness.run.lab import Lab
from harness.run.moving import MovingGuest, moving_guest
from harness.run.verbs import MakeFlow

pytestmark = [
    pytest.mark.usefixtures("no_guest"),
    pytest.mark.jumbo,
    pytest.mark.about("receive queues"),
    pytest.mark.needs("two-hosts", "ixgbevf", "peer", "jumbo"),
]

UNHURRIED_PPS = 50
"""A guest that its emulator holds up for some 70 ms answers so few all the same."""

ADDRESSES = [f"198.18.0.{last}" for last in range(10, 42)]


def heads(guest: MovingGuest) -> list[int]:
    """Where the VF puts its next frame, in each receive queue that the driver has turned on."""
    assert guest.instance.vf is not None
    rings = guest.instance.vf.receive_rings(qemu_pid=guest.instance.pid)
    return [ring.head for ring in rings]


def test_a_guest_with_two_processors_receives_in_two_queues(
    lab: Lab, port_pair: Mapping[str, str], flow: MakeFlow, tmp_path: Path
) -> None:
    """The driver takes a queue for each processor; the port spreads addresses over them (RSS).

    Frames arrive whichever queue they take: only the device's own registers tell which.
    """
    spec = replace(GuestSpec.of(lab.topology.guest, standby=False), cpus=2)
    with moving_guest(lab, spec, tmp_path, vfs=1, ports=port_pair) as guest:
        records = guest.stay(flow(9014, rate_pps=UNHURRIED_PPS))
        assert records.receiver.received == records.sender.sent > 0
        before, ends = heads(guest), guest.ends()
        assert len(before) == 2
        interface, peer = ends.guest_end.interface, ends.peer_end.address
        for address in ADDRESSES:
            guest.machine.host.run("ip", "address", "add", f"{address}/24", "dev", interface)
            guest.machine.host.run("ping", "-c", "1", "-W", "2", "-I", address, peer)
        assert all(was != now for was, now in zip(before, heads(guest), strict=True))
