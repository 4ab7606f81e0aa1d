"""Everything seen during a migration, in the peer's clock, each entry with its uncertainty."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from harness.analysis.marks import ASKED, ATTACHED, RELEASED, STOPPING
from harness.analysis.measured import CONFIG, DEVICE_WROTE, ECHOES, BmeSample, Event
from harness.analysis.memory import DOUBT_NS
from harness.guest.instance import Instance
from harness.migration.clocks import SharedClock, Stamp
from harness.migration.handoff import HandOff
from harness.migration.move import Move
from harness.migration.outcome import Outcome
from harness.migration.watch import Seen

CONDUCTOR = "conductor"
_NS_PER_MS = 1_000_000


@dataclass(frozen=True, slots=True)
class Timeline:
    """Events and BME samples in order of time; *asked_ns* is when ``migrate`` was sent."""

    asked_ns: int
    events: tuple[Event, ...]
    bme: tuple[BmeSample, ...]


def build(
    clock: SharedClock,
    outcome: Outcome,
    move: Move,
    seen: Sequence[Seen],
    *,
    since: int,
) -> Timeline:
    """Put what QEMU, observers, guest and hand-off said of *move* on one timeline.

    *since* is the number of the first event of the source's QEMU that belongs there: those before
    are of the migration that brought the guest to it, or of one that failed.
    """
    asked = clock.from_ours(outcome.asked_ns)
    events = [_event(asked, CONDUCTOR, ASKED)]
    events += [
        _event(clock.from_ours(note.t_ns), CONDUCTOR, note.name, {"text": note.text, **note.data})
        for note in outcome.notes
    ]
    events += _qmp_events(clock, move.source, since)
    events += _stopping(events, outcome)
    events += _qmp_events(clock, move.successor)
    bme = [sample for each in seen for sample in _bme_samples(clock, each)]
    events += _register_events(clock, seen)
    events += _hand_off_events(clock, seen, move.hand_off)
    events += _vfio_states(clock, seen)
    events += _kernel_faults(clock, seen)
    events += _device_writes(clock, seen, asked)
    stopped = next((_stamp(event) for event in events if event.name == "STOP"), None)
    events += _link_events(clock, seen, move.guest.name, stopped)
    events += _released(bme, move.source.host.name, asked.t_ns)
    events += _attached(events, stopped)
    events += [
        _event(clock.from_ours(each.echoes_ns), "guest", ECHOES, each.echoes)
        for each in seen
        if each.echoes
    ]
    return Timeline(
        asked.t_ns,
        tuple(sorted(events, key=lambda event: event.t_ns)),
        tuple(sorted(bme, key=lambda sample: sample.t_ns)),
    )


def _event(stamp: Stamp, source: str, name: str, data: Mapping[str, Any] | None = None) -> Event:
    return Event(stamp.t_ns, stamp.uncertainty_ns, source, name, data or {})


def _stamp(event: Event) -> Stamp:
    return Stamp(event.t_ns, event.uncertainty_ns)


def _qmp_events(clock: SharedClock, instance: Instance, since: int = 0) -> list[Event]:
    host = instance.host.name
    return [
        _event(clock.from_wall(host, each.realtime_ns), f"qmp:{host}", each.title, each.data)
        for each in instance.qmp.events[since:]
    ]


def _bme_samples(clock: SharedClock, seen: Seen) -> Iterable[BmeSample]:
    """A change happened after the sample before the one that showed it."""
    for line in seen.bme:
        stamp = clock.from_monotonic(seen.machine, line["t_ns"])
        yield BmeSample.of({**line, "t_ns": stamp.t_ns}, stamp.uncertainty_ns)


def _register_events(clock: SharedClock, seen: Sequence[Seen]) -> Iterator[Event]:
    """A register changed after it was read before, as BME does."""
    for each in seen:
        for change in each.registers:
            stamp = clock.from_monotonic(each.machine, change.t_ns)
            yield Event(
                t_ns=stamp.t_ns,
                uncertainty_ns=stamp.uncertainty_ns + change.gap_ns,
                source=f"{CONFIG}:{each.machine}",
                name=change.name,
                data={
                    name: getattr(change, name) for name in ("vf", "offset", "was", "now", "via")
                },
                gap_ns=change.gap_ns,
            )


def _hand_off_events(
    clock: SharedClock, seen: Sequence[Seen], hand_off: HandOff | None
) -> list[Event]:
    events = []
    for each in seen:
        for line in each.handoff:
            stamp = clock.from_monotonic(each.machine, line["t_ns"])
            name = f"{line['name']}: refused" if "error" in line["data"] else line["name"]
            events.append(_event(stamp, f"handoff:{each.machine}", name, line["data"]))
    for step in hand_off.steps if hand_off else ():
        # Done somewhere between our asking and the answer, when nobody looked.
        half_ns = step.took_ns // 2
        at, where = clock.from_ours(step.t_ns - half_ns, half_ns), f"handoff:{step.host}"
        done = Event(at.t_ns, at.uncertainty_ns, where, step.name, step.data, gap_ns=half_ns)
        events.append(done)
    return events


def _vfio_states(clock: SharedClock, seen: Sequence[Seen]) -> list[Event]:
    """A VF's migration states; as with BME, a change came after the sample before."""
    events = []
    for each in seen:
        for line in each.states:
            stamp, gap_ns = clock.from_monotonic(each.machine, line["t_ns"]), line["data"]["gap_ns"]
            known = (stamp.t_ns, stamp.uncertainty_ns + gap_ns, f"vfio:{each.machine}")
            events.append(Event(*known, line["name"], line["data"], gap_ns))
    return events


