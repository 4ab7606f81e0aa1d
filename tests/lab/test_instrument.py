"""The harness itself under test: against a known outage, and against somebody else's program."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from harness.analysis.expectation import Fail
from harness.guest.faults import panic_at_next_vf, panic_without_vf
from harness.host.way_out import way_out
from harness.migration.scheme import Patience
from harness.migration.schemes.failover import Failover
from harness.run.known_cut import cut_under
from harness.topology import PEER
from harness.waiting import wait_for

if TYPE_CHECKING:
    from harness.run.lab import Lab
    from harness.run.moving import MovingGuest
    from harness.run.record import Case
    from harness.run.verbs import MakeFlow, Migrate

ONE_CONNECTION_KIB = 8 << 10
"""What sshd and the relay behind it take in a guest, or somewhat less."""

pytestmark = pytest.mark.needs("two-hosts", "vf", "peer")


@pytest.mark.downtime
@pytest.mark.parametrize("frame_bytes", [64, pytest.param(9014, marks=pytest.mark.jumbo)])
@pytest.mark.parametrize("cut_ms", [100, 500, 2000])
def test_a_wire_cut_for_a_known_time_is_an_outage_of_that_length(
    lab: Lab, guest: MovingGuest, flow: MakeFlow, frame_bytes: int, cut_ms: int
) -> None:
    """The instrument's own error: two send intervals, and how exactly the cut itself is known.

    An analysis that multiplied lost frames by an interval, or that began to count at the wrong
    frame, is off by more.  The way is cut where every lab has it, at the peer's own end.
    """
    assert lab.topology.peer is not None
    with way_out(lab.peer, lab.topology.peer.interface) as way:
        cut = cut_under(way, guest, flow(frame_bytes), milliseconds=cut_ms)
    assert cut.longest_ms == pytest.approx(cut.known_ms, abs=2 * cut.interval_ms + cut.doubt_ms)


@pytest.mark.downtime
@pytest.mark.about("a cut of the wire itself")
@pytest.mark.needs("wire")
def test_it_is_the_same_outage_wherever_the_wire_is_cut(
    lab: Lab, guest: MovingGuest, flow: MakeFlow
) -> None:
    """The peer's own end is a part of the instrument; in the middle of the wire it has no part."""
    from harness.lab.emulated import wire_of
    from harness.lab.wire import WireEnd

    wire = WireEnd(wire_of(lab.topology), PEER)
    cut = cut_under(wire, guest, flow(64), milliseconds=500)
    assert cut.longest_ms == pytest.approx(cut.known_ms, abs=2 * cut.interval_ms + cut.doubt_ms)


@pytest.mark.failover
@pytest.mark.nightly
def test_a_guest_that_moves_keeps_its_memory(
    guest: MovingGuest, migrate: Migrate, flow: MakeFlow
) -> None:
    """Each connection to it ends in the QEMU that it leaves, and must not stay behind inside.

    One takes 9 MB: after a dozen moves a small guest killed the agent for want of memory.
    """
    before_kib = guest.machine.available_kib
    for _ in range(2):
        migrate(guest, flow(64), by=Failover()).conducted.outcome.check()
    wait_for(
        "the guest to have its memory back",
        lambda: before_kib - guest.machine.available_kib,
        within=20,
        every_s=1,
        until=lambda lost_kib: lost_kib < ONE_CONNECTION_KIB,
    )


@pytest.mark.nightly
@pytest.mark.failover
@pytest.mark.faults
@pytest.mark.parametrize(
    ("ends", "state"),
    [pytest.param(False, "running", id="hangs"), pytest.param(True, "gone", id="ends")],
)
def test_a_guest_that_panics_at_its_destination_is_measured_and_replaced(
    guest: MovingGuest,
    migrate: Migrate,
    flow: MakeFlow,
    case: Case,
    ends: bool,
    state: str,
) -> None:
    """It finds its new VF and is lost.  Its users never come back; those of the next are served."""
    panic_at_next_vf(guest.machine, ends=ends)
    hasty = Failover(patience=Patience(served_s=3))
    lost = migrate(guest, flow(64), by=hasty, tries=1, expect=Fail("it never came back"))
    assert lost.conducted.outcome.destination_state == state
    assert lost.migration.flows[0].longest_outage_ms is None, "it came back"
    assert "guest not reached: " in lost.why
    assert "Kernel panic" in (case.folder / "console.log").read_text()
    migrate(guest, flow(64), by=Failover())


