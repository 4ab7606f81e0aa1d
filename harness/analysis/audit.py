"""What an audit of one way to stop a VF came to: its register, its frames, the guest's memory."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from harness.agent.bme import HOLE_NS
from harness.analysis.audit_records import NOT_BACK, AuditRecords, Evidence
from harness.analysis.mastery import Stretch, stretches
from harness.analysis.measured import BmeSample
from harness.analysis.packets import arrivals
from harness.errors import MeasurementError
from harness.uapi.pci_regs import Command


@dataclass(frozen=True, slots=True)
class Audited:
    """One way to stop a VF; times are ms since the step was asked for, in the peer's clock.

    Fields that are not listed are those of `AuditRecords`.

    uncertainty_ms  how exactly a moment is known, by the clocks; a time between two to twice that
    step_ms         how long the step took
    looked_ms       from when to when the VF was looked at
    command         the samples of COMMAND, each with its time
    sent, returned  frames sent while it was looked at, and what came back then: whenever it was
                    sent, twice or changed
    let_in          frames that were sent and came back while BME was surely clear, from when the
                    step was asked for
    newest_ms       when the newest frame that is in the guest's memory was sent
    paused_ms       the longest stretch without a frame, from the step to the look's end
    back_ms         how long after it was given back the first frame came
    """

    way: str
    trigger: str | None
    host: str
    vf: str
    driver: str
    own_memory_enable: bool
    uncertainty_ms: float
    step_ms: float
    looked_ms: tuple[float, float]
    command: tuple[tuple[float, BmeSample], ...]
    sent: int
    returned: int
    let_in: int
    newest_ms: float
    paused_ms: float
    evidence: Evidence
    back: str
    back_ms: float | None
    trouble: str

    @property
    def is_master(self) -> bool:
        """Whether it might do DMA for some of the look at least, beyond doubt.

        It was there then, and BME was set.
        """
        return any(each.masters and each.surely_meets(*self.looked_ms) for each in self._stretches)

    @property
    def is_gone(self) -> bool:
        """Whether it was not there then."""
        return self._at_look.gone

    @property
    def is_silent(self) -> bool:
        """Whether nothing came in then, by any of the signs."""
        is_later = self.newest_ms - self.looked_ms[0] > self.uncertainty_ms
        return not (self.returned or is_later or self._memory_signs)

    @property
    def cleared_ms(self) -> float | None:
        """When BME was first seen clear, or the VF gone; None if it never was.

        Before 0 where it was so when the step was asked for.
        """
        return self._first(lambda sample: not sample.masters)

    @property
    def set_again_ms(self) -> float | None:
        """When it was first seen set after that, before the step was taken back."""
        cleared_ms = self.cleared_ms
        return None if cleared_ms is None else self._first(lambda s: s.masters, cleared_ms)

    @property
    def memory_cleared_ms(self) -> float | None:
        """When Memory Enable was first seen clear, or the VF gone.

        Of a VF that has no such bit of its own, VFIO makes one up and sysfs shows none.
        """
        has_bit = self.own_memory_enable
        return self._first(lambda s: s.gone or (has_bit and not s.command & Command.MEMORY))

    @property
    def faults(self) -> list[str]:
        """What no VF may do: write, or let frames in, when it must not master the bus.

        A frame counts that was sent and came back while BME was surely clear.  Where that was so
        all through the look, so does whatever came back in it, and whatever else shows in it.
        """
        signs = self._frame_signs + ([] if self._may_master else self._memory_signs)
        told = "gone or not allowed" if self.is_gone else "not allowed"
        still = f"was {told} to master the bus, and still {', '.join(signs)}"
        return [f"VF {self.vf} of {self.host} {still}"] if signs else []

    @property
    def doubts(self) -> list[str]:
        """What may be such a fault, or none: when BME changed is not known exactly enough."""
        if self.is_master or not self._may_master or not self._memory_signs:
            return []
        signs = ", ".join(self._memory_signs)
        return [f"BME may have been 1 for a part of the look, or not, and {signs}"]

    @property
    def _frame_signs(self) -> list[str]:
        """What shows that it let frames in while BME was clear, a few words each."""
        came_in = self.let_in if self._may_master else max(self.let_in, self.returned)
        signs = [f"{came_in} frames came in"] if came_in else []
        for stretch in self._stretches:
            covers_end = stretch.since < self.looked_ms[1] <= stretch.until
            late_ms = self.newest_ms - stretch.since
            if not stretch.masters and covers_end and late_ms > 0:
                signs.append(f"a frame sent {late_ms:.0f} ms later is in memory")
        return signs

    @property
    def _memory_signs(self) -> list[str]:
        """What shows that it wrote while it was looked at."""
        seen = self.evidence
        signs = {
            f"{seen.changed} pages under its rings changed": seen.has_rings and seen.changed,
            f"{seen.accesses} accesses were logged": seen.accesses,
        }
        return [sign for sign, is_there in signs.items() if is_there]

    @property
    def _stretches(self) -> list[Stretch]:
        return stretches(self.command, 2 * self.uncertainty_ms)

    @property
    def _may_master(self) -> bool:
        return any(each.masters and each.may_meet(*self.looked_ms) for each in self._stretches)

    @property
    def _at_look(self) -> BmeSample:
        earlier = [sample for ms, sample in self.command if ms <= self.looked_ms[0]]
        return earlier[-1] if earlier else self.command[0][1]

    def _first(
        self, meets: Callable[[BmeSample], bool], since_ms: float | None = None
    ) -> float | None:
        """When a sample first *meets* that, to the look's end.

        Without *since_ms* from the sample on that was true as the step was asked for.
        """
        if since_ms is None:
            since_ms = max((ms for ms, _ in self.command if ms <= 0), default=0)
        end_ms = self.looked_ms[1]
        return next((ms for ms, s in self.command if since_ms <= ms <= end_ms and meets(s)), None)


def audited(records: AuditRecords, frame: pd.DataFrame, *, clock_uncertainty_ms: float) -> Audited:
    """What *records* come to; *frame* has the frames of their flow, their zero is ``asked``.

    Raises MeasurementError where there is nothing to go by, since silence would say nothing then;
    where a clock is off by more than *clock_uncertainty_ms*; and where a VF went on of which the
    clocks cannot tell whether it might.
    """
    moments, evidence, samples = records.moments, records.evidence, records.samples
    looked, looked_again, taking_back = (
        t_ns - moments.asked for t_ns in (moments.looked, moments.looked_again, moments.taking_back)
    )
    surely = looked + moments.uncertainty_ns, looked_again - moments.uncertainty_ns
    meanwhile = frame[frame["sent_ns"].between(*surely)]
    newest = frame[frame["sequence"] == evidence.newest]
    if missing := _missing(records, meanwhile, newest, clock_uncertainty_ms):
        raise _not_told(records, missing, "without that, silence says nothing of the VF")
    arrived, uncertainty_ms = arrivals(records.flow) - moments.asked, _uncertainty_ms(records)
    again = arrived[arrived > taking_back]
    came_back = len(again) and records.back != NOT_BACK
    command = tuple(((sample.t_ns - moments.asked) / 1e6, sample) for sample in samples)
    found = Audited(
        way=records.way,
        trigger=records.trigger,
        host=records.host,
        vf=records.vf,
        driver=records.driver,
        own_memory_enable=records.own_memory_enable,
        uncertainty_ms=uncertainty_ms,
        step_ms=(moments.taken - moments.asked) / 1e6,
        looked_ms=(looked / 1e6, looked_again / 1e6),
        command=command,
        sent=len(meanwhile),
        returned=int(((arrived >= surely[0]) & (arrived <= surely[1])).sum()),
        let_in=_let_in(frame, stretches(command, 2 * uncertainty_ms), looked_again / 1e6),
        newest_ms=float(newest["sent_ns"].iloc[0]) / 1e6,
        paused_ms=_paused_ms(arrived, looked_again),
        evidence=evidence,
        back=records.back,
        back_ms=float(again.min() - taking_back) / 1e6 if came_back else None,
        trouble=records.trouble,
    )
    if found.doubts:
        raise _not_told(records, found.doubts, "so what it did may be a fault of the VF, or none")
    return found


def _let_in(frame: pd.DataFrame, seen: Sequence[Stretch], end_ms: float) -> int:
    """How many frames were sent and came back within one of those without BME."""
    sent_ms, returned_ms = frame["sent_ns"] / 1e6, frame["returned_ns"].astype("Float64") / 1e6
    return sum(
        int((sent_ms.ge(max(each.since, 0)) & returned_ms.le(min(each.until, end_ms))).sum())
        for each in seen
        if not each.masters
    )


def _paused_ms(arrived: np.ndarray, looked_again: int) -> float:
    """The longest time without an arrival, from the step on."""
    ends = [0, *arrived[(arrived > 0) & (arrived < looked_again)], looked_again]
    return float(np.diff(ends).max()) / 1e6


def _missing(
    records: AuditRecords, meanwhile: pd.DataFrame, newest: pd.DataFrame, limit_ms: float
) -> list[str]:
    """What keeps silence from being told, a few words each; *newest* is that frame, if sent."""
    flow = records.flow
    moved_ms, by_clocks_ms = abs(flow.clock_moved_ns) / 1e6, _uncertainty_ms(records)
    hole_ms = _hole_ns(records) / 1e6
    missing = {
        "nobody observed the VF's COMMAND register from the look's beginning to its end":
            not _is_covered(records),
        f"nobody observed it for {hole_ms:.0f} ms of the look": hole_ms,
        f"the clocks agree to {by_clocks_ms:.3g} ms only, worse than {limit_ms:g}":
            by_clocks_ms > limit_ms,
        f"the receiver's wall clock moved by {moved_ms:.3g} ms, more than {limit_ms:g}":
            moved_ms > limit_ms,
        f"our own receiver dropped {flow.receiver_dropped} frames": flow.receiver_dropped,
        f"its kernel dropped {flow.backlog_dropped} packets that may be frames":
            flow.backlog_dropped,
        "no frame was sent while the VF was looked at": meanwhile.empty,
        "no buffer in the VF's receive rings was watched": not records.evidence.buffers,
        "no frame that the flow sent was found in the guest's memory": newest.empty,
    }  # fmt: skip
    return [what for what, is_missing in missing.items() if is_missing]


def _is_covered(records: AuditRecords) -> bool:
    """Whether COMMAND was sampled from before the look until after it, beyond doubt."""
    moments, doubt_ns = records.moments, round(2e6 * _uncertainty_ms(records))
    times = [sample.t_ns for sample in records.samples]
    begin_ns, end_ns = moments.looked - doubt_ns, moments.looked_again + doubt_ns
    return bool(times) and times[0] <= begin_ns and times[-1] >= end_ns


def _hole_ns(records: AuditRecords) -> int:
    """The longest time of the look for which nobody sampled it; 0 for none that counts."""
    moments = records.moments
    holes = (
        sample.gap_ns
        for sample in records.samples
        if sample.t_ns > moments.looked and sample.t_ns - sample.gap_ns < moments.looked_again
    )
    longest = max(holes, default=0)
    return longest if longest > HOLE_NS else 0


def _uncertainty_ms(records: AuditRecords) -> float:
    """The worst of the clocks', without the time for which nobody looked."""
    by_clocks = (sample.uncertainty_ns - sample.gap_ns for sample in records.samples)
    return max([records.moments.uncertainty_ns, *by_clocks]) / 1e6


def _not_told(records: AuditRecords, what: Sequence[str], because: str) -> MeasurementError:
    """An error that says *what* keeps it from being told what the VF did, and what that means."""
    way = records.way
    return MeasurementError(
        f"{records.host}: VF {records.vf}, {way}: {'; '.join(what)}",
        because=because,
        fix=f"see audit-{way}-*, bme-{way}-* and packets-{way}-* in the test's folder",
    )
