"""The order by Bus Master Enable of a VF of the source, as an observer sampled it."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

from harness.agent.bme import HOLE_NS
from harness.analysis.excerpt import excerpt
from harness.analysis.measured import BmeSample, Measured
from harness.analysis.order.copying import Copying, doubt_ns, in_ms, surely_before
from harness.analysis.order.outcome import Order, Outcome

Found = tuple[Outcome, str, BmeSample | None]
"""What came out, why, and the sample that shows it."""


def told_by_bme(measured: Measured, samples: Sequence[BmeSample], copying: Copying) -> Order:
    """What *samples* of one VF say, in order of time.

    BME must read 0 from before the last pass until the last page is copied.
    """
    outcome, why, sample = _found(samples, copying)
    told = f"VF {samples[0].vf} of {samples[0].host}: {why}"
    if outcome == "kept":
        return Order(outcome, told)
    moments = [each.t_ns for each in (copying.last_pass, copying.stop, sample) if each]
    return Order(outcome, told, excerpt(measured, moments))


def _found(samples: Sequence[BmeSample], copying: Copying) -> Found:
    last_pass, limit = copying.last_pass, copying.limit
    if change := _change_about(samples, copying):
        doubt = in_ms(doubt_ns(change, last_pass))
        why = f"its BME changed within {doubt} ms of {limit}, too close for the clocks to tell"
        return "unknown", f"{why} which came first", change
    earlier = [sample for sample in samples if surely_before(sample, last_pass)]
    later = [sample for sample in samples if surely_before(last_pass, sample)]
    if not earlier:
        return "unknown", f"nobody looked at its BME before {limit}", None
    if earlier[-1].masters:
        return _found_set(samples, later, copying)
    return _found_clear(samples, later, copying)


def _found_set(samples: Sequence[BmeSample], later: Sequence[BmeSample], copying: Copying) -> Found:
    """Where BME was 1 when it was last seen before the last pass."""
    if not later:
        return "unknown", f"its BME was 1 when last seen, before {copying.limit}", None
    hole = _hole(samples, copying)
    if hole and _begins_before_pass(hole, copying) and not surely_before(hole, copying.copied):
        return "unknown", _unseen(hole), hole
    cleared = next((sample for sample in later if not sample.masters), None)
    late = in_ms(cleared.t_ns - copying.last_pass.t_ns) if cleared else ""
    until = f"first seen 0 {late} ms later" if cleared else "to the end"
    return "broken", f"BME was still 1 at {copying.limit}, {until}", cleared


def _found_clear(
    samples: Sequence[BmeSample], later: Sequence[BmeSample], copying: Copying
) -> Found:
    """Where it was 0, or the VF gone."""
    copied = copying.copied
    risen = next((s for s in later if s.masters and not surely_before(copied, s)), None)
    if risen and surely_before(risen, copied):
        return "broken", f"BME was 1 again by {copied.name}", risen
    if risen:
        return "unknown", f"BME was 1 again about {copied.name}", risen
    if not (samples[-1].gone or surely_before(copied, samples[-1])):
        return "unknown", f"nobody looked at its BME as far as {copied.name}", None
    if hole := _hole(samples, copying):
        return "unknown", _unseen(hole), hole
    return "kept", f"BME was 0 or the VF gone before {copying.limit}", None


def _change_about(samples: Sequence[BmeSample], copying: Copying) -> BmeSample | None:
    """A change of BME that may have come before the last pass or after it."""
    changes = [now for was, now in pairwise(samples) if was.masters != now.masters]
    near = (s for s in changes if not _is_apart(s, copying))
    return next(near, None)


def _is_apart(sample: BmeSample, copying: Copying) -> bool:
    last_pass = copying.last_pass
    return surely_before(sample, last_pass) or surely_before(last_pass, sample)


def _hole(samples: Sequence[BmeSample], copying: Copying) -> BmeSample | None:
    """The sample that ends a time for which nobody looked, though pages were copied in it."""
    begin_ns, end_ns = copying.last_pass.t_ns, copying.copied.t_ns
    for was, now in pairwise(samples):
        is_of_then = now.t_ns - now.gap_ns < end_ns and now.t_ns > begin_ns
        if now.gap_ns > HOLE_NS and is_of_then and not was.gone:
            return now
    return None


def _begins_before_pass(hole: BmeSample, copying: Copying) -> bool:
    return hole.t_ns - hole.gap_ns <= copying.last_pass.t_ns


def _unseen(hole: BmeSample) -> str:
    return f"nobody looked at its BME for {in_ms(hole.gap_ns)} ms"
