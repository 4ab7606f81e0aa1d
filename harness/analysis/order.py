"""Whether the device had stopped its DMA before the last pages were copied.

The order that loses nothing is: BME reads 0 or the VF is gone, then the last pass over the dirty
pages, then STOP; and it stays so until the last page is copied, which is after STOP.  QEMU
announces each pass but the one that it makes with the guest stopped (the *stopped pass*), so what
is held against the VF is the last pass announced before STOP.  Where the device tells when it
wrote, that decides, against the stopped pass: a driver can stop its DMA and leave BME set.  So can
the kernel, by VFIO's migration states, where QEMU drives it.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby, pairwise
from typing import Literal

from harness.analysis.excerpt import excerpt
from harness.analysis.measured import (
    CLOSE_WRITES,
    LATE_WRITES,
    MEMORY_COMPARED,
    VFIO_STATE,
    VFIO_STOPPED,
    BmeSample,
    Event,
    Measured,
)
from harness.analysis.phases import RELEASED, stopped

BROKEN = "DMA order broken"
"""The name of this failure; a verdict's reason begins with it."""

TOLD_TO_NS = 20_000_000
"""How exactly it must be known when VFIO stopped a device: reading its state waits for it."""

_PASS, _FIRST_PASS = "MIGRATION_PASS", "MIGRATION active"
_ENDS = {
    "MIGRATION completed", "MIGRATION failed", "MIGRATION cancelling", "MIGRATION cancelled",
    "RESUME",
}  # fmt: skip
"""What the source says once it copies no more, whatever came of it."""

Outcome = Literal["kept", "broken", "unknown"]


@dataclass(frozen=True, slots=True)
class Order:
    """*kept*, *broken*, or *unknown* for a VF of the source, and a sentence that says why.

    *excerpt* has the lines of the timeline that it is about, unless it was kept.
    """

    outcome: Outcome
    why: str
    excerpt: tuple[str, ...] = ()


def dma_order(measured: Measured) -> list[Order]:
    """One entry per VF watched on the source; one where only its release, or nobody, tells of it.

    None without a VF, nor of a migration that came to no STOP and did not complete.
    """
    if told := [e for e in measured.events if e.name == MEMORY_COMPARED and LATE_WRITES in e.data]:
        return [_told_by_log(measured, event) for event in told]
    stop = stopped(measured)
    if not measured.has_vf or (stop is None and measured.status != "completed"):
        return []
    if stop is None:
        return [Order("unknown", "QEMU says completed, and its STOP was not seen")]
    last_pass, copied = _last_pass(measured, stop), _copied(measured, stop)
    by_vfio = _by_vfio(measured, stop, copied)
    ours = sorted(
        (s for s in measured.bme if s.host == measured.source), key=lambda s: (s.vf, s.t_ns)
    )
    found = [
        _order_of(measured, list(samples), last_pass, stop, copied)
        for vf, samples in groupby(ours, key=lambda s: s.vf)
        if vf not in by_vfio
    ]
    found += by_vfio.values()
    nobody = Order("unknown", "nobody looked at BME of the source's VF, nor at its release")
    return found or _from_release(measured, last_pass, stop) or [nobody]


def _last_pass(measured: Measured, stop: Event) -> Event:
    """The beginning of the last pass that was announced before *stop*; *stop* without any."""
    ours = [
        event
        for event in measured.events
        if event.source == stop.source and measured.asked_ns <= event.t_ns <= stop.t_ns
    ]
    passes = [event for event in ours if event.name.startswith(_PASS)]
    passes = passes or [event for event in ours if event.name == _FIRST_PASS]
    return max(passes, key=lambda event: event.t_ns, default=stop)


def _copied(measured: Measured, stop: Event) -> Event:
    """When QEMU had sent the last page, or gave that up; *stop* where it says neither."""
    after = (e for e in measured.events if e.source == stop.source and e.t_ns >= stop.t_ns)
    ends = (event for event in after if event.name in _ENDS)
    return min(ends, key=lambda event: event.t_ns, default=stop)


