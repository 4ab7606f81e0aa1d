"""Synthetic migrations for tests: planted outages in made-up flows.  Nothing here was measured.

The shape is that of a failover migration in the emulated lab: see ``failover``.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from ipaddress import IPv4Interface

import numpy as np

from harness.analysis.measured import (
    BmeSample,
    Direction,
    Event,
    Measured,
    MeasuredFlow,
    QemuFigures,
)
from harness.analysis.packets import RECEIVED, SENT
from harness.guest.spec import GuestSpec
from harness.migration.schemes.failover import Failover
from harness.migration.schemes.plain import Plain
from harness.migration.schemes.vfio import VfioMigration
from harness.topology import MacAddress

MS = 1_000_000
ASKED_NS = 5_000_000_000_000  # far from 0, as a monotonic clock is
VF = "0000:01:10.0"


@dataclass(frozen=True)
class Cut:
    """Frames sent from *start_ms* to before *end_ms* (from ``migrate asked``) do not arrive."""

    start_ms: float
    end_ms: float


def flow(
    *,
    name: str = "jumbo",
    direction: Direction = "round-trip",
    rate_pps: float = 200,
    starts_ms: float = -1000,
    ends_ms: float = 9000,
    cuts: Sequence[Cut] = (),
    lost: Iterable[int] = (),
    duplicated: Iterable[int] = (),
    corrupted: Iterable[int] = (),
    delayed_ms: dict[int, float] | None = None,
    late_ms: dict[int, float] | None = None,
    jitter_ms: float = 0.0,
    delay_ms: float = 1.0,
    frame_bytes: int = 9014,
    receiver_dropped: int = 0,
    seed: int = 1,
) -> MeasuredFlow:
    """Make a flow in which exactly the frames in *cuts* and *lost* (numbers) go missing.

    *delayed_ms* and *late_ms* delay a frame's arrival and its sending, by its number.
    """
    random = np.random.default_rng(seed)
    interval = round(1e9 / rate_pps)
    count = int((ends_ms - starts_ms) * MS) // interval
    sequence = np.arange(count, dtype="int64")
    scheduled = ASKED_NS + round(starts_ms * MS) + sequence * interval
    sent = scheduled + (random.random(count) * jitter_ms * MS).astype("int64")
    for number, late in (late_ms or {}).items():
        sent[number] += round(late * MS)
    arrival = sent + round(delay_ms * MS) + (random.random(count) * 0.4 * MS).astype("int64")
    for number, delay in (delayed_ms or {}).items():
        arrival[number] += round(delay * MS)
    gone = np.isin(sequence, list(lost))
    for cut in cuts:
        since, until = (ASKED_NS + round(t * MS) for t in (cut.start_ms, cut.end_ms))
        gone |= (sent >= since) & (sent < until)
    arrived = np.concatenate([sequence[~gone], np.array(list(duplicated), dtype="int64")])
    flags = np.isin(arrived, list(corrupted)).astype("uint32")
    return MeasuredFlow(
        name=name,
        direction=direction,
        frame_bytes=frame_bytes,
        rate_pps=rate_pps,
        sent=sent_record(sequence, scheduled, sent),
        received=received_record(arrived, flags, sent[arrived], arrival[arrived]),
        receiver_dropped=receiver_dropped,
    )


def sent_record(
    sequence: Sequence[int] | np.ndarray,
    scheduled_ns: Sequence[int] | np.ndarray,
    sent_ns: Sequence[int] | np.ndarray,
) -> bytes:
    record = np.zeros(len(sequence), dtype=SENT)
    record["sequence"], record["scheduled_ns"], record["sent_ns"] = sequence, scheduled_ns, sent_ns
    return record.tobytes()


def received_record(
    sequence: Sequence[int] | np.ndarray,
    flags: Sequence[int] | np.ndarray,
    sent_ns: Sequence[int] | np.ndarray,
    received_ns: Sequence[int] | np.ndarray,
) -> bytes:
    """Pack arrivals as the receiver writes them: in the order in which they arrived."""
    record = np.zeros(len(sequence), dtype=RECEIVED)
    record["sequence"], record["flags"] = sequence, flags
    record["sent_ns"], record["received_ns"] = sent_ns, received_ns
    return record[np.argsort(record["received_ns"], kind="stable")].tobytes()


def event(
    t_ms: float, source: str, name: str, uncertainty_ms: float = 0.4, **data: object
) -> Event:
    return Event(ASKED_NS + round(t_ms * MS), round(uncertainty_ms * MS), source, name, data)


def bme(
    t_ms: float, host: str, command: int, vf: str = VF, uncertainty_ms: float = 0.4
) -> BmeSample:
    return BmeSample(
        t_ns=ASKED_NS + round(t_ms * MS),
        uncertainty_ns=round(uncertainty_ms * MS),
        host=host,
        vf=vf,
        command=command,
        bme=bool(command & 4),
        via="vfio",
    )


FAILOVER_EVENTS = (
    event(0, "conductor", "migrate asked", 0),
    event(1, "qmp:alder", "MIGRATION setup"),
    event(3, "qmp:birch", "MIGRATION active"),
    event(25, "qmp:alder", "UNPLUG_PRIMARY", device="vf0"),
    event(46, "qmp:alder", "MIGRATION wait-unplug"),
    event(270, "guest", "eth2 link down", 2.0, slave=True),
    event(280, "conductor", "vf released"),
    event(284, "guest", "eth2 gone", 2.0, slave=True),
    event(297, "qmp:alder", "MIGRATION active"),
    event(301, "handoff:alder", "filter cleared", port="p0", vf_index=0),
    event(298, "qmp:alder", "MIGRATION_PASS 1"),
    event(3900, "qmp:alder", "MIGRATION_PASS 2"),
    event(4523, "qmp:alder", "STOP"),
    event(4526, "qmp:alder", "MIGRATION device"),
    event(4740, "qmp:alder", "MIGRATION completed"),
    event(5360, "qmp:birch", "FAILOVER_NEGOTIATED"),
    event(6390, "handoff:birch", "filter set", vf="0000:01:10.0"),
    event(6418, "qmp:birch", "RESUME"),
    event(6420, "qmp:birch", "MIGRATION completed"),
    event(6640, "guest", "eth2 there", 2.0, slave=True),
    event(6980, "guest", "eth2 link up", 2.0, slave=True),
    event(6980, "conductor", "vf attached", 2.0),
)

GUEST = GuestSpec(
    memory_mib=256, cpus=1, mac=MacAddress("52:54:00:12:34:56"),
    address=IPv4Interface("198.18.0.2/24"), mtu=9000,
)  # fmt: skip
FAILOVER = Failover().record(GUEST)
RECORDS = {
    "failover": FAILOVER,
    "inplace": replace(VfioMigration().record(GUEST), trigger="acpi"),
    "plain": Plain().record(GUEST),
}

FAILOVER_BME = (
    bme(-900, "alder", 0x0507),
    bme(262, "alder", 0x0107),
    bme(274, "alder", 0x0103),
    bme(430, "alder", 0xFFFF),
    bme(5100, "birch", 0x0400),
    bme(6702, "birch", 0x0406),
    bme(8800, "birch", 0x0406),
)

FAILOVER_CUTS = (Cut(279, 345), Cut(4521, 6423), Cut(6720, 6735), Cut(6800, 6845), Cut(6981, 7006))


QEMUS_WORDS = "0000:01:10.0: VFIO migration is not supported in kernel"


def refused(*flows: MeasuredFlow, events: Sequence[Event] = ()) -> Measured:
    """Make a migration with its VF that QEMU would not begin; nothing happens but *events*."""
    return failover(
        scheme="inplace",
        status="refused",
        reason=QEMUS_WORDS,
        downtime_ms=None,
        events=[
            event(0, "conductor", "migrate asked", 0),
            event(16, "conductor", "migrate refused", text=QEMUS_WORDS),
            *events,
        ],
        bme=[bme(-900, "alder", 0x0507), bme(8800, "alder", 0x0507)],
        flows=flows or [flow()],
    )


def failover(
    *,
    flows: Sequence[MeasuredFlow] | None = None,
    events: Sequence[Event] = FAILOVER_EVENTS,
    bme: Sequence[BmeSample] = FAILOVER_BME,
    scheme: str = "failover",
    status: str = "completed",
    reason: str | None = None,
    downtime_ms: float | None = 224,
) -> Measured:
    """Make a failover migration from alder to birch with five planted outages."""
    return Measured(
        scheme=RECORDS[scheme],
        source="alder",
        destination="birch",
        status=status,
        reason=reason,
        qemu=QemuFigures(downtime_ms, 4740, 296, 271_000_000, 2),
        asked_ns=ASKED_NS,
        events=tuple(events),
        bme=tuple(bme),
        flows=tuple(flows) if flows is not None else (flow(cuts=FAILOVER_CUTS),),
    )