def _kernel_faults(clock: SharedClock, seen: Sequence[Seen]) -> list[Event]:
    return [
        _event(
            clock.from_monotonic(each.machine, fault["t_ns"]),
            f"kernel:{each.machine}",
            "kernel fault",
            {"text": fault["text"]},
        )
        for each in seen
        for fault in each.kernel.get("faults", ())
    ]


def _device_writes(clock: SharedClock, seen: Sequence[Seen], asked: Stamp) -> Iterator[Event]:
    """The last write of each device that keeps a log, with what it wrote since *asked*."""
    for each in seen:
        if each.dma is None:
            continue
        writes, stamp = each.dma[each.dma["writes"]], asked
        misbehaved = int(writes["misbehaved"].sum())
        if len(writes):
            last_ns = int(writes["t_ns"].max())
            last = clock.from_monotonic(each.dma_clock, last_ns)
            stamp = Stamp(last.t_ns, last.uncertainty_ns + DOUBT_NS)
            writes = writes[writes["t_ns"] - last_ns >= asked.t_ns - last.t_ns]
        elif not each.dma.attrs["missed"]:
            continue
        data = {
            "writes": len(writes),
            "bytes": int(writes["length"].sum()),
            "misbehaved": misbehaved,
            "not_logged": each.dma.attrs["missed"],
        }
        yield _event(stamp, f"dma:{each.machine}", DEVICE_WROTE, data)


def _link_events(
    clock: SharedClock, seen: Sequence[Seen], guest: str, stopped: Stamp | None
) -> list[Event]:
    """Interfaces of the guest coming, going, getting and losing their link."""
    events = []
    for each in seen:
        running: dict[int, bool] = {}
        for line in each.links:
            now = line["event"] != "del" and bool(line["running"])
            before = running.get(line["index"])
            running[line["index"]] = now
            if line["event"] == "del":
                del running[line["index"]]
            if line["event"] == "was" or (before == now and line["event"] != "del"):
                continue
            stamp = clock.from_guest(guest, line["t_ns"], stopped)
            name = _link_name(line["event"], before, now=now)
            data = {"address": line["address"], "slave": line["master"] is not None}
            events.append(_event(stamp, "guest", f"{line['ifname']} {name}", data))
    return events


def _link_name(event: str, before: bool | None, *, now: bool) -> str:
    if event == "del":
        return "gone"
    if before is None:
        return "there with link" if now else "there"
    return "link up" if now else "link down"


def _stopping(source_events: Iterable[Event], outcome: Outcome) -> list[Event]:
    """When the source's QEMU began to stop the guest, reckoned back from its end by its downtime.

    Ref: QEMU, migration/migration.c: migration_stop_vm() notes the downtime's start, in ms, and
    stops the virtual CPUs after that; its event STOP comes when they stand.  Where QEMU reckons
    the downtime's end only after it announced that it completed, this would be too early; it is
    never before the last pass that was announced ahead of STOP.
    """
    downtime_ms = outcome.figures.get("downtime")
    when = {each.name: each for each in source_events}  # of several, the last
    end, stop = when.get("MIGRATION completed"), when.get("STOP")
    if downtime_ms is None or end is None or stop is None:
        return []
    passes = [e.t_ns for e in source_events if e.name == "MIGRATION_PASS" and e.t_ns < stop.t_ns]
    t_ns = max([end.t_ns - int(downtime_ms) * _NS_PER_MS, *passes])
    return [Event(t_ns, end.uncertainty_ns + _NS_PER_MS, CONDUCTOR, STOPPING)]


def _released(bme: Iterable[BmeSample], source: str, asked_ns: int) -> list[Event]:
    """When BME on the source was first seen clear, or the VF gone, after *asked_ns*."""
    for sample in sorted(bme, key=lambda sample: sample.t_ns):
        if sample.host == source and sample.t_ns > asked_ns and not sample.masters:
            data = {"vf": sample.vf, "command": sample.command, "via": sample.via}
            seen = (sample.t_ns, sample.uncertainty_ns, CONDUCTOR, RELEASED, data, sample.gap_ns)
            return [Event(*seen)]
    return []


def _attached(events: Iterable[Event], stopped: Stamp | None) -> list[Event]:
    """When an interface of the guest's failover pair got the link that it then kept.

    A VF's link flickers while its driver starts: only what lasts takes the traffic over.
    """
    attached: list[Event] = []
    for event in sorted(events, key=lambda event: event.t_ns):
        if stopped is None or event.t_ns <= stopped.t_ns or event.source != "guest":
            continue
        if event.data["slave"] and event.name.endswith(("link up", "there with link")):
            attached = [Event(event.t_ns, event.uncertainty_ns, CONDUCTOR, ATTACHED, event.data)]
        elif event.data["slave"]:
            attached = []
    return attached
