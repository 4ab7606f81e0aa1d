"""One migration under measurement: flows before, through and after it, and everything watched."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass, field, replace

import pandas as pd

from harness.analysis.measured import (
    NOT_TAKEN_UP,
    REFUSED,
    Measured,
    MeasuredFlow,
    QemuFigures,
)
from harness.errors import GuestError, RemoteError, WaitError
from harness.guest.instance import Instance
from harness.guest.machine import GuestMachine
from harness.guest.own_vf import OwnVf
from harness.host.software_vf import Logged
from harness.migration.clocks import Clocks, SharedClock, read_clocks
from harness.migration.comparison import Comparison
from harness.migration.handoff import HandOff
from harness.migration.raw import Raw
from harness.migration.scheme import GONE, Note, Outcome, Scheme, state_of
from harness.migration.timeline import Timeline, build
from harness.migration.watch import Seen, links_watched, watched
from harness.remote import Host
from harness.together import together
from harness.topology import Capabilities
from harness.traffic.flow import Endpoint, Flow, FlowRecords
from harness.traffic.running import RunningFlow
from harness.traffic.running import start as start_flow
from harness.waiting import let_pass, wait_for

BEFORE_S = 1.0
"""How long the flows run before the migration is asked for: what undisturbed looks like."""

NOT_REACHED = "guest not reached"
"""The note of a guest that is lost: it does not answer where it went, or ended before."""

REACH_SECONDS = 30


@dataclass(frozen=True, slots=True)
class Ends:
    """The two ends of every flow, and the machines behind them."""

    peer: Host
    peer_end: Endpoint
    guest: GuestMachine
    guest_end: Endpoint


@dataclass(frozen=True, slots=True)
class Conducted:
    """A migration, measured, and the *records* of its flows that it was measured from.

    *tables* has by name what comparing memory recorded, and ``dma``, the log of the source's VF
    where its device keeps one.
    """

    outcome: Outcome
    measured: Measured
    records: tuple[FlowRecords, ...]
    tables: Mapping[str, pd.DataFrame] = field(default_factory=dict)

    @property
    def lost_its_guest(self) -> bool:
        """Whether the guest ended on its way, or where it went cannot be logged in to."""
        return any(note.name == NOT_REACHED for note in self.outcome.notes)


def conduct(
    scheme: Scheme,
    source: Instance,
    successor: Instance,
    *,
    address: tuple[str, int],
    ends: Ends,
    flows: Sequence[Flow],
    hand_off: HandOff | None,
    raw: Raw,
    bme_per_s: int,
    capabilities: Capabilities,
    comparison: Comparison | None = None,
    progress: Callable[[str], None],
    own_vf: OwnVf | None = None,
    log: Logged | None = None,
) -> Conducted:
    """Migrate the guest from *source* to *successor* and measure what its users feel.

    *address* is where the source's QEMU reaches the successor's.  While the flows run nothing is
    sent to a host but what the migration itself needs.  *comparison* is the scheme's, if both
    memories are to be compared.  *log* is the DMA log of the source's VF, if its device keeps one.
    *raw* gets all that machines recorded and programs said, even if `conduct` raises.
    """
    since = len(source.qmp.events)
    try:
        _wait_until_at_rest(ends)
        progress("relating clocks")
        before = _read_all_clocks(ends, source, successor)
        if comparison:
            comparison.prepare(source, successor, ends.guest)
        with ExitStack() as stack:
            watching = (
                watched(source, hand_off, bme_per_s, capabilities, own_vf, log),
                watched(successor, None, bme_per_s, capabilities, own_vf),
                links_watched(ends.guest),
            )
            stack.enter_context(together(_kept(each, raw) for each in watching))
            raw.seen.sort(key=lambda seen: seen.machine)  # which came first is chance
            progress(f"migrating from {source.host.name} to {successor.host.name} under traffic")
            outcome, records = _under_traffic(scheme, source, successor, address, ends, flows)
        outcome = _lost_noted(outcome, ends.guest, successor)
        if comparison:
            outcome = comparison.conclude(outcome)
        progress("relating clocks again")
        after = before | _read_all_clocks(ends, source, successor)
    except GuestError:  # the memory of a guest that is lost may tell why
        raw.notes = comparison.compare() if comparison else ()
        raise
    finally:
        raw.take(source, successor)
    clock = SharedClock(before, after, ends.peer.name)
    timeline = build(
        clock, outcome, source, successor, raw.seen, hand_off, ends.guest.name, since=since
    )
    measured = _measured(scheme, source, successor, outcome, timeline, records)
    return Conducted(outcome, measured, records, _tables(comparison, raw))


@contextmanager
def _kept(watching: AbstractContextManager[Seen], raw: Raw) -> Iterator[None]:
    """Put into *raw* what one machine records, also where another machine's recorder fails."""
    with watching as seen:
        raw.seen.append(seen)
        yield