@pytest.mark.failover
@pytest.mark.faults
@pytest.mark.nightly
def test_a_guest_that_its_lab_loses_is_measured_by_another(
    guest: MovingGuest,
    migrate: Migrate,
    flow: MakeFlow,
    case: Case,
) -> None:
    """An emulator that loses one of a hundred must not make a red test; both are in the report."""
    panic_at_next_vf(guest.machine, ends=False)
    hasty = Failover(patience=Patience(attach_s=5, served_s=3))
    migrate(guest, flow(64), by=hasty, tries=2)
    assert [each.verdict.word for each in case.moved] == ["fail", "pass"]


@pytest.mark.failover
@pytest.mark.faults
@pytest.mark.nightly
def test_a_guest_that_its_lab_loses_at_its_source_is_measured_by_another(
    guest: MovingGuest, migrate: Migrate, flow: MakeFlow, case: Case
) -> None:
    """It took its QEMU with it before it had moved; what was seen of that is in the report."""
    panic_without_vf(guest.machine)
    migrate(guest, flow(64), by=Failover(), tries=2)
    lost = case.moved[0]
    assert (lost.verdict.word, lost.conducted.outcome.source_state) == ("fail", "gone")
    assert "the guest has ended at its source" in lost.why
    assert lost.migration.flows[0].longest_outage_ms is None, "it came back"


@pytest.mark.failover
@pytest.mark.faults
@pytest.mark.nightly
def test_a_guest_that_ends_with_its_record_is_measured_by_another(
    guest: MovingGuest, migrate: Migrate, flow: MakeFlow, case: Case
) -> None:
    """What it sent is not known any more: that try has no row, and its logs are kept."""
    panic_without_vf(guest.machine)
    migrate(guest, flow(64, "from-guest"), by=Failover(), tries=2)
    assert len(case.moved) == 1
    assert list(case.folder.glob("*-broken-1.*"))


@pytest.mark.nightly
@pytest.mark.failover
@pytest.mark.jumbo
@pytest.mark.about("huge pages")
@pytest.mark.needs("sriov")  # a twin's guest has its memory in a file, which others map
def test_all_memory_of_a_guest_that_moved_is_in_huge_pages(
    guest: MovingGuest, migrate: Migrate, flow: MakeFlow
) -> None:
    """The emulated port drops a frame to send that lies on pages that are no neighbours here.

    Then 9014-byte frames were lost for seconds, or for good, where short ones came through.
    """
    migrate(guest, flow(9014), by=Failover()).conducted.outcome.check()
    assert guest.instance.huge_pages_kib >= guest.spec.memory_mib << 10


@pytest.mark.failover
@pytest.mark.jumbo
@pytest.mark.about("a capture on the wire")
@pytest.mark.needs("wire")
def test_an_independent_capture_counts_the_same_frames(
    lab: Lab,
    guest: MovingGuest,
    migrate: Migrate,
    flow: MakeFlow,
    case: Case,
) -> None:
    """On the bridge, tcpdump sees each request that we say was sent and each reply that returned.

    A sender that claims frames it never sent, or a receiver that misses what came back, would
    blame the migration for it.
    """
    from harness.lab.capture import captured
    from harness.report.words import lost_by_way

    assert lab.topology.peer is not None
    peer = lab.topology.peer.address.ip
    with captured(lab.topology, case.folder / "wire.pcap") as captures:
        moved = migrate(guest, flow(9014), by=Failover())
    (capture,), (counted,) = captures, moved.migration.flows
    assert capture.dropped == 0
    assert capture.count(f"icmp[icmptype] == icmp-echo and src {peer}") == counted.sent
    assert capture.count(f"icmp[icmptype] == icmp-echoreply and dst {peer}") == counted.received
    assert lost_by_way(moved.migration) is not None, "the guest counted others"
    if "dma-log" in lab.topology.offered:
        assert moved.device_log, moved.why
        assert list(case.folder.glob("**/dma*.parquet")), "the device's log is kept"
