"""One audit: a VF under traffic is stopped, looked at, and given back."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, field

from harness.analysis.audit_records import NOT_BACK, AuditRecords, Evidence, Moments
from harness.analysis.measured import BmeSample, MeasuredFlow
from harness.audit.evidence import RingPages, as_given
from harness.audit.ways import SUSPENDED_S, Subject, Way
from harness.errors import HarnessError, WaitError
from harness.guest.instance import Instance
from harness.guest.memory import GuestMemory
from harness.host.software_vf import Logged
from harness.host.vf import Observed
from harness.migration.clocks import SharedClock, read_clocks
from harness.migration.experiment import Ends, measured_flow
from harness.migration.raw import Raw
from harness.traffic.flow import Flow
from harness.traffic.running import RunningFlow
from harness.traffic.running import start as start_flow
from harness.waiting import Deadline, let_pass

SERVED_S = 10
SETTLE_S, SILENT_S = 4.0, 0.5
"""How long frames may go on to come in, and how long none must have come to call it over."""

LOOK_S = 1.5
APART_S = 0.1
"""Between the look and what gives the VF back: so much more than clocks and samples are off."""

BACK_S = {
    Way.DEVICE_SUSPEND: SUSPENDED_S + 7.0, Way.ACPI_SUSPEND: 15.0,
    Way.VFIO_RESET: 15.0, Way.SYSFS_RESET: 15.0,
}  # fmt: skip
"""How long frames are waited for: ixgbevf resets a VF that is wrong once in 10 s at most.

