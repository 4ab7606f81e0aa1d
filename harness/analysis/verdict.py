"""Pass, fail, or invalid: what a migration's figures say, and whether they may say anything."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Literal

import pandas as pd

from harness.analysis.marks import ATTACHED, stopped
from harness.analysis.measured import (
    DEVICE_WROTE,
    MEMORY_COMPARED,
    NO_FAULT,
    NOT_COMPARED,
    REFUSED,
    Direction,
    Measured,
)
from harness.analysis.order import dma_order, reasons
from harness.analysis.scheme import Mark

NAMED = 8
"""How many lost pages a sentence names; `memory.parquet` has them all."""

Word = Literal["pass", "fail", "invalid"]


@dataclass(frozen=True, slots=True)
class Limits:
    """What a migration may take, and how good the harness itself must be.  None: no limit.

    longest_outage_ms, total_outage_ms, lost   of each flow
    status                 how QEMU must have ended; a test that cancels expects "cancelled", one of
                           a guest that cannot be moved "refused"
    dma_order              whether BME must be 0 before the last pass, and that before STOP; an
                           experiment may break it by intent
    sender_late_max_ms     how late the peer's sender may ever be; later and an outage may be ours
    clock_uncertainty_ms   of any event that bounds a phase, without the time for which nobody
                           looked, and of the receiver's own stamps
    """

    longest_outage_ms: float | None = None
    total_outage_ms: float | None = None
    lost: int | None = None
    status: str | None = "completed"
    dma_order: bool = True
    sender_late_max_ms: float = 10.0
    clock_uncertainty_ms: float = 5.0


@dataclass(frozen=True, slots=True)
class FlowFigures:
    """The figures of one flow; *packets* and *outages* as in the package's docstring.

    received  frames that arrived, each counted once: sent = received + lost
    duplicated  arrivals beyond the first of a frame
    corrupted  frames that arrived changed or short, unrecognisable ones included
    unsent     frames that were due and that the sender's kernel did not take
    sender_notes  sentences of the sender on what was not as asked for
    """

    name: str
    direction: Direction
    frame_bytes: int
    rate_pps: float
    sent: int
    received: int
    lost: int
    duplicated: int
    reordered: int
    corrupted: int
    resolution_ns: int
    unsent: int
    sender_late_max_ns: int
    receiver_dropped: int
    clock_moved_ns: int
    sender_notes: tuple[str, ...]
    packets: pd.DataFrame
    outages: pd.DataFrame

    @property
    def lengths_ns(self) -> pd.Series[int]:
        """How long each outage took; NA where it is open."""
        return self.outages["end_ns"] - self.outages["start_ns"]

    @property
    def never_came_back(self) -> bool:
        return bool(self.outages["end_ns"].isna().any())


@dataclass(frozen=True, slots=True)
class Verdict:
    """The verdict in one word and, unless it is a pass, why, one sentence each.

    *excerpt* has the lines of the timeline that a sentence on the order of DMA is about.
    """

    word: Word
    reasons: tuple[str, ...] = ()
    excerpt: tuple[str, ...] = ()


def judge(
    measured: Measured, flows: Sequence[FlowFigures], phases: pd.DataFrame, limits: Limits
) -> Verdict:
    """Invalid wins over fail and pass: a harness that was not good enough has no result."""
    doubts = [*_instrument_doubts(flows, limits), *_clock_doubts(flows, phases, limits)]
    doubts += _backlog_doubts(measured)
    doubts += _unrest_before(flows)
    doubts += _log_doubts(measured)
    doubts += _sight_doubts(measured)
    doubts += _fault_doubts(measured)
    orders = dma_order(measured) if limits.dma_order else []
    shown = tuple(line for order in orders for line in order.excerpt)
    doubts += reasons(orders, "unknown")
    if doubts:
        return Verdict("invalid", tuple(doubts), shown)
    faults = [*_status_faults(measured, limits), *_refusal_faults(measured, flows)]
    faults += [fault for flow in flows for fault in _flow_faults(flow, limits)]
    faults += reasons(orders, "broken")
    faults += _attachment_faults(measured)
    faults += _mastery_faults(measured)
    faults += [*_device_faults(measured), *_memory_faults(measured)]
    return Verdict("fail", tuple(faults), shown) if faults else Verdict("pass")


def worst(words: Iterable[Word]) -> Word | None:
    """Give the verdict of a test over its migrations; None if it had none."""
    rank: dict[Word, int] = {"pass": 0, "fail": 1, "invalid": 2}
    return max(words, key=lambda word: rank[word], default=None)


def _instrument_doubts(flows: Sequence[FlowFigures], limits: Limits) -> Iterable[str]:
    for flow in flows:
        if flow.receiver_dropped > 0:
            yield f"flow {flow.name}: our own receiver dropped {flow.receiver_dropped} frames"
        if flow.direction == "from-guest":
            continue  # its sender is late when the guest is stopped: that is what is measured
        if flow.unsent > 0:
            yield f"flow {flow.name}: our own sender could not send {flow.unsent} frames"
        late_ms = flow.sender_late_max_ns / 1e6
        if late_ms > limits.sender_late_max_ms:
            yield (
                f"flow {flow.name}: our own sender was up to {late_ms:.3g} ms late,"
                f" more than {limits.sender_late_max_ms:g} ms"
                + "".join(f"; {note}" for note in flow.sender_notes)
            )


def _log_doubts(measured: Measured) -> Iterable[str]:
    for event in measured.events:
        if event.name == NOT_COMPARED:
            yield f"memory was to be compared, and was not: {event.data['text']}"
        if event.name == DEVICE_WROTE and event.data["not_logged"]:
            yield (
                f"the device's log had no room for {event.data['not_logged']} accesses: neither "
                "its last write nor any page can be told by it; boot another guest for each "
                "migration, or send less"
            )
        if event.name == MEMORY_COMPARED and event.data.get("not_lost"):
            yield (
                f"{event.data['not_lost']} pages arrived that had to be lost by the device's log "
                "and QEMU's trace of its copies: one of the two is wrong"
            )


def _fault_doubts(measured: Measured) -> Iterable[str]:
    """A fault that was never put in shows nothing, whatever the migration came to."""
    for event in measured.events:
        if event.name == NO_FAULT:
            yield f"the fault of a test was not put in: {event.data['text']}"


def _sight_doubts(measured: Measured) -> Iterable[str]:
    """A VF that went with its guest, or follows one that mastered, must have been looked at."""
    there = [sample for sample in measured.bme if sample.host == measured.destination]
    mastered = any(each.masters for each in measured.bme if each.host == measured.source)
    if measured.status == "completed" and (measured.scheme.vf == "kept" or mastered) and not there:
        yield "nobody looked at the guest's VF at the destination"


def _backlog_doubts(measured: Measured) -> Iterable[str]:
    """Flows that are received on one machine count the same drops: the most of any is told."""
    dropped = max(flow.backlog_dropped for flow in measured.flows)
    if dropped:
        yield (
            f"a receiving machine's kernel dropped {dropped} packets before it knew whose they"
            " were; frames may be among them"
        )


def _unrest_before(flows: Sequence[FlowFigures]) -> Iterable[str]:
    """What users felt most was there before anything was asked: it is not the migration's."""
    for flow in flows:
        if flow.outages.empty:
            continue
        longest = flow.lengths_ns.astype("Float64").fillna(float("inf")).to_numpy().argmax()
        if flow.outages["phase"].iloc[longest] == "before":
            yield f"flow {flow.name}: its longest outage began before the migration was asked for"


