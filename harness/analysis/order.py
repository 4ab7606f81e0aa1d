"""Whether the device had stopped its DMA before the last pages were copied.

The last dirty-page pass runs while the guest is stopped, so BME must read 0, or the VF be gone,
before the source's STOP: what a VF writes later may miss the copy.  Where the device tells when it
wrote, that decides: a driver can stop its DMA and leave BME set.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import groupby, pairwise
from typing import Literal

from harness.analysis.measured import MEMORY_COMPARED, BmeSample, Event, Measured
from harness.analysis.phases import RELEASED, stopped


@dataclass(frozen=True, slots=True)
class Order:
    """*kept*, *broken*, or *unknown* for a VF of the source, and a sentence that says why."""

    outcome: Literal["kept", "broken", "unknown"]
    why: str


def dma_order(measured: Measured) -> list[Order]:
    """One entry per VF watched on the source; none where there is no VF or no STOP."""
    if told := [event for event in measured.events if event.name == MEMORY_COMPARED]:
        return [_told_by_log(event) for event in told]
    stop = stopped(measured)
    if stop is None or not measured.has_vf:
        return []
    ours = sorted(
        (s for s in measured.bme if s.host == measured.source), key=lambda s: (s.vf, s.t_ns)
    )
    found = [_order_of(list(samples), stop) for _, samples in groupby(ours, key=lambda s: s.vf)]
    nobody = Order("unknown", "nobody looked at BME of the source's VF, nor at its release")
    return found or _from_release(measured, stop) or [nobody]


def _told_by_log(compared: Event) -> Order:
    late = compared.data["late_writes"]
    if late:
        return Order("broken", f"the device wrote {late} times after the last pass had begun")
    return Order("kept", "the device's last write came before the last pass, by its own log")


def _order_of(samples: list[BmeSample], stop: Event) -> Order:
    vf = f"VF {samples[0].vf} of {samples[0].host}"
    earlier = [s for s in samples if s.t_ns <= stop.t_ns]
    later = [s for s in samples if s.t_ns > stop.t_ns]
    change = _nearest_change(samples, stop)
    if change is not None and abs(change.t_ns - stop.t_ns) <= _doubt(change, stop):
        return Order(
            "unknown",
            f"{vf}: its BME changed within {_ms(_doubt(change, stop))} ms of STOP,"
            " too close for the clocks to tell which came first",
        )
    if not earlier:
        return Order("unknown", f"{vf}: nobody looked at its BME before STOP")
    if not earlier[-1].masters:
        return Order("kept", f"{vf}: BME was 0 or the VF gone before STOP")
    if not later:
        return Order("unknown", f"{vf}: its BME was 1 when last seen, before STOP")
    cleared = next((s for s in later if not s.masters), None)
    then = f"first seen 0 {_ms(cleared.t_ns - stop.t_ns)} ms later" if cleared else "and stayed so"
    return Order("broken", f"{vf}: BME was still 1 at the end of pre-copy, {then}")


def _nearest_change(samples: list[BmeSample], stop: Event) -> BmeSample | None:
    changes = [now for was, now in pairwise(samples) if was.masters != now.masters]
    return min(changes, key=lambda s: abs(s.t_ns - stop.t_ns), default=None)


def _from_release(measured: Measured, stop: Event) -> list[Order]:
    """Without an observer the conductor's own event still says whether the VF was gone."""
    gone = [event for event in measured.events if event.name == RELEASED]
    if not gone:
        return []
    first = min(gone, key=lambda event: event.t_ns)
    if abs(first.t_ns - stop.t_ns) <= _doubt(first, stop):
        return [Order("unknown", "the VF was released too close to STOP for the clocks to tell")]
    if first.t_ns < stop.t_ns:
        return [Order("kept", "the VF was released before STOP")]
    late = _ms(first.t_ns - stop.t_ns)
    return [Order("broken", f"the VF was released {late} ms after the guest was stopped")]


def _doubt(one: BmeSample | Event, other: Event) -> int:
    return one.uncertainty_ns + other.uncertainty_ns


def _ms(ns: int) -> str:
    return f"{ns / 1e6:.3g}"