Ref: Linux, ixgbevf_watchdog_update_link().
"""
USUAL_BACK_S = 5.0


@dataclass(slots=True)
class _Notes:
    """What is noted meanwhile; times are of our own monotonic clock."""

    times: dict[str, int] = field(default_factory=dict)
    evidence: Evidence | None = None
    back: str = NOT_BACK
    trouble: str = ""

    def at(self, name: str) -> None:
        self.times[name] = time.monotonic_ns()


def audit(
    way: Way,
    instance: Instance,
    ends: Ends,
    flow: Flow,
    *,
    raw: Raw,
    log: Logged | None,
    bme_per_s: int,
    progress: Callable[[str], None],
) -> AuditRecords:
    """Stop the VF of a guest without a standby that way, under *flow*, and give it back.

    What goes wrong as it is given back is told in ``trouble``; *raw* gets what was said, also when
    this raises.  *log* is what the device writes down of its DMA.  Raises WaitError if the flow is
    not served before, and what stopping it raises.
    """
    subject = Subject.of(instance, ends.guest)
    host, notes = instance.host, _Notes()
    machines = (ends.peer, host)
    before = {machine.name: read_clocks(machine) for machine in machines}
    progress(f"stopping the VF on {host.name}: {way.value}")
    observation = subject.vf.observe(
        qemu_pid=instance.pid, rate_per_s=bme_per_s, path=host.scratch("audit.jsonl"),
        on_release=None, capabilities={},
    )  # fmt: skip
    seen: list[Observed] = []
    with ExitStack() as stack:
        stack.callback(raw.take, instance)
        stack.callback(lambda: seen.append(observation.stop()))
        running = stack.enter_context(start_flow(flow, ends.peer_end, ends.guest_end))
        running.wait_until_served(SERVED_S)
        _stop_and_look(way, subject, running, notes, log)
        _give_back(way, subject, running, notes)
        records = running.stop()
    clock = SharedClock(before, {m.name: read_clocks(m) for m in machines}, ends.peer.name)
    return _records(way, subject, notes, clock, seen[0], measured_flow(records))


def _records(
    way: Way,
    subject: Subject,
    notes: _Notes,
    clock: SharedClock,
    seen: Observed,
    flow: MeasuredFlow,
) -> AuditRecords:
    assert notes.evidence is not None  # it is there once the VF was looked at
    trigger = subject.instance.spec.trigger.value
    return AuditRecords(
        host=subject.vf.host.name,
        vf=subject.vf.name,
        way=way.value,
        trigger=trigger if way is Way.UNPLUG else None,
        driver=subject.inside.driver,
        own_memory_enable=subject.vf.has_memory_enable,
        moments=_moments(clock, notes),
        samples=_samples(clock, seen),
        flow=flow,
        evidence=notes.evidence,
        back=notes.back,
        trouble=notes.trouble,
    )


def _moments(clock: SharedClock, notes: _Notes) -> Moments:
    stamps = {name: clock.from_ours(t_ns) for name, t_ns in notes.times.items()}
    uncertainty_ns = max(stamp.uncertainty_ns for stamp in stamps.values())
    times = {name: stamp.t_ns for name, stamp in stamps.items()}
    return Moments(**times, uncertainty_ns=uncertainty_ns)


def _samples(clock: SharedClock, seen: Observed) -> tuple[BmeSample, ...]:
    stamped = ((line, clock.from_monotonic(str(line["host"]), line["t_ns"])) for line in seen.lines)
    samples = (BmeSample.of({**line, "t_ns": at.t_ns}, at.uncertainty_ns) for line, at in stamped)
    return tuple(sorted(samples, key=lambda sample: sample.t_ns))


def _stop_and_look(
    way: Way, subject: Subject, running: RunningFlow, notes: _Notes, log: Logged | None
) -> None:
    """Take the step, wait until it shows, and look at what the VF could write to, twice."""
    memory, pid = GuestMemory.of(subject.instance), subject.instance.pid
    earlier = RingPages.of(memory, subject.vf.receive_rings(qemu_pid=pid))
    notes.at("asked")
    subject.stop(way)
    notes.at("taken")
    _settle(running)
    rings = [] if way.frees_rings else subject.vf.receive_rings(qemu_pid=pid)
    pages = RingPages.of(memory, as_given(rings)) if rings else earlier
    notes.at("looked")
    first, accesses = pages.digests(), log.accesses if log else None
    let_pass(LOOK_S)
    newest = memory.newest_frame(running.flow.number)
    changed, accesses_now = pages.changed_since(first), log.accesses if log else None
    notes.at("looked_again")
    notes.evidence = Evidence(
        newest=newest,
        watched=len(pages.numbers),
        changed=changed,
        buffers=pages.buffers,
        has_rings=bool(rings),
        accesses=None if accesses is None else (accesses_now or 0) - accesses,
    )


def _settle(running: RunningFlow) -> None:
    """Return once no frame has come back for SILENT_S; or after SETTLE_S, if they go on."""
    deadline = Deadline(SETTLE_S)
    arrived, since = running.arrived, time.monotonic()
    while deadline.remaining and time.monotonic() - since < SILENT_S:
        let_pass(0.1)
        now = running.arrived
        if now != arrived:
            arrived, since = now, time.monotonic()


def _give_back(way: Way, subject: Subject, running: RunningFlow, notes: _Notes) -> None:
    """Take the step back, or have the driver begin anew; what fails of it is noted."""
    let_pass(APART_S)
    notes.at("taking_back")
    seconds = BACK_S.get(way, USUAL_BACK_S)
    try:
        how = subject.take_back(way)
        if _is_served(running, seconds):
            notes.back = how or "by itself"
            if way is Way.GUEST_RESET:
                subject.begin_anew()  # of what its driver wrote meanwhile some may be lost
            return
        notes.at("taking_back")
        subject.begin_anew()
        if _is_served(running, USUAL_BACK_S):
            notes.back = f"driver began anew ({how or 'waited'}, {seconds:g} s in vain)"
    except HarnessError as failed:
        notes.back, notes.trouble = NOT_BACK, f"{failed.what}; {failed.because}"


def _is_served(running: RunningFlow, seconds: float) -> bool:
    try:
        running.wait_until_served(seconds)
    except WaitError:
        return False
    return True