def _told_by_log(measured: Measured, compared: Event) -> Order:
    ends = [e.t_ns for e in measured.events if e.name in ("STOP", "MIGRATION device")]
    if late := compared.data[LATE_WRITES]:
        why = f"the device wrote {late} times after the stopped pass had begun"
        return Order("broken", why, excerpt(measured, ends))
    if close := compared.data[CLOSE_WRITES]:
        why = f"the device wrote {close} times about when the stopped pass began, too close to tell"
        return Order("unknown", why, excerpt(measured, ends))
    return Order("kept", "the device's last write came before the stopped pass, by its own log")


def _by_vfio(measured: Measured, stop: Event, copied: Event) -> dict[str, Order]:
    """By its name each VF of the source that VFIO stopped in this migration.

    QEMU stops a device as it stops the guest, says STOP then, and copies the last pages.  So the
    two are as near to each other as the clocks can tell, and only what came later beyond doubt came
    too late.  Ref: QEMU, system/cpus.c, do_vm_stop(), and hw/vfio/migration.c,
    vfio_vmstate_change().
    """
    ours: dict[str, list[Event]] = {}
    for event in sorted(measured.events, key=lambda event: event.t_ns):
        is_ours = event.source == f"vfio:{measured.source}" and event.t_ns >= measured.asked_ns
        if is_ours and event.name.startswith(VFIO_STATE):
            ours.setdefault(str(event.data.get("vf", "")), []).append(event)
    return {
        vf: _told_by_vfio(measured, vf, states, stop, copied)
        for vf, states in ours.items()
        if any(state.name in VFIO_STOPPED for state in states)
    }


def _told_by_vfio(
    measured: Measured, vf: str, states: Sequence[Event], stop: Event, copied: Event
) -> Order:
    """By the stretches in which it was not stopped: none may lie between *stop* and *copied*."""
    for began, halted in _stretches(states):
        outcome = _reaches(began, halted, stop, copied)
        if outcome == "kept":
            continue
        why = f"VFIO had {vf} run again before its last pages were copied"
        if began is None and halted:
            why = f"VFIO stopped {vf} {_ms(halted.t_ns - stop.t_ns)} ms after the guest"
        if outcome == "unknown":
            is_of_before = began is None or surely_before(began, stop)
            what, edge = ("stopped", halted) if is_of_before else ("started", began)
            assert edge is not None
            why = f"when VFIO {what} {vf} is known to {_ms(_doubt(edge, stop))} ms only"
        moments = [each.t_ns for each in (began, halted, stop, copied) if each]
        return Order(outcome, why, excerpt(measured, moments))
    return Order("kept", f"VFIO had stopped {vf} by STOP")


def _reaches(began: Event | None, halted: Event | None, stop: Event, copied: Event) -> Outcome:
    """Whether a device that ran from *began* to *halted* may have written after *stop*.

    After *copied* it may.  QEMU stops it just before it says STOP, which makes up for TOLD_TO_NS.
    """
    if (halted and surely_before(halted, stop)) or (began and surely_before(copied, began)):
        return "kept"
    is_of_before = began is None or surely_before(began, stop)
    began_surely = is_of_before or (began is not None and surely_before(began, copied))
    if began_surely and (halted is None or surely_before(stop, halted)):
        return "broken"
    is_near = halted is not None and _doubt(halted, stop) <= TOLD_TO_NS
    return "kept" if is_of_before and is_near else "unknown"


def _stretches(states: Sequence[Event]) -> Iterator[tuple[Event | None, Event | None]]:
    """From when to when it was not stopped; None: from before the first of *states*, to no end."""
    began: Event | None = None
    for is_stopped, alike in groupby(states, key=lambda state: state.name in VFIO_STOPPED):
        first = next(alike)
        if is_stopped:
            yield began, first
        elif first is not states[0]:
            began = first
    if states[-1].name not in VFIO_STOPPED:
        yield began, None


