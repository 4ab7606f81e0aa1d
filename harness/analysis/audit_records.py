"""What one audit of a way to stop a VF left behind, as the analysis wants it."""

from __future__ import annotations

from dataclasses import asdict, dataclass, fields
from typing import Any

from harness.analysis.measured import BmeSample, MeasuredFlow

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
class AuditRecords:
    """One way to stop a VF, as it was recorded.

    way, trigger    how; for a hot-unplug also what told the guest
    driver          the guest's, of the VF
    own_memory_enable  whether the VF has a Memory Enable of its own
    samples         of COMMAND, in order of time: its changes, the first and the last, and each
                    after a hole
    back            what gave the VF back, or NOT_BACK
    trouble         what went wrong as it was given back; empty for nothing
    """

    host: str
    vf: str
    way: str
    trigger: str | None
    driver: str
    own_memory_enable: bool
    moments: Moments
    samples: tuple[BmeSample, ...]
    flow: MeasuredFlow
    evidence: Evidence
    back: str
    trouble: str = ""

    @property
    def facts(self) -> dict[str, Any]:
        """All of it but samples and frames, as JSON has it; of the flow what its ends counted."""
        large = {"samples", "flow"}
        told = {each.name: getattr(self, each.name) for each in fields(self)}
        told = {name: value for name, value in told.items() if name not in large}
        told |= {"moments": asdict(self.moments), "evidence": asdict(self.evidence)}
        counted = ("receiver_dropped", "backlog_dropped", "clock_moved_ns", "unsent")
        return told | {"flow": {name: getattr(self.flow, name) for name in ("name", *counted)}}