def _clock_doubts(
    flows: Sequence[FlowFigures], phases: pd.DataFrame, limits: Limits
) -> Iterable[str]:
    by_clocks_ns = phases["uncertainty_ns"] - phases["gap_ns"]
    for name, uncertainty_ns in zip(phases["name"], by_clocks_ns, strict=True):
        uncertainty_ms = uncertainty_ns / 1e6
        if uncertainty_ms > limits.clock_uncertainty_ms:
            yield (
                f"the clocks give the beginning of {name} to {uncertainty_ms:.3g} ms only,"
                f" worse than {limits.clock_uncertainty_ms:g} ms"
            )
    for flow in flows:
        moved_ms = abs(flow.clock_moved_ns) / 1e6
        if moved_ms > limits.clock_uncertainty_ms:
            yield (
                f"flow {flow.name}: the receiver's wall clock moved by {moved_ms:.3g} ms,"
                f" more than {limits.clock_uncertainty_ms:g} ms"
            )


def _status_faults(measured: Measured, limits: Limits) -> Iterable[str]:
    if limits.status is not None and measured.status != limits.status:
        said = f": {measured.reason}" if measured.reason else ""
        yield f"the migration ended as {measured.status}, not as {limits.status}{said}"
    state = measured.destination_state
    if measured.status == "completed" and state not in (None, "running"):
        yield f"QEMU says completed, and the guest is {state} at the destination"


