"""What one migration left behind, as the analysis wants it: records, events, samples, figures."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, get_args

from harness.analysis.scheme import SchemeRecord
from harness.uapi.pci_regs import NO_ANSWER
from harness.uapi.vfio import DeviceState

Direction = Literal["round-trip", "to-guest", "from-guest"]
DIRECTIONS: tuple[Direction, ...] = get_args(Direction)
QUIESCE, QUIESCED = "quiesce", "quiesced"
"""Events of scheme ``inplace``: the step that is to stop the VF's DMA begins, and is over."""

NOT_TAKEN_UP = "vf not taken up"
"""An event: the guest's driver has not set up the VF of its destination in time."""

IN_PLACE = "in place"
"""An event: what was planned, {"quiesce", "when", "marking", "passes", "gap_s"}."""

MARKED, MARKING_REFUSED = "marked", "marking refused"

DIGESTED = "memory digested"
"""An event: digests of both memories were made, {"took_ms"}; the guest stood still meanwhile."""

MEMORY_COMPARED = "memory compared"
"""An event: what came of comparing both memories after the stop, in pages.

{"pages", "differ", "digest", "bytes_per_s"}: how many there are, how many are lost, and by which
digest that was seen, made how fast by the slower host; {"owned"}: pages that differ since the
hypervisor itself writes them, by the guest's own number in hex: what it has there.  Beside these
{"page_frames"}, the guest's numbers of the pages that are lost.

Where a device keeps a log, instead {"may_differ", "must_differ", "not_lost", "unexplained",
"writes", "late_writes", "close_writes"}: how many pages could differ by that log and by QEMU's
trace of its copies, how many had to, how many of these do not, the numbers of those that differ and
could not, how often the device wrote at all, how often after the stopped pass had begun, and how
often so close to that moment that it may have been before or after.

Where a device keeps a log and QEMU no trace, {"page_frames", "unexplained"}: of these "unexplained"
are the guest's numbers of lost pages that the device did not write since just before the migration.
"""

DEVICE_WROTE = "device's last write"
"""An event: the last write of the source's VF to the guest's memory, by the device's own log.

{"writes", "bytes", "misbehaved", "not_logged"}: how often the device wrote since the migration was
asked for, and how much, how often what it had no right to since somebody looked, and how many
accesses since then are not in the log.  Where these are any, the last write is not known.
"""

NOT_COMPARED = "memory not compared"
"""An event: why both memories could not be compared, though that was asked for."""

WRITES, LATE_WRITES, CLOSE_WRITES = "writes", "late_writes", "close_writes"
"""In the data of MEMORY_COMPARED where the device itself told when it wrote; see there."""

REFUSED = "refused"
"""A migration's status that is not QEMU's word: QEMU would not begin, and the guest runs on."""

MIGRATE_REFUSED = "migrate refused"
"""An event: that, with QEMU's own words as its text."""

VFIO_STATE = "vfio state "
"""What the name of an event begins with that is a VF's migration state."""

VFIO_STOPPED = tuple(
    VFIO_STATE + each.name
    for each in (DeviceState.STOP, DeviceState.STOP_COPY, DeviceState.RESUMING)
)
"""Events: a VF's migration state, as its host saw it, in which the device does no DMA.

Ref: <linux/vfio.h>, enum vfio_device_mig_state.  Of one in ERROR nobody knows.
"""

VFIO_RUNS = tuple(
    VFIO_STATE + each.name
    for each in (
        *(DeviceState.RUNNING, DeviceState.PRE_COPY),
        *(DeviceState.RUNNING_P2P, DeviceState.PRE_COPY_P2P),
    )
)
"""Events: one in which it does, if only to memory."""

FAULT, NO_FAULT = "fault put in", "fault not put in"
"""Events: the moment of a fault that a test has planned came, or it never came; {"text"}."""

CONFIG = "config"
"""What the source of an event begins with that is a change of a described register, named
``capability.field = VALUE``; {"vf", "offset", "was", "now", "via"}.  *offset* is that in
configuration space, *was* None where the register was seen for the first time."""

