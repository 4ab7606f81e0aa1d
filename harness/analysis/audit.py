"""What an audit of one way to stop a VF came to: its register, its frames, the guest's memory."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import pandas as pd

from harness.analysis.audit_records import NOT_BACK, AuditRecords, Evidence
from harness.analysis.measured import BmeSample
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
    sent, returned  frames sent while it was looked at, and frames that came back then
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
        return self._mastered(widened=False)

    @property
    def is_gone(self) -> bool:
        """Whether it was not there then."""
        return self._at_look.gone

    @property
    def is_silent(self) -> bool:
        """Whether nothing came in then, by any of the signs."""
        return not self._signs

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
        """What no VF may do: write, or let frames in, when it must not master the bus."""
        if self.is_silent or self._mastered(widened=True):
            return []
        told = "gone" if self.is_gone else "not allowed to master the bus"
        what = f"was {told} during the look, and still {', '.join(self._signs)}"
        return [f"VF {self.vf} of {self.host} {what}"]

    @property
    def doubts(self) -> list[str]:
        """What may be such a fault, or none: when BME changed is not known exactly enough."""
        if self.is_silent or self.is_master or not self._mastered(widened=True):
            return []
        return [f"BME may have been 1 for a part of the look, or not, and {', '.join(self._signs)}"]

    @property
    def _signs(self) -> list[str]:
        """What shows that the VF went on, a few words each."""
        seen, late_ms = self.evidence, self.newest_ms - self.looked_ms[0]
        signs = {
            f"{self.returned} frames came in": self.returned,
            f"a frame sent {late_ms:.0f} ms into it is in memory": late_ms > self.uncertainty_ms,
            f"{seen.changed} pages under its rings changed": seen.has_rings and seen.changed,
            f"{seen.accesses} accesses were logged": seen.accesses,
        }
        return [sign for sign, is_there in signs.items() if is_there]

    @property
    def _at_look(self) -> BmeSample:
        earlier = [sample for ms, sample in self.command if ms <= self.looked_ms[0]]
        return earlier[-1] if earlier else self.command[0][1]

    def _mastered(self, *, widened: bool) -> bool:
        """Whether BME was set for some of the look, each stretch at its shortest or *widened*.

        A change came after the sample before it, and the clocks of both may be off.
        """
        clocks_ms, (look_ms, end_ms) = 2 * self.uncertainty_ms, self.looked_ms
        never = (np.inf, self.command[-1][1])
        for (ms, sample), (until_ms, then) in pairwise([*self.command, never]):
            since_ms = ms + clocks_ms
            if widened:
                since_ms = ms - sample.gap_ns / 1e6 - clocks_ms
                until_ms += clocks_ms
            else:
                until_ms -= then.gap_ns / 1e6 + clocks_ms
            if sample.masters and max(since_ms, look_ms) < min(until_ms, end_ms):
                return True
        return False

    def _first(
        self, meets: Callable[[BmeSample], bool], since_ms: float | None = None
    ) -> float | None:
        """When a sample first *meets* that, to the look's end.

        Without *since_ms* from the sample on that was true as the step was asked for.
        """
        if since_ms is None:
            asked_ms = -2 * self.uncertainty_ms
            since_ms = max((ms for ms, _ in self.command if ms < asked_ms), default=asked_ms)
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
    returned = frame["returned_ns"].dropna().sort_values()
    ends = [0, *returned[returned.between(0, looked_again)], looked_again]
    again = returned[returned > taking_back]
    came_back = len(again) and records.back != NOT_BACK
    found = Audited(
        way=records.way,
        trigger=records.trigger,
        host=records.host,
        vf=records.vf,
        driver=records.driver,
        own_memory_enable=records.own_memory_enable,
        uncertainty_ms=_uncertainty_ms(records),
        step_ms=(moments.taken - moments.asked) / 1e6,
        looked_ms=(looked / 1e6, looked_again / 1e6),
        command=tuple(((sample.t_ns - moments.asked) / 1e6, sample) for sample in samples),
        sent=len(meanwhile),
        returned=int(returned.between(*surely).sum()),
        newest_ms=float(newest["sent_ns"].iloc[0]) / 1e6,
        paused_ms=float(np.diff(ends).max()) / 1e6,
        evidence=evidence,
        back=records.back,
        back_ms=float(again.min() - taking_back) / 1e6 if came_back else None,
        trouble=records.trouble,
    )
    if found.doubts:
        raise _not_told(records, found.doubts, "so what it did may be a fault of the VF, or none")
    return found


def _missing(
    records: AuditRecords, meanwhile: pd.DataFrame, newest: pd.DataFrame, limit_ms: float
) -> list[str]:
    """What keeps silence from being told, a few words each; *newest* is that frame, if sent."""
    flow, moments, samples = records.flow, records.moments, records.samples
    dropped = flow.receiver_dropped + flow.backlog_dropped
    moved_ms, by_clocks_ms = abs(flow.clock_moved_ns) / 1e6, _uncertainty_ms(records)
    covered = (
        samples and samples[0].t_ns <= moments.looked <= moments.looked_again <= samples[-1].t_ns
    )
    missing = {
        "nobody observed the VF's COMMAND register from the look's beginning to its end":
            not covered,
        f"the clocks agree to {by_clocks_ms:.3g} ms only, worse than {limit_ms:g}":
            by_clocks_ms > limit_ms,
        f"the receiver's wall clock moved by {moved_ms:.3g} ms, more than {limit_ms:g}":
            moved_ms > limit_ms,
        f"our own receiver dropped {dropped} frames": dropped,
        "no frame was sent while the VF was looked at": meanwhile.empty,
        "no buffer in the VF's receive rings was watched": not records.evidence.buffers,
        "no frame that the flow sent was found in the guest's memory": newest.empty,
    }  # fmt: skip
    return [what for what, is_missing in missing.items() if is_missing]


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
        fix=f"see look-{way}-*, bme-{way}-* and packets-{way}-* in the test's folder",
    )
