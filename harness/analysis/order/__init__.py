"""Whether the device had stopped its DMA before the last pages were copied.

The order that loses nothing is: BME reads 0 or the VF is gone, then the last pass over the dirty
pages, then STOP; and it stays so until the last page is copied, which is after STOP.  QEMU
announces each pass but the one that it makes with the guest stopped (the *stopped pass*), so what
is held against the VF is the last pass announced before STOP.  Where the device tells when it
wrote and QEMU which pages it copied, that decides, against the stopped pass: a driver can stop its
DMA and leave BME set.  So can the kernel, by VFIO's migration states, where QEMU drives it.  A
device's last write is held against the same moment, beside what BME or VFIO says.
"""

from __future__ import annotations

from collections.abc import Iterable
from itertools import groupby
from typing import Literal

from harness.analysis.excerpt import excerpt
from harness.analysis.marks import stopped
from harness.analysis.measured import (
    CLOSE_WRITES,
    DEVICE_WROTE,
    LATE_WRITES,
    MEMORY_COMPARED,
    WRITES,
    Event,
    Measured,
)
from harness.analysis.order.by_bme import told_by_bme
from harness.analysis.order.by_vfio import told_by_vfio
from harness.analysis.order.copying import copying, in_ms, surely_before
from harness.analysis.order.outcome import Order

BROKEN = "DMA order broken"
"""The name of this failure; a verdict's reason begins with it."""


def dma_order(measured: Measured) -> list[Order]:
    """One entry per VF watched on the source, and one for a device that wrote too late.

    One entry says so where nobody watched.

    None without a VF, nor of a migration that came to no STOP and did not complete.
    """
    if told := [e for e in measured.events if e.name == MEMORY_COMPARED and LATE_WRITES in e.data]:
        return [_told_by_log(measured, event) for event in told]
    stop = stopped(measured)
    if measured.scheme.vf == "none" or (stop is None and measured.status != "completed"):
        return []
    if stop is None:
        return [Order("unknown", "QEMU says completed, and its STOP was not seen")]
    how = copying(measured, stop)
    if how is None:
        return [Order("unknown", "QEMU says completed, and when its source did so was not seen")]
    by_vfio = told_by_vfio(measured, how)
    ours = sorted(
        (s for s in measured.bme if s.host == measured.source), key=lambda s: (s.vf, s.t_ns)
    )
    found = [
        told_by_bme(measured, list(samples), how)
        for vf, samples in groupby(ours, key=lambda s: s.vf)
        if vf not in by_vfio
    ]
    found += by_vfio.values()
    found += _told_by_last_write(measured, how.stop if by_vfio else how.last_pass)
    return found or [Order("unknown", "nobody looked at BME of the source's VF")]


def reasons(orders: Iterable[Order], outcome: Literal["broken", "unknown"]) -> Iterable[str]:
    """A sentence for each of *orders* that came out so; what is broken by its name."""
    named = f"{BROKEN}: " if outcome == "broken" else ""
    return (named + order.why for order in orders if order.outcome == outcome)


def _told_by_last_write(measured: Measured, limit: Event) -> Iterable[Order]:
    """Say of each device that keeps a log whether it wrote after *limit*, as it can with BME clear.

    The VF of a guest that did not move writes on.
    """
    for wrote in (event for event in measured.events if event.name == DEVICE_WROTE):
        if measured.status == "completed" and surely_before(limit, wrote):
            late = in_ms(wrote.t_ns - limit.t_ns)
            why = f"the device still wrote {late} ms after {limit.name}, by its own log"
            yield Order("broken", why, excerpt(measured, [limit.t_ns, wrote.t_ns]))


def _told_by_log(measured: Measured, compared: Event) -> Order:
    ends = [e.t_ns for e in measured.events if e.name in ("STOP", "MIGRATION device")]
    shown = excerpt(measured, ends)
    if late := compared.data[LATE_WRITES]:
        why = f"the device wrote {late} times after the stopped pass had begun"
        return Order("broken", why, shown)
    if close := compared.data[CLOSE_WRITES]:
        why = f"the device wrote {close} times about when the stopped pass began, too close to tell"
        return Order("unknown", why, shown)
    if not compared.data[WRITES]:
        return Order("unknown", "the device's own log has no write at all", shown)
    return Order("kept", "the device's last write came before the stopped pass, by its own log")
