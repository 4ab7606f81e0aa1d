"""What an audit of one way to stop a VF came to: its register, its frames, the guest's memory."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from harness.analysis.measured import BmeSample
from harness.analysis.packets import RECEIVED, SENT
from harness.errors import MeasurementError
from harness.uapi.pci_regs import Command

NOT_BACK = "no"
"""What gave the VF back: nothing did."""


@dataclass(frozen=True, slots=True)
class Moments:
    """When what was done, in the peer's monotonic clock: ns.

    The step was asked for and *taken*; the VF was *looked* at twice; then the step was taken back.
    """

    asked: int
    taken: int
    looked: int
    looked_again: int
    taking_back: int


@dataclass(frozen=True, slots=True)
class Audited:
    """One way to stop a VF; times are ms since the step was asked for, in the peer's clock.

    way, trigger   how; for a hot-unplug also what told the guest
    driver         the guest's, of the VF
    step_ms        how long the step took
    command        samples of COMMAND, with *command_ms*: its changes, the first and the last
    sent, returned frames sent while it was looked at, and those of them that came back
    newest_ms      when the newest frame that is in the guest's memory was sent; None without any
    pages          (watched, changed): those under the receive rings, between the two looks
    accesses       the device's own accesses to memory between them; None where it keeps no log
    buffers_freed  whether the driver gave the pages back: another may write to them then
    back, back_ms  what gave the VF back, or NOT_BACK; how long after that the first frame came
    """

    way: str
    trigger: str | None
    host: str
    vf: str
    driver: str
    uncertainty_ms: float
    step_ms: float
    looked_ms: tuple[float, float]
    command: tuple[BmeSample, ...]
    command_ms: tuple[float, ...]
    sent: int
    returned: int
    newest_ms: float | None
    pages: tuple[int, int]
    accesses: int | None
    back: str
    back_ms: float | None
    buffers_freed: bool

    @property
    def is_master(self) -> bool:
        """Whether the VF might do DMA while it was looked at: it was there, and BME was set.

        It was so from the beginning, or became so before the end.
        """
        begin_ms, end_ms = self.looked_ms
        meanwhile = zip(self.command, self.command_ms, strict=True)
        return self._at_look.masters or any(
            sample.masters for sample, ms in meanwhile if begin_ms <= ms <= end_ms
        )

    @property
    def is_gone(self) -> bool:
        """Whether it was not there then."""
        return self._at_look.gone

    @property
    def has_memory(self) -> bool:
        """Whether Memory Enable was set then."""
        sample = self._at_look
        return not sample.gone and bool(sample.command & Command.MEMORY)

    @property
    def is_silent(self) -> bool:
        """Whether nothing came in then, by any of the signs."""
        newest_in_time = self.newest_ms is None or self.newest_ms <= self.looked_ms[0]
        changed = 0 if self.buffers_freed else self.pages[1]
        return newest_in_time and not (self.returned or changed or self.accesses)

    @property
    def cleared_ms(self) -> float | None:
        """When BME was first seen clear, or the VF gone; None if it never was."""
        return self._first(lambda sample: not sample.masters)

    @property
    def memory_cleared_ms(self) -> float | None:
        """When Memory Enable was first seen clear, or the VF gone."""
        return self._first(lambda s: s.gone or not s.command & Command.MEMORY)

    @property
    def faults(self) -> list[str]:
        """What no VF may do: write, or let frames in, when it must not master the bus."""
        if self.is_master or self.is_silent:
            return []
        told = "gone" if self.is_gone else "not allowed to master the bus"
        return [
            f"VF {self.vf} of {self.host} was {told}, and still {self.returned} frames came in, "
            f"{self.pages[1]} pages under its rings changed, {self.accesses or 0} accesses were "
            "logged"
        ]

    @property
    def _at_look(self) -> BmeSample:
        earlier = [
            sample
            for sample, ms in zip(self.command, self.command_ms, strict=True)
            if ms <= self.looked_ms[0]
        ]
        return earlier[-1] if earlier else self.command[0]

    def _first(self, meets: Any) -> float | None:
        return next(
            (
                ms
                for sample, ms in zip(self.command, self.command_ms, strict=True)
                if 0 <= ms <= self.looked_ms[1] and meets(sample)
            ),
            None,
        )


def audited(
    *,
    way: str,
    trigger: str | None,
    driver: str,
    moments: Moments,
    uncertainty_ns: int,
    lines: Sequence[Mapping[str, Any]],
    sent: bytes,
    received: bytes,
    newest: int | None,
    pages: tuple[int, int],
    accesses: int | None,
    back: str,
    buffers_freed: bool,
) -> Audited:
    """Put together what was recorded; *lines* are the observer's, in the peer's clock.

    *sent* and *received* are the flow's records, *newest* the number of the newest frame found in
    memory.  Raises MeasurementError if nobody observed, or nothing was sent meanwhile.
    """
    if not lines:
        raise MeasurementError(
            "nobody observed the VF's COMMAND register",
            because="without it nobody knows whether it was allowed to master the bus",
            fix="see the observer's record on the host",
        )
    left, arrived = np.frombuffer(sent, SENT), np.frombuffer(received, RECEIVED)
    meanwhile = (left["sent_ns"] > moments.looked) & (left["sent_ns"] < moments.looked_again)
    numbers = left["sequence"][meanwhile]
    if not len(numbers):
        raise MeasurementError(
            f"no frame was sent while the VF was looked at, {way}",
            because="that nothing came in then says nothing",
            fix="see the flow's sender on the peer",
        )
    sent_at = dict(zip(left["sequence"].tolist(), left["sent_ns"].tolist(), strict=True))
    again = arrived["received_ns"][arrived["received_ns"] > moments.taking_back]
    samples = tuple(_sample(line) for line in sorted(lines, key=lambda line: line["t_ns"]))

    def ms(t_ns: int) -> float:
        return (t_ns - moments.asked) / 1e6

    return Audited(
        way=way,
        trigger=trigger,
        host=samples[0].host,
        vf=samples[0].vf,
        driver=driver,
        uncertainty_ms=uncertainty_ns / 1e6,
        step_ms=ms(moments.taken),
        looked_ms=(ms(moments.looked), ms(moments.looked_again)),
        command=samples,
        command_ms=tuple(ms(sample.t_ns) for sample in samples),
        sent=len(numbers),
        returned=int(np.isin(numbers, arrived["sequence"]).sum()),
        newest_ms=ms(sent_at[newest]) if newest in sent_at else None,
        pages=pages,
        accesses=accesses,
        back=back,
        buffers_freed=buffers_freed,
        back_ms=float(again.min() - moments.taking_back) / 1e6
        if len(again) and back != NOT_BACK
        else None,
    )


def _sample(line: Mapping[str, Any]) -> BmeSample:
    return BmeSample(
        t_ns=line["t_ns"],
        uncertainty_ns=line["gap_ns"],
        host=line["host"],
        vf=line["vf"],
        command=line["command"],
        bme=line["bme"],
        via=line["via"],
        gap_ns=line["gap_ns"],
    )
