"""Frames torn or changed: every byte of each is known, so none can be, unseen."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from harness.analysis.expectation import Fail, Invalid
from harness.migration.scheme import Patience
from harness.migration.schemes.failover import Failover

if TYPE_CHECKING:
    from harness.run.lab import Lab
    from harness.run.moving import MovingGuest
    from harness.run.verbs import MakeFlow, Migrate

HEADER, CHECKSUM = 14, 4
ENOUGH = 20_000
"""Frames of 9014 bytes, both ways together, from before the unplug until after the replug."""

RATE_PPS = 100
"""Each way: sender and receiver are both in the guest, whose processor may be an emulated one."""

pytestmark = [pytest.mark.jumbo, pytest.mark.needs("two-hosts", "vf", "peer", "jumbo")]


@pytest.mark.nightly
@pytest.mark.failover
def test_no_frame_is_torn_or_changed_while_a_guest_moves(
    lab: Lab, guest: MovingGuest, migrate: Migrate, flow: MakeFlow
) -> None:
    """A 9K receive buffer is one piece: what is written to it twice, or half, would show here."""
    patient = Failover(patience=Patience(after_s=ENOUGH / (2 * RATE_PPS)))
    flows = [flow(9014, direction, RATE_PPS) for direction in ("to-guest", "from-guest")]
    moved = migrate(guest, *flows, by=patient, limits=replace(lab.limits, longest_outage_ms=None))
    assert sum(each.received for each in moved.migration.flows) >= ENOUGH, moved.why
    assert [each.corrupted for each in moved.migration.flows] == [0, 0], moved.why


@pytest.mark.parametrize("beyond", [-1, 0, 1, 5, None], ids=["-1", "mtu", "+1", "+5", "largest"])
def test_frames_at_the_boundary_arrive_as_the_device_says(
    lab: Lab, guest: MovingGuest, flow: MakeFlow, beyond: int | None
) -> None:
    """What is longer than the guest's MTU allows is not received at all, and nothing is cut off.

    A family that leaves room for a VLAN tag lets four bytes more in.  The largest frame of an 82599
    has 9728 bytes with its checksum, and 9724 without.
    """
    profile, mtu = lab.topology.vf_profile, guest.spec.mtu
    largest = min(profile.max_frame_bytes.value - CHECKSUM, lab.topology.wire_mtu + HEADER)
    frame_bytes = largest if beyond is None else mtu + HEADER + beyond
    if frame_bytes > largest:
        pytest.skip(f"{lab.topology.file}: its wire carries {largest} bytes, not {frame_bytes}")
    records = guest.stay(flow(frame_bytes, "to-guest"))
    sender, receiver = records.sender, records.receiver
    assert sender.sent > 0
    assert sender.unsent == 0, "the wire does not carry it: what the VF does is not known"
    takes = profile.vf_takes(frame_bytes, vf_mtu=mtu, port_mtu=mtu)  # its berth gives both the same
    assert (receiver.received > 0) == takes
    assert (receiver.corrupted, receiver.short) == (0, 0)


@pytest.mark.faults
@pytest.mark.about("bytes that change on the wire")
@pytest.mark.needs("wire")
def test_a_byte_that_changes_on_the_wire_is_found(
    lab: Lab, guest: MovingGuest, flow: MakeFlow
) -> None:
    """The last byte of each tenth frame: exactly those are counted, and the others are not."""
    from harness.lab.tampering import tampered

    with tampered(lab.topology, every=10) as tampering:
        records = guest.stay(flow(9014))
    assert tampering.changed > 0
    assert records.receiver.corrupted == tampering.changed
    assert set(records.receiver.wrong_at) == {9013}


@pytest.mark.faults
@pytest.mark.failover
@pytest.mark.about("bytes that change on the wire")
@pytest.mark.needs("wire")
def test_a_byte_that_changes_on_the_wire_fails_a_migration(
    lab: Lab, guest: MovingGuest, migrate: Migrate, flow: MakeFlow
) -> None:
    """Every frame arrives, and QEMU says `completed`: only the payload's own checksum tells."""
    from harness.lab.tampering import tampered

    with tampered(lab.topology, every=10):
        changed = Fail("frames arrived corrupted or short")
        moved = migrate(guest, flow(9014), by=Failover(), expect=changed)
    assert moved.migration.status == "completed", moved.why


@pytest.mark.nightly
@pytest.mark.faults
@pytest.mark.failover
def test_frames_that_our_own_receiver_drops_make_no_result(
    guest: MovingGuest, migrate: Migrate, flow: MakeFlow
) -> None:
    """They would be blamed on the migration."""
    dropping = replace(flow(9014), drop_every=50)
    migrate(guest, dropping, by=Failover(), expect=Invalid("our own receiver dropped"))