def _tables(comparison: Comparison | None, raw: Raw) -> dict[str, pd.DataFrame]:
    tables = dict(comparison.tables) if comparison else {}
    for each in raw.seen:
        if each.dma is not None:
            tables.setdefault("dma", each.dma)
    return tables


def _under_traffic(
    scheme: Scheme,
    source: Instance,
    successor: Instance,
    address: tuple[str, int],
    ends: Ends,
    flows: Sequence[Flow],
) -> tuple[Outcome, tuple[FlowRecords, ...]]:
    """Migrate while *flows* run, from before it is asked for until they are served again.

    Where QEMU refuses they run on as long: that nothing happens to them is the result.
    """
    with ExitStack() as stack:
        running = [
            stack.enter_context(start_flow(flow, ends.peer_end, ends.guest_end)) for flow in flows
        ]
        let_pass(BEFORE_S)
        outcome = scheme.migrate(source, successor, address)
        if outcome.status == "completed":
            outcome = _taken_up(outcome, successor, scheme.patience.attach_s)
        if outcome.status in ("completed", REFUSED):
            let_pass(scheme.patience.after_s)
            outcome = _served(outcome, running, scheme.patience.served_s)
        # First what runs on the peer: logging in to a guest that is also answering takes long.
        stopped = {each.flow: each.stop() for each in running if each.flow.at_peer}
        if outcome.status == "completed":
            _follow(ends.guest, successor, flows, outcome)
        elif outcome.source_state == GONE:
            _give_up(ends.guest, source, flows)
        stopped |= {each.flow: each.stop() for each in running if not each.flow.at_peer}
        return outcome, tuple(stopped[flow] for flow in flows)


def _wait_until_at_rest(ends: Ends) -> None:
    """Return once the guest reaches the peer.

    Its kernel answers nobody whose address it has yet to look up, and looks again after a second
    if that got lost.
    """
    wait_for(
        f"the guest to reach the peer, {ends.peer_end.address}",
        lambda: ends.guest.host.run(
            "ping", "-c", "1", "-W", "1", ends.peer_end.address, check=False
        ).status == 0,
        within=REACH_SECONDS,
        fix="see the guest's links, and the wire between it and the peer",
    )  # fmt: skip


def _taken_up(outcome: Outcome, successor: Instance, seconds: float) -> Outcome:
    """Wait until the guest drives its new VF; that it never does is worth a note, not an end."""
    if successor.vf is None:
        return outcome
    try:
        successor.vf.wait_for_bme(
            seconds=seconds,
            fix="see the guest's console: its driver must find the VF and its address",
        )
    except WaitError as late:
        seen = f"{late.what}; {late.because}; {successor.last_words}"
        note = Note(time.monotonic_ns(), NOT_TAKEN_UP, seen)
        return replace(outcome, notes=(*outcome.notes, note))
    return outcome


