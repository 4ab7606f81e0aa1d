"""What an audit of one way to stop a VF came to: its register, its frames, the guest's memory."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd

from harness.analysis.measured import BmeSample, MeasuredFlow
from harness.analysis.packets import packets
from harness.errors import MeasurementError
from harness.uapi.pci_regs import Command

NOT_BACK = "no"
"""What gave the VF back: nothing did."""


@dataclass(frozen=True, slots=True)
class Moments:
    """When what was done, in the peer's monotonic clock: ns.

    The step was asked for and *taken*; the VF was *looked* at from then to then; at last what gave
    it back was done.  All are known to within *uncertainty_ns*.
    """

    asked: int
    taken: int
    looked: int
    looked_again: int
    taking_back: int
    uncertainty_ns: int


@dataclass(frozen=True, slots=True)
class Evidence:
    """What was seen of the VF's writing while it was looked at.

    newest            number of the newest frame of the flow that is in the guest's memory
    watched, changed  pages under the receive rings, and how many of them changed
    buffers           receive buffers in these pages
    has_rings         whether the VF still had these rings; else they are those that it had before,
                      and whatever used the pages since may have changed them
    accesses          the device's own accesses to memory; None where it keeps no log
    """

    newest: int | None
    watched: int
    changed: int
    buffers: int
    has_rings: bool
    accesses: int | None


@dataclass(frozen=True, slots=True)
class Audited:
    """One way to stop a VF; times are ms since the step was asked for, in the peer's clock.

    way, trigger    how; for a hot-unplug also what told the guest
    driver          the guest's, of the VF
    own_memory_enable  whether the VF has a Memory Enable of its own
    step_ms         how long the step took
    looked_ms       from when to when the VF was looked at
    command         samples of COMMAND, each with its time: its changes, the first and the last
    sent, returned  frames sent meanwhile, and those of them that came back
    newest_ms       when the newest frame that is in the guest's memory was sent
    back, back_ms   what gave the VF back, or NOT_BACK; how long after that the first frame came
    trouble         what went wrong as it was given back; empty for nothing
    packets         the flow's frames; columns as ``harness.analysis`` says
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
    evidence: Evidence
    back: str
    back_ms: float | None
    trouble: str
    packets: pd.DataFrame

    @property
    def is_master(self) -> bool:
        """Whether the VF might do DMA while it was looked at: it was there, and BME was set.

        It was so from the beginning, or became so before the end.
        """
        begin_ms, end_ms = self.looked_ms
        meanwhile = (sample for ms, sample in self.command if begin_ms <= ms <= end_ms)
        return self._at_look.masters or any(sample.masters for sample in meanwhile)

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
        """When BME was first seen clear, or the VF gone; None if it never was."""
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
        if self.is_master or self.is_silent:
            return []
        told = "gone" if self.is_gone else "not allowed to master the bus"
        return [f"VF {self.vf} of {self.host} was {told}, and still {', '.join(self._signs)}"]

    @property
    def _signs(self) -> list[str]:
        """What shows that the VF went on, a few words each."""
        seen, late_ms = self.evidence, self.newest_ms - self.looked_ms[0]
        signs = {
            f"{self.returned} frames came in": self.returned,
            f"a frame of {late_ms:.0f} ms after is in memory": late_ms > 0,
            f"{seen.changed} pages under its rings changed": seen.has_rings and seen.changed,
            f"{seen.accesses} accesses were logged": seen.accesses,
        }
        return [sign for sign, is_there in signs.items() if is_there]

    @property
    def _at_look(self) -> BmeSample:
        earlier = [sample for ms, sample in self.command if ms <= self.looked_ms[0]]
        return earlier[-1] if earlier else self.command[0][1]

    def _first(
        self, meets: Callable[[BmeSample], bool], since_ms: float | None = None
    ) -> float | None:
        """When a sample first *meets* that, from when the step was asked for to the look's end."""
        begin_ms = -self.uncertainty_ms if since_ms is None else since_ms
        end_ms = self.looked_ms[1]
        return next((ms for ms, s in self.command if begin_ms <= ms <= end_ms and meets(s)), None)


def audited(
    *,
    way: str,
    trigger: str | None,
    driver: str,
    own_memory_enable: bool,
    moments: Moments,
    lines: Sequence[Mapping[str, Any]],
    flow: MeasuredFlow,
    evidence: Evidence,
    back: str,
    trouble: str = "",
) -> Audited:
    """Put together what was recorded; *lines* are the observer's, in the peer's clock.

    Raises MeasurementError where there is nothing to go by: silence would say nothing then.
    """
    frame = packets(flow, asked_ns=moments.asked)
    looked, looked_again, taking_back = (
        t_ns - moments.asked for t_ns in (moments.looked, moments.looked_again, moments.taking_back)
    )
    meanwhile = frame[frame["sent_ns"].between(looked, looked_again)]
    newest = frame[frame["sequence"] == evidence.newest]
    _check(way, {
        "nobody observed the VF's COMMAND register": not lines,
        "no frame was sent while the VF was looked at": meanwhile.empty,
        "no buffer in the VF's receive rings was watched": not evidence.buffers,
        "no frame that the flow sent was found in the guest's memory": newest.empty,
    })  # fmt: skip
    again = frame["returned_ns"][frame["returned_ns"] > taking_back]
    samples = sorted((BmeSample.of(line) for line in lines), key=lambda sample: sample.t_ns)
    came_back = len(again) and back != NOT_BACK
    return Audited(
        way=way,
        trigger=trigger,
        host=samples[0].host,
        vf=samples[0].vf,
        driver=driver,
        own_memory_enable=own_memory_enable,
        uncertainty_ms=moments.uncertainty_ns / 1e6,
        step_ms=(moments.taken - moments.asked) / 1e6,
        looked_ms=(looked / 1e6, looked_again / 1e6),
        command=tuple(((sample.t_ns - moments.asked) / 1e6, sample) for sample in samples),
        sent=len(meanwhile),
        returned=int(meanwhile["returned_ns"].notna().sum()),
        newest_ms=float(newest["sent_ns"].iloc[0]) / 1e6,
        evidence=evidence,
        back=back,
        back_ms=float(again.min() - taking_back) / 1e6 if came_back else None,
        trouble=trouble,
        packets=frame,
    )


def _check(way: str, missing: Mapping[str, bool]) -> None:
    """Raise MeasurementError for what is *missing*."""
    if told := [what for what, is_missing in missing.items() if is_missing]:
        raise MeasurementError(
            f"{way}: {'; '.join(told)}",
            because="without that, silence of the VF says nothing",
            fix="see the observer's record, the flow's sender, and the VF's registers before it",
        )
