"""The order by the migration states of VFs that VFIO stops, where QEMU drives them.

QEMU stops a device as it stops the guest, says STOP then, and copies the last pages.  So the two
are as near to each other as the clocks can tell, and only what came later beyond doubt came too
late.  Ref: QEMU, system/cpus.c, do_vm_stop(), and hw/vfio/migration.c, vfio_vmstate_change().
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import groupby

from harness.analysis.excerpt import excerpt
from harness.analysis.measured import VFIO_RUNS, VFIO_STATE, VFIO_STOPPED, Event, Measured
from harness.analysis.order.copying import Copying, doubt_ns, in_ms, surely_before
from harness.analysis.order.outcome import Order, Outcome

TOLD_TO_NS = 20_000_000
"""How exactly it must be known when VFIO stopped a device: reading its state waits for it."""


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
    stop, copied = copying.stop, copying.copied
    for began, halted in _stretches(states):
        outcome = _reaches(began, halted, copying)
        if outcome == "kept":
            continue
        why = f"VFIO had {vf} run again before its last pages were copied"
        if began is None and halted:
            why = f"VFIO stopped {vf} {in_ms(halted.t_ns - stop.t_ns)} ms after the guest"
        if outcome == "unknown":
            is_of_before = began is None or surely_before(began, stop)
            what, edge = ("stopped", halted) if is_of_before else ("started", began)
            assert edge is not None
            why = f"when VFIO {what} {vf} is known to {in_ms(doubt_ns(edge, stop))} ms only"
        elif began and began.name not in VFIO_RUNS:
            state = began.name.removeprefix(VFIO_STATE)
            outcome, why = "unknown", f"{vf} was in VFIO's state {state}, in which it may do DMA"
        moments = [each.t_ns for each in (began, halted, stop, copied) if each]
        return Order(outcome, why, excerpt(measured, moments))
    if not _was_seen(measured, vf, copied):
        moments = [stop.t_ns, copied.t_ns]
        why = f"nobody looked at {vf} as far as {copied.name}"
        return Order("unknown", why, excerpt(measured, moments))
    return Order("kept", f"VFIO had stopped {vf} by STOP")


def _reaches(began: Event | None, halted: Event | None, copying: Copying) -> Outcome:
    """Whether a device that ran from *began* to *halted* may have written after STOP.

    After *copied* it may.  QEMU stops it just before it says STOP, which makes up for TOLD_TO_NS.
    """
    stop, copied = copying.stop, copying.copied
    if (halted and surely_before(halted, stop)) or (began and surely_before(copied, began)):
        return "kept"
    is_of_before = began is None or surely_before(began, stop)
    began_surely = is_of_before or (began is not None and surely_before(began, copied))
    if began_surely and (halted is None or surely_before(stop, halted)):
        return "broken"
    is_near = halted is not None and doubt_ns(halted, stop) <= TOLD_TO_NS
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


def _was_seen(measured: Measured, vf: str, copied: Event) -> bool:
    """Whether it was looked at to the end: a state is read with each sample of a BME that is 1."""
    ours = [s for s in measured.bme if s.host == measured.source and s.vf == vf]
    last = max(ours, key=lambda sample: sample.t_ns, default=None)
    return last is not None and (last.gone or surely_before(copied, last))