ECHOES = "echoes counted"
"""An event: what the guest's kernel got and sent while the flows ran, {"requests", "replies"}."""


@dataclass(frozen=True, slots=True)
class MeasuredFlow:
    """One flow's records, raw (the formats are ``harness.agent.records``').

    receiver_dropped  frames that the receiver's kernel dropped before we could read them
    backlog_dropped   packets of any kind that it dropped before it knew whose they were
    unsent            frames that were due and that the sender, by its own account, did not send
    clock_moved_ns    how far wall and monotonic clock of the receiver drifted apart meanwhile
    sender_notes      sentences of the sender on what was not as asked for
    """

    name: str
    direction: Direction
    frame_bytes: int
    rate_pps: float
    sent: bytes
    received: bytes
    receiver_dropped: int
    backlog_dropped: int = 0
    clock_moved_ns: int = 0
    unsent: int = 0
    sender_notes: tuple[str, ...] = ()

    @property
    def interval_ns(self) -> int:
        """Nominal time from one frame to the next."""
        return round(1e9 / self.rate_pps)


@dataclass(frozen=True, slots=True)
class Event:
    """One entry of the timeline; *t_ns* is the peer's monotonic clock.

    *gap_ns* is the part of *uncertainty_ns* for which nobody looked; the rest is the clocks'.
    """

    t_ns: int
    uncertainty_ns: int
    source: str
    name: str
    data: Mapping[str, Any] = field(default_factory=dict)
    gap_ns: int = 0


@dataclass(frozen=True, slots=True)
class BmeSample:
    """A VF's command register, read on *host*; *t_ns* is the peer's monotonic clock.

    Only changes are kept, plus the first and the last sample of each observer, and one that came
    more than ``harness.agent.bme.HOLE_NS`` after the one before.  A change happened
    before it was seen: *uncertainty_ns* covers the time since the sample before, which is *gap_ns*,
    and the clocks.  *via* says who told: VFIO or sysfs of the host, the device itself where it is
    a twin, or the monitor of the QEMU that emulates it.
    """

    t_ns: int
    uncertainty_ns: int
    host: str
    vf: str
    command: int
    bme: bool
    via: Literal["vfio", "sysfs", "device", "monitor"]
    gap_ns: int = 0

    @classmethod
    def of(cls, line: Mapping[str, Any], by_clocks_ns: int = 0) -> BmeSample:
        """An observer's *line*, its time in the peer's clock, give or take *by_clocks_ns*."""
        named = {name: line[name] for name in ("t_ns", "host", "vf", "command", "bme", "via")}
        return cls(uncertainty_ns=by_clocks_ns + line["gap_ns"], gap_ns=line["gap_ns"], **named)

    @property
    def gone(self) -> bool:
        """No function answered: the VF was not there any more."""
        return self.command == NO_ANSWER

    @property
    def masters(self) -> bool:
        """The VF is there and may do DMA."""
        return self.bme and not self.gone


@dataclass(frozen=True, slots=True)
class QemuFigures:
    """What QEMU itself said (``query-migrate``); None where it said nothing."""

    downtime_ms: float | None = None
    total_ms: float | None = None
    setup_ms: float | None = None
    transferred_bytes: int | None = None
    passes: int | None = None


@dataclass(frozen=True, slots=True)
class Measured:
    """One migration: *source* and *destination* are names of hosts, *status* is QEMU's word.

    It is REFUSED where QEMU would not begin.
    Every time is the peer's monotonic clock in ns; *asked_ns* is when ``migrate`` was asked for.
    *reason* is QEMU's own error text where there is one, *destination_state* the RunState of the
    destination's QEMU at the end; None where nobody asked.
    """

    scheme: SchemeRecord
    source: str
    destination: str
    status: str
    reason: str | None
    qemu: QemuFigures
    asked_ns: int
    events: tuple[Event, ...]
    bme: tuple[BmeSample, ...]
    flows: tuple[MeasuredFlow, ...]
    destination_state: str | None = None