def _order_of(
    measured: Measured, samples: list[BmeSample], last_pass: Event, stop: Event, copied: Event
) -> Order:
    vf, limit = f"VF {samples[0].vf} of {samples[0].host}", _named(last_pass)

    def order(outcome: Outcome, why: str, *others: BmeSample | None) -> Order:
        moments = [last_pass.t_ns, stop.t_ns, *(other.t_ns for other in others if other)]
        return Order(outcome, f"{vf}: {why}", excerpt(measured, moments))

    if change := _change_about(samples, last_pass):
        doubt = _ms(_doubt(change, last_pass))
        why = f"its BME changed within {doubt} ms of {limit}, too close for the clocks to tell"
        return order("unknown", f"{why} which came first", change)
    earlier = [s for s in samples if s.t_ns <= last_pass.t_ns]
    later = [s for s in samples if s.t_ns > last_pass.t_ns]
    if not earlier:
        return order("unknown", f"nobody looked at its BME before {limit}")
    if not earlier[-1].masters:
        risen = next((s for s in later if s.masters and not surely_before(copied, s)), None)
        if risen and surely_before(risen, copied):
            return order("broken", f"BME was 1 again by {copied.name}", risen)
        if risen:
            return order("unknown", f"BME was 1 again about {copied.name}", risen)
        if samples[-1].t_ns < copied.t_ns and not samples[-1].gone:
            return order("unknown", f"nobody looked at its BME as far as {copied.name}")
        return Order("kept", f"{vf}: BME was 0 or the VF gone before {limit}")
    if not later:
        return order("unknown", f"its BME was 1 when last seen, before {limit}")
    cleared = next((s for s in later if not s.masters), None)
    late = (
        f"first seen 0 {_ms(cleared.t_ns - last_pass.t_ns)} ms later" if cleared else "to the end"
    )
    return order("broken", f"BME was still 1 at {limit}, {late}", cleared)


def _change_about(samples: list[BmeSample], moment: Event) -> BmeSample | None:
    """A change of BME that may have come before *moment* or after it."""
    changes = (now for was, now in pairwise(samples) if was.masters != now.masters)
    return next((s for s in changes if abs(s.t_ns - moment.t_ns) <= _doubt(s, moment)), None)


def _from_release(measured: Measured, last_pass: Event, stop: Event) -> list[Order]:
    """Without an observer the conductor's own event still says whether the VF was gone."""
    gone = [event for event in measured.events if event.name == RELEASED]
    if not gone:
        return []
    first, limit = min(gone, key=lambda event: event.t_ns), _named(last_pass)
    shown = excerpt(measured, [first.t_ns, last_pass.t_ns, stop.t_ns])
    if abs(first.t_ns - last_pass.t_ns) <= _doubt(first, last_pass):
        why = f"the VF was released too close to {limit} for the clocks to tell which came first"
        return [Order("unknown", why, shown)]
    if first.t_ns < last_pass.t_ns:
        return [Order("kept", f"the VF was released before {limit}")]
    late = _ms(first.t_ns - last_pass.t_ns)
    return [Order("broken", f"the VF was released {late} ms after {limit}", shown)]


def reasons(orders: Iterable[Order], outcome: Literal["broken", "unknown"]) -> Iterable[str]:
    """A sentence for each of *orders* that came out so; what is broken by its name."""
    named = f"{BROKEN}: " if outcome == "broken" else ""
    return (named + order.why for order in orders if order.outcome == outcome)


def _named(last_pass: Event) -> str:
    return "STOP" if last_pass.name == "STOP" else "the last pass before STOP"


def surely_before(one: BmeSample | Event, other: BmeSample | Event) -> bool:
    """Whether *one* came first, whatever the clocks and the time between two looks make of it."""
    return other.t_ns - one.t_ns > _doubt(one, other)


def _doubt(one: BmeSample | Event, other: BmeSample | Event) -> int:
    return one.uncertainty_ns + other.uncertainty_ns


def _ms(ns: int) -> str:
    return f"{ns / 1e6:.3g}" if abs(ns) < 100_000_000 else f"{ns / 1e6:.0f}"
