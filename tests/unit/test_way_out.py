"""The harness cuts the peer's way out on a real wire, mends it, and puts the interface back."""

from __future__ import annotations

import json
import os
import shutil
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from machines import local_host
from wire import Wire, laid

from harness.errors import LabError
from harness.host.way_out import WayOut, way_out
from harness.remote import Host
from harness.traffic.flow import Flow
from harness.traffic.running import start
from harness.waiting import let_pass

pytestmark = pytest.mark.skipif(
    os.geteuid() != 0 or shutil.which("tc") is None,
    reason="needs root and iproute2: it makes network namespaces",
)


@pytest.fixture
def wire(tmp_path: Path) -> Iterator[Wire]:
    with laid(tmp_path) as wire:
        yield wire


@pytest.fixture
def peer(wire: Wire, tmp_path: Path) -> Iterator[Host]:
    """Yield the near end of the wire as a host that is lent to us."""
    with local_host(tmp_path / "peer", namespace=wire.near.name) as host:
        host.lease.take("a test", 60)
        yield host


def root_queue(wire: Wire) -> str:
    """Name the queueing discipline that the peer's interface has now."""
    shown = json.loads(wire.near.run("tc", "-json", "qdisc", "show", "dev", "near"))
    return str(next(queue["kind"] for queue in shown if queue.get("root")))


def test_a_cut_drops_what_is_sent_and_its_sender_is_told_nothing(wire: Wire, peer: Host) -> None:
    """A sender that is refused would count frames as unsent, and no outage would be seen."""
    flow = Flow("cut", "round-trip", 64, 500, 7)
    with way_out(peer, "near") as way, start(flow, wire.peer, wire.guest) as running:
        running.wait_until_served(5)
        began = time.monotonic()
        way.cut()
        let_pass(0.2)
        way.mend()
        took_s = time.monotonic() - began
        running.wait_until_served(5)
        records = running.stop()
    assert (records.sender.unsent, records.receiver.corrupted) == (0, 0)
    lost = records.sender.sent - records.receiver.received
    assert 0.2 * 500 - 5 <= lost <= took_s * 500 + 5


def test_an_interface_has_the_kernels_own_queue_before_and_after(wire: Wire, peer: Host) -> None:
    """The harness puts the queue back after an error too, and where the way is still cut."""
    before = root_queue(wire)

    def fail_while_it_is_cut() -> None:
        with way_out(peer, "near") as way:
            way.cut()
            assert root_queue(wire) == "blackhole"
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail_while_it_is_cut()
    assert root_queue(wire) == before
    assert peer.pending() == []


def test_what_is_put_back_twice_does_no_harm(wire: Wire, peer: Host) -> None:
    """A host that was cut off puts itself back, and whoever lent it may do so again."""
    with way_out(peer, "near"):
        (entry,) = peer.pending()
        peer.run(*entry["undo"]["argv"])
    assert peer.pending() == []
    assert root_queue(wire) == "noqueue"


def test_a_queue_that_somebody_set_up_is_not_touched(wire: Wire, peer: Host) -> None:
    """The harness could not put back a queue that somebody shaped for another experiment."""
    wire.near.run("tc", "qdisc", "add", "dev", "near", "root", "pfifo", "limit", "7")
    with (
        pytest.raises(LabError, match="near has a queue that somebody set up, pfifo"),
        way_out(peer, "near"),
    ):
        pytest.fail("it was replaced")
    assert "limit 7p" in wire.near.run("tc", "qdisc", "show", "dev", "near")


def test_a_way_that_was_never_cut_is_open(wire: Wire, peer: Host) -> None:
    """The harness prepares a queue in which no frame is lost until the way is cut."""
    flow = Flow("open", "round-trip", 9014, 500, 8)
    with way_out(peer, "near") as way, start(flow, wire.peer, wire.guest) as running:
        assert isinstance(way, WayOut)
        let_pass(0.3)
        records = running.stop()
    assert records.receiver.received == records.sender.sent > 0
