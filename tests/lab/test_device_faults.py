"""VFs in software that misbehave on purpose: each fault must turn one of our checks red."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from harness.audit.ways import Way
from harness.errors import MigrationError, WaitError
from harness.guest.faults import refuse_sleep
from harness.host.software_vf import misbehaving
from harness.lab.chip_vf import chip_vf
from harness.migration import quiescing
from harness.traffic.running import start
from harness.waiting import let_pass, wait_for

if TYPE_CHECKING:
    from harness.remote import Host
    from harness.run.lab import Lab
    from harness.run.moving import MovingGuest
    from harness.run.verbs import MakeFlow, StopVf

pytestmark = [
    *(pytest.mark.faults, pytest.mark.about("VFs that misbehave")),
    pytest.mark.needs("two-hosts", "software-vf", "peer", "jumbo"),
]


def test_a_frame_that_is_changed_in_memory_is_counted_as_corrupted(
    lab: Lab, staying_guest: MovingGuest, flow: MakeFlow
) -> None:
    """Nothing on the wire was wrong: only the payload's own checksum can tell."""
    with misbehaving(lab.device(staying_guest.instance.vf), corrupts=3):
        records = staying_guest.stay(flow(9014, "to-guest"))
    assert records.receiver.corrupted == 3
    assert staying_guest.stay(flow(9014, "to-guest")).receiver.corrupted == 0


@pytest.mark.nightly
def test_a_lost_interrupt_is_an_outage(
    lab: Lab, staying_guest: MovingGuest, flow: MakeFlow
) -> None:
    """The queue's vector stays masked until its driver has been there: one loss stops it."""
    assert staying_guest.stay(flow(64)).receiver.received > 0
    ends, device = staying_guest.ends(), lab.device(staying_guest.instance.vf)
    try:
        with start(flow(64), ends.peer_end, ends.guest_end) as running, misbehaving(device):
            running.wait_until_served(5)
            device.misbehave(loses=1)
            let_pass(0.5)  # what arrived before that is written by then
            with pytest.raises(WaitError, match="frames of flow round-trip-64 to arrive"):
                running.wait_until_served(1)
    finally:
        staying_guest.replace("its VF has lost an interrupt")


@pytest.mark.nightly
@pytest.mark.parametrize("fault", [{"ignores_bme": True}, {"late_ms": 1000}], ids=["on", "late"])
def test_a_device_that_is_not_silent_without_bme_fails_its_audit(
    lab: Lab,
    staying_guest: MovingGuest,
    audit: StopVf,
    fault: dict[str, object],
) -> None:
    """The VF's register reads that it may not write, and the memory under its rings changes."""
    with misbehaving(lab.device(staying_guest.instance.vf), **fault):
        found = audit(staying_guest, Way.BME_CLEARED)
    assert not found.is_master
    assert found.evidence.accesses
    assert len(found.faults) == 1, found


@pytest.mark.nightly
def test_a_guest_that_will_not_sleep_says_why(
    staying_guest: MovingGuest, audit: StopVf, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A device that is busy refuses, and QEMU is told nothing: only the guest knows."""
    monkeypatch.setattr(quiescing, "ASLEEP_SECONDS", 3)
    refuse_sleep(staying_guest.machine)
    with pytest.raises(MigrationError, match="did not fall asleep within 3 s") as awake:
        audit(staying_guest, Way.ACPI_SUSPEND)
    assert "Read-only file system" in awake.value.because


@pytest.mark.nightly
@pytest.mark.needs("82599")
@pytest.mark.about("frames that wait for a link")
def test_a_port_that_loses_its_link_under_traffic_is_reset(
    lab: Lab, staying_guest: MovingGuest, flow: MakeFlow
) -> None:
    """Ixgbe resets the port, since the VF has frames that wait; the VF then starts anew.

    Ref: Linux, ixgbe_watchdog_flush_tx.
    """
    ends, host = staying_guest.ends(), staying_guest.instance.host
    vf = staying_guest.instance.vf
    device = vf and chip_vf(lab.topology, vf)
    assert device
    with start(flow(64, "from-guest"), ends.peer_end, ends.guest_end) as running:
        running.wait_until_served(5)
        before = _flushes(host)
        device.set_link(False)
        try:
            wait_for(
                "the driver to reset the port", lambda: _flushes(host), within=20,
                until=lambda now: now > before,
            )  # fmt: skip
        finally:
            device.set_link(True)
        running.wait_until_served(30)


def _flushes(host: Host) -> int:
    return host.run("dmesg").stdout.count("initiating reset to clear Tx work after link loss")