def _follow(
    guest: GuestMachine, successor: Instance, flows: Sequence[Flow], outcome: Outcome
) -> None:
    """Reach the guest where it is now.

    One that hangs does not answer its users either, and one that ended with its QEMU will not: what
    the peer recorded shows that.  Raises GuestError if it serves them all the same, or if a record
    of *flows* is lost with it.
    """
    try:
        guest.follow(successor)
    except RemoteError:
        cut_off = {note.name for note in outcome.notes} >= {_cut_off(flow) for flow in flows}
        ended = state_of(successor) == GONE
        if flows and (cut_off or ended) and all(flow.at_peer for flow in flows):
            return
        raise GuestError(
            f"{successor.host.name}: the guest cannot be logged in to after its migration",
            because=f"{guest.lost}; {successor.last_words}",
            fix="see its console there; a flow that begins or ends in it has its record in it, and "
            "one that still returns is served by a guest that only its SSH server left",
        ) from None


def _give_up(guest: GuestMachine, source: Instance, flows: Sequence[Flow]) -> None:
    """Note that the guest has ended where it was.  Raises GuestError if records went with it."""
    guest.lose(f"{source.host.name}: its QEMU has ended, and it never ran elsewhere")
    if not all(flow.at_peer for flow in flows):
        raise GuestError(
            f"{source.host.name}: the guest ended while it was migrated",
            because=source.last_words,
            fix="see its console there; a flow that begins or ends in it has its record in it",
        )


def _lost_noted(outcome: Outcome, guest: GuestMachine, successor: Instance) -> Outcome:
    if not guest.lost:
        return outcome
    seen = f"{guest.lost}; {guest.instance.last_words}"
    note = Note(time.monotonic_ns(), NOT_REACHED, seen)
    state = state_of(successor)  # it may have ended since
    return replace(outcome, destination_state=state, notes=(*outcome.notes, note))


def _cut_off(flow: Flow) -> str:
    return f"flow {flow.name} is cut off"


def _served(outcome: Outcome, running: Sequence[RunningFlow], seconds: float) -> Outcome:
    """Do not stop flows in the middle of an outage; one that lasts longer has an open end."""
    for each in running:
        if each.flow.direction == "to-guest":
            continue  # the guest would have to be asked, while it is measured
        try:
            each.wait_until_served(seconds)
        except WaitError as late:
            note = Note(time.monotonic_ns(), _cut_off(each.flow), late.what)
            outcome = replace(outcome, notes=(*outcome.notes, note))
    return outcome


def _read_all_clocks(ends: Ends, source: Instance, successor: Instance) -> dict[str, Clocks]:
    machines = [ends.peer, source.host, successor.host]
    if not ends.guest.lost:
        machines.append(ends.guest.host)
    return {machine.name: read_clocks(machine) for machine in machines}


def _measured(
    scheme: Scheme,
    source: Instance,
    successor: Instance,
    outcome: Outcome,
    timeline: Timeline,
    records: Sequence[FlowRecords],
) -> Measured:
    figures = outcome.figures
    return Measured(
        scheme=scheme.name,
        trigger=scheme.trigger,
        source=source.host.name,
        destination=successor.host.name,
        status=outcome.status,
        reason=outcome.reason,
        destination_state=outcome.destination_state,
        qemu=QemuFigures(
            downtime_ms=figures.get("downtime"),
            total_ms=figures.get("total-time"),
            setup_ms=figures.get("setup-time"),
            transferred_bytes=figures.get("ram", {}).get("transferred"),
            passes=figures.get("ram", {}).get("dirty-sync-count"),
        ),
        asked_ns=timeline.asked_ns,
        events=timeline.events,
        bme=timeline.bme,
        flows=tuple(measured_flow(each) for each in records),
    )


def measured_flow(records: FlowRecords) -> MeasuredFlow:
    """A flow's records as the analysis wants them."""
    flow = records.flow
    return MeasuredFlow(
        name=flow.name,
        direction=flow.direction,
        frame_bytes=flow.frame_bytes,
        rate_pps=flow.rate_pps,
        sent=records.sent,
        received=records.received,
        receiver_dropped=records.receiver.dropped,
        sender_notes=records.sender.notes,
        backlog_dropped=records.receiver.backlog_dropped,
        unsent=records.sender.unsent,
        clock_moved_ns=records.receiver.clock_moved_ns,
    )
