"""The order by the migration states of VFs that VFIO stops, where QEMU drives them.

QEMU stops a device as it stops the guest, says STOP then, and copies the last pages.  So the two
are as near to each other as the clocks can tell, and only what came later beyond doubt came too
late.  Ref: QEMU, system/cpus.c, do_vm_stop(), and hw/vfio/migration.c, vfio_vmstate_change().
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import groupby, pairwise

from harness.analysis.excerpt import excerpt
from harness.analysis.measured import VFIO_RUNS, VFIO_STATE, VFIO_STOPPED, Event, Measured
from harness.analysis.order.copying import Copying, doubt_ns, in_ms, surely_before
from harness.analysis.order.outcome import Order, Outcome

TOLD_TO_NS = 20_000_000
"""How exactly it must be known when VFIO stopped a device: reading its state waits for it."""

Unstopped = tuple[Event | None, Event | None]
"""From when to when a device was not stopped; None: from before it was seen, or to no end."""


def told_by_vfio(measured: Measured, copying: Copying) -> dict[str, Order]:
    """By its name what is to be said of each VF of the source that VFIO stopped meanwhile."""
    ours: dict[str, list[Event]] = {}
    for event in sorted(measured.events, key=lambda event: event.t_ns):
        is_ours = event.source == f"vfio:{measured.source}" and event.t_ns >= measured.asked_ns
        if is_ours and event.name.startswith(VFIO_STATE):
            ours.setdefault(str(event.data.get("vf", "")), []).append(event)
    return {
        vf: _told(measured, vf, states, copying)
        for vf, states in ours.items()
        if any(state.name in VFIO_STOPPED for state in states)
    }


def _told(measured: Measured, vf: str, states: Sequence[Event], copying: Copying) -> Order:
    """By the stretches in which it was not stopped: none may lie between STOP and *copied*."""
    found = [_told_of(measured, vf, stretch, copying) for stretch in _stretches(states)]
    for outcome in ("broken", "unknown"):
        for order in found:
            if order.outcome == outcome:
                return order
    if not _was_seen(measured, vf, copying.copied):
        moments = [copying.stop.t_ns, copying.copied.t_ns]
        why = f"nobody looked at {vf} as far as {copying.copied.name}"
        return Order("unknown", why, excerpt(measured, moments))
    return Order("kept", f"VFIO had stopped {vf} by STOP")


def _told_of(measured: Measured, vf: str, stretch: Unstopped, copying: Copying) -> Order:
    began, ended = stretch
    stop, copied = copying.stop, copying.copied
    outcome = _reaches(began, ended, copying)
    why = f"VFIO had {vf} run again before its last pages were copied"
    if began is None and ended:
        why = f"VFIO stopped {vf} {in_ms(ended.t_ns - stop.t_ns)} ms after the guest"
    if outcome == "unknown":
        is_of_before = began is None or surely_before(began, stop)
        what, edge = ("stopped", ended) if is_of_before else ("started", began)
        assert edge is not None
        why = f"when VFIO {what} {vf} is known to {in_ms(doubt_ns(edge, stop))} ms only"
    elif outcome == "broken" and began and began.name not in VFIO_RUNS:
        state = began.name.removeprefix(VFIO_STATE)
        outcome, why = "unknown", f"{vf} was in VFIO's state {state}, in which it may do DMA"
    moments = [each.t_ns for each in (began, ended, stop, copied) if each]
    return Order(outcome, why, () if outcome == "kept" else excerpt(measured, moments))


def _reaches(began: Event | None, ended: Event | None, copying: Copying) -> Outcome:
    """Whether a device that ran from *began* to *ended* may have written after STOP.

    After *copied* it may.  QEMU stops it just before it says STOP, which makes up for TOLD_TO_NS.
    """
    stop, copied = copying.stop, copying.copied
    if (ended and surely_before(ended, stop)) or (began and surely_before(copied, began)):
        return "kept"
    is_of_before = began is None or surely_before(began, stop)
    began_surely = is_of_before or (began is not None and surely_before(began, copied))
    if began_surely and (ended is None or surely_before(stop, ended)):
        return "broken"
    is_near = ended is not None and doubt_ns(ended, stop) <= TOLD_TO_NS
    return "kept" if is_of_before and is_near else "unknown"


def _stretches(states: Sequence[Event]) -> Iterator[Unstopped]:
    """From when to when it was not stopped, those in which it runs apart from all others.

    Of one that ran in the first of *states* nobody knows the beginning.
    """
    kinds = [next(alike) for _, alike in groupby(states, key=lambda state: _kind_of(state.name))]
    if kinds[0].name in VFIO_STOPPED:
        yield None, kinds[0]
    for began, ended in pairwise([*kinds, None]):
        if began and began.name not in VFIO_STOPPED:
            is_first = began is kinds[0] and began.name in VFIO_RUNS
            yield None if is_first else began, ended


def _kind_of(state: str) -> tuple[bool, bool]:
    return state in VFIO_STOPPED, state in VFIO_RUNS


def _was_seen(measured: Measured, vf: str, copied: Event) -> bool:
    """Whether it was looked at to the end: a state is read with each sample of a BME that is 1."""
    ours = [s for s in measured.bme if s.host == measured.source and s.vf == vf]
    last = max(ours, key=lambda sample: sample.t_ns, default=None)
    return last is not None and (last.gone or surely_before(copied, last))