def _refusal_faults(measured: Measured, flows: Sequence[FlowFigures]) -> Iterable[str]:
    """What was refused must have done nothing: no limit of the lab says how much it may do."""
    if measured.status != REFUSED:
        return
    if stopped(measured):
        yield "QEMU refused to migrate the guest, and stopped it all the same"
    for flow in flows:
        if flow.lost:
            yield f"flow {flow.name}: QEMU refused to migrate, and {flow.lost} frames were lost"


def _attachment_faults(measured: Measured) -> Iterable[str]:
    """A guest that is left on its standby is served, so its flows alone do not tell."""
    must_show = measured.status == "completed" and Mark.ATTACHED in measured.scheme.must_show
    if must_show and not any(event.name == ATTACHED for event in measured.events):
        yield "the guest has no VF with a lasting link at the destination"


def _mastery_faults(measured: Measured) -> Iterable[str]:
    """A VF without Bus Master Enable does no DMA, whatever its link and its driver say."""
    if measured.status != "completed":
        return
    must_master = Mark.MASTERS in measured.scheme.must_show
    seen = sorted(measured.bme, key=lambda sample: (sample.vf, sample.t_ns))
    mastered = [each for each in seen if each.host == measured.source and each.masters]
    at_destination = [each for each in seen if each.host == measured.destination]
    for vf, samples in groupby(at_destination, key=lambda sample: sample.vf):
        there = list(samples)
        was, now = next(iter(mastered), None), there[-1]
        if was and not now.masters:
            lost = "no function answers there" if now.gone else "Bus Master Enable is lost"
            yield (
                f"VF {vf}: its COMMAND was {was.command:#06x} at {was.host} and is"
                f" {now.command:#06x} at {now.host}: {lost}"
            )
        elif must_master and not any(each.masters for each in there):
            yield "the guest's VF never mastered the bus at the destination: it is dead there"


def _device_faults(measured: Measured) -> Iterable[str]:
    for event in measured.events:
        if event.name == DEVICE_WROTE and (writes := event.data["misbehaved"]):
            yield (
                f"the device wrote {writes} times without the right to: with Bus Master Enable "
                "clear, or where its ring was no more"
            )


def _memory_faults(measured: Measured) -> Iterable[str]:
    """Memory that did not arrive; where log and trace do not say why, that too."""
    for event in measured.events:
        if event.name != MEMORY_COMPARED:
            continue
        if lost := event.data["differ"]:
            which = _named(event.data.get("page_frames", ()))
            yield f"{lost} of {event.data['pages']} pages of memory were lost{which}"
            if unexplained := event.data.get("unexplained"):
                has_trace = "may_differ" in event.data
                when = "after their last copy" if has_trace else "during the migration"
                yield f"{len(unexplained)} of them the device did not write {when}"


def _named(page_frames: Sequence[int]) -> str:
    more = ", ..." if len(page_frames) > NAMED else ""
    shown = ", ".join(map(hex, page_frames[:NAMED])) + more
    return f": the guest's page frames {shown}" if page_frames else ""


def _flow_faults(flow: FlowFigures, limits: Limits) -> Iterable[str]:
    if flow.corrupted:
        yield f"flow {flow.name}: {flow.corrupted} frames arrived corrupted or short"
    if flow.never_came_back:
        open_end = flow.outages[flow.outages["end_ns"].isna()].iloc[-1]
        lost = f", the last {open_end['lost']} frames are lost" if open_end["lost"] else ""
        since_s = open_end["start_ns"] / 1e9
        yield f"flow {flow.name}: it never came back after {since_s:.3f} s{lost}"
    for what, length_ms, limit in (
        ("longest outage", _longest_ms(flow), limits.longest_outage_ms),
        ("sum of outages", float(flow.lengths_ns.sum()) / 1e6, limits.total_outage_ms),
    ):
        if limit is not None and length_ms > limit:
            yield f"flow {flow.name}: {what} {length_ms:.0f} ms, more than {limit:g} ms"
    if limits.lost is not None and flow.lost > limits.lost:
        yield f"flow {flow.name}: {flow.lost} frames lost, more than {limits.lost}"


def _longest_ms(flow: FlowFigures) -> float:
    lengths = flow.lengths_ns.dropna()
    return float(lengths.max()) / 1e6 if len(lengths) else 0.0
