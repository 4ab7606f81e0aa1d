"""Whether the device had stopped its DMA before the last pages were copied.

The order that loses nothing is: BME reads 0 or the VF is gone, then the last pass over the dirty
pages, then STOP.  QEMU announces each pass but the one that it makes with the guest stopped, so
what is held against the VF is the last pass announced before STOP.  Where the device tells when it
wrote, that decides: a driver can stop its DMA and leave BME set.  So can the kernel, by VFIO's
migration states, where QEMU drives it.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
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


@dataclass(frozen=True, slots=True)
class Order:
    """*kept*, *broken*, or *unknown* for a VF of the source, and a sentence that says why.

    *excerpt* has the lines of the timeline that it is about, unless it was kept.
    """

    outcome: Literal["kept", "broken", "unknown"]
    why: str
    excerpt: tuple[str, ...] = ()


def dma_order(measured: Measured) -> list[Order]:
    """One entry per VF watched on the source; none where there is no VF or no STOP."""
    if told := [e for e in measured.events if e.name == MEMORY_COMPARED and LATE_WRITES in e.data]:
        return [_told_by_log(measured, event) for event in told]
    stop = stopped(measured)
    if not measured.has_vf or (stop is None and measured.status != "completed"):
        return []
    if stop is None:
        return [Order("unknown", "QEMU says completed, and its STOP was not seen")]
    by_vfio, last_pass = _by_vfio(measured, stop), _last_pass(measured, stop)
    ours = sorted(
        (s for s in measured.bme if s.host == measured.source), key=lambda s: (s.vf, s.t_ns)
    )
    found = [
        _order_of(measured, list(samples), last_pass, stop)
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


def _told_by_log(measured: Measured, compared: Event) -> Order:
    ends = [e.t_ns for e in measured.events if e.name in ("STOP", "MIGRATION device")]
    if late := compared.data[LATE_WRITES]:
        why = f"the device wrote {late} times after the last pass had begun"
        return Order("broken", why, excerpt(measured, ends))
    if close := compared.data[CLOSE_WRITES]:
        why = f"the device wrote {close} times about when the last pass began, too close to tell"
        return Order("unknown", why, excerpt(measured, ends))
    return Order("kept", "the device's last write came before the last pass, by its own log")


def _by_vfio(measured: Measured, stop: Event) -> dict[str, Order]:
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
        vf: _told_by_vfio(measured, vf, states, stop)
        for vf, states in ours.items()
        if any(state.name in VFIO_STOPPED for state in states)
    }


def _told_by_vfio(measured: Measured, vf: str, states: Sequence[Event], stop: Event) -> Order:
    by_stop = [state for state in states if state.t_ns <= stop.t_ns + _doubt(state, stop)]
    late = next(state for state in states if state.name in VFIO_STOPPED)
    halted = by_stop[-1] if by_stop and by_stop[-1].name in VFIO_STOPPED else late
    doubt_ns, late_ns = _doubt(halted, stop), halted.t_ns - stop.t_ns
    shown = excerpt(measured, [halted.t_ns, stop.t_ns])
    if halted not in by_stop:
        return Order("broken", f"VFIO stopped {vf} {_ms(late_ns)} ms after the guest", shown)
    if doubt_ns > TOLD_TO_NS:
        why = f"when VFIO stopped {vf} is known to {_ms(doubt_ns)} ms only"
        return Order("unknown", why, shown)
    if halted is not by_stop[-1]:
        return Order("broken", f"VFIO had {vf} run again before STOP", shown)
    return Order("kept", f"VFIO had stopped {vf} by STOP, to {_ms(doubt_ns)} ms")


def _order_of(measured: Measured, samples: list[BmeSample], last_pass: Event, stop: Event) -> Order:
    vf = f"VF {samples[0].vf} of {samples[0].host}"
    limit = _named(last_pass)

    def shown(*others: BmeSample | None) -> tuple[str, ...]:
        moments = [last_pass.t_ns, stop.t_ns, *(other.t_ns for other in others if other)]
        return excerpt(measured, moments)

    change = _change_about(samples, last_pass)
    if change is not None:
        doubt = _ms(_doubt(change, last_pass))
        why = (
            f"{vf}: its BME changed within {doubt} ms of {limit}, too close for the clocks to tell"
        )
        return Order("unknown", f"{why} which came first", shown(change))
    earlier = [s for s in samples if s.t_ns <= last_pass.t_ns]
    later = [s for s in samples if s.t_ns > last_pass.t_ns]
    if not earlier:
        return Order("unknown", f"{vf}: nobody looked at its BME before {limit}", shown())
    if not earlier[-1].masters:
        risen = next(
            (s for s in later if s.masters and s.t_ns <= stop.t_ns + _doubt(s, stop)), None
        )
        if risen is None and not samples[-1].gone and samples[-1].t_ns < stop.t_ns:
            return Order("unknown", f"{vf}: nobody looked at its BME as far as STOP", shown())
        if risen is None:
            return Order("kept", f"{vf}: BME was 0 or the VF gone before {limit}")
        too_close = risen.t_ns >= stop.t_ns - _doubt(risen, stop)
        why = f"{vf}: BME was 1 again {'about when the guest stopped' if too_close else 'by STOP'}"
        return Order("unknown" if too_close else "broken", why, shown(risen))
    if not later:
        return Order("unknown", f"{vf}: its BME was 1 when last seen, before {limit}", shown())
    cleared = next((s for s in later if not s.masters), None)
    late = (
        f"first seen 0 {_ms(cleared.t_ns - last_pass.t_ns)} ms later" if cleared else "to the end"
    )
    return Order("broken", f"{vf}: BME was still 1 at {limit}, {late}", shown(cleared))


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


def surely_before(one: Event, other: Event) -> bool:
    """Whether *one* came first, whatever the clocks and the time between two looks make of it."""
    return other.t_ns - one.t_ns > _doubt(one, other)


def _doubt(one: BmeSample | Event, other: Event) -> int:
    return one.uncertainty_ns + other.uncertainty_ns


def _ms(ns: int) -> str:
    return f"{ns / 1e6:.3g}"
