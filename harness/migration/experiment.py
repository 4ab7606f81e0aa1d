"""One migration under measurement: flows before, through and after it, and everything watched."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass, field

import pandas as pd

from harness.analysis.measured import REFUSED, Measured, MeasuredFlow, QemuFigures
from harness.errors import GuestError
from harness.guest.machine import GuestMachine
from harness.guest.own_vf import OwnVf
from harness.host.software_vf import Logged
from harness.migration.aftermath import (
    NOT_REACHED,
    follow,
    give_up,
    lost_noted,
    served,
    taken_up,
)
from harness.migration.clocks import Clocks, SharedClock, read_clocks
from harness.migration.move import Moment, Move
from harness.migration.outcome import GONE, Outcome
from harness.migration.raw import Raw
from harness.migration.scheme import Scheme
from harness.migration.timeline import Timeline, build
from harness.migration.watch import Seen, links_watched, watched
from harness.remote import Host
from harness.together import together
from harness.topology import Capabilities
from harness.traffic.flow import Endpoint, Flow, FlowRecords
from harness.traffic.running import start as start_flow
from harness.waiting import let_pass, wait_for

BEFORE_S = 1.0
"""How long the flows run before the migration is asked for: what undisturbed looks like."""

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
    """A migration was conducted: how it ended, what was measured, and the *records* of its flows.

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


@dataclass(frozen=True, slots=True)
class Watch:
    """A watch says what is recorded while a guest migrates.

    bme_per_s     how often a second configuration space of its VFs is sampled; 0: nobody observes
    capabilities  the registers that are read along with it
    own_vf        the VF that a guest with an emulated port has made there, or None
    log           the DMA log of the source's VF, if its device keeps one
    """

    bme_per_s: int
    capabilities: Capabilities
    own_vf: OwnVf | None = None
    log: Logged | None = None


@dataclass(frozen=True, slots=True)
class Experiment:
    """An experiment makes *move* once by *scheme*, with flows between *ends*, under *watch*.

    *progress* is told what is done, in words.
    """

    scheme: Scheme
    move: Move
    ends: Ends
    watch: Watch
    progress: Callable[[str], None]

    def run(self, flows: Sequence[Flow], raw: Raw) -> Conducted:
        """Make the move under *flows*, and return what its users felt.

        While the flows run nothing is sent to a host but what the migration itself needs.  *raw*
        gets all that machines recorded and programs said, even if this raises.
        """
        move, comparison = self.move, self.move.comparison
        since = len(move.source.qmp.events)
        try:
            _wait_until_at_rest(self.ends)
            self.progress("relating clocks")
            before = self._read_all_clocks()
            if comparison:
                comparison.prepare(move.source, move.successor, move.guest)
            with ExitStack() as stack:
                stack.enter_context(together(_kept(each, raw) for each in self._watching()))
                raw.seen.sort(key=lambda seen: seen.machine)  # which came first is chance
                way = f"from {move.source.host.name} to {move.successor.host.name}"
                self.progress(f"migrating {way} under traffic")
                outcome, records = self._under_traffic(flows)
            outcome = lost_noted(outcome, move.guest, move.successor)
            if comparison:
                outcome = comparison.conclude(outcome)
            self.progress("relating clocks again")
            after = before | self._read_all_clocks()
        except GuestError:  # the memory of a guest that is lost may tell why
            raw.notes = comparison.compare() if comparison else ()
            raise
        finally:
            raw.take(move.source, move.successor)
        clock = SharedClock(before, after, self.ends.peer.name)
        timeline = build(clock, outcome, move, raw.seen, since=since)
        measured = self._measured(outcome, timeline, records)
        return Conducted(outcome, measured, records, self._tables(raw))

    def _watching(self) -> tuple[AbstractContextManager[Seen], ...]:
        move, watch = self.move, self.watch
        rate, registers = watch.bme_per_s, watch.capabilities
        return (
            watched(move.source, move.hand_off, rate, registers, watch.own_vf, watch.log),
            watched(move.successor, None, rate, registers, watch.own_vf),
            links_watched(move.guest),
        )

    def _under_traffic(self, flows: Sequence[Flow]) -> tuple[Outcome, tuple[FlowRecords, ...]]:
        """Migrate while *flows* run, from before it is asked for until they are served again.

        Where QEMU refuses they run on as long: that nothing happens to them is the result.
        """
        move, ends = self.move, self.ends
        patience = self.scheme.patience or self.scheme.usual_patience
        with ExitStack() as stack:
            running = [
                stack.enter_context(start_flow(flow, ends.peer_end, ends.guest_end))
                for flow in flows
            ]
            let_pass(BEFORE_S)
            move.come_to(Moment.FLOWING)
            outcome = self.scheme.migrate(move)
            if outcome.status == "completed":
                outcome = taken_up(outcome, move.successor, patience.attach_s)
            if outcome.status in ("completed", REFUSED):
                let_pass(patience.after_s)
                outcome = served(outcome, running, patience.served_s)
            # First what runs on the peer: logging in to a guest that is also answering takes long.
            stopped = {each.flow: each.stop() for each in running if each.flow.at_peer}
            if outcome.status == "completed":
                follow(move.guest, move.successor, flows, outcome)
            elif outcome.source_state == GONE:
                give_up(move.guest, move.source, flows)
            stopped |= {each.flow: each.stop() for each in running if not each.flow.at_peer}
            return outcome, tuple(stopped[flow] for flow in flows)

    def _read_all_clocks(self) -> dict[str, Clocks]:
        machines = [self.ends.peer, self.move.source.host, self.move.successor.host]
        if not self.move.guest.lost:
            machines.append(self.move.guest.host)
        return {machine.name: read_clocks(machine) for machine in machines}

    def _tables(self, raw: Raw) -> dict[str, pd.DataFrame]:
        tables = dict(self.move.comparison.tables) if self.move.comparison else {}
        for each in raw.seen:
            if each.dma is not None:
                tables.setdefault("dma", each.dma)
        return tables

    def _measured(
        self, outcome: Outcome, timeline: Timeline, records: Sequence[FlowRecords]
    ) -> Measured:
        figures = outcome.figures
        return Measured(
            scheme=self.scheme.record(self.move.source.spec),
            source=self.move.source.host.name,
            destination=self.move.successor.host.name,
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


@contextmanager
def _kept(watching: AbstractContextManager[Seen], raw: Raw) -> Iterator[None]:
    """Put into *raw* what one machine records, also where another machine's recorder fails."""
    with watching as seen:
        raw.seen.append(seen)
        yield


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
