"""The records of a quiesce audit, made up: a step, samples, frames, and a look."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from synthetic import received_record, sent_record

from harness.analysis.audit import Audited, audited
from harness.analysis.audit_records import AuditRecords, Evidence, Moments
from harness.analysis.measured import BmeSample, MeasuredFlow
from harness.analysis.packets import packets

MS = 1_000_000
ASKED = 7_000_000_000_000
MOMENTS = Moments(
    asked=ASKED,
    taken=ASKED + 2 * MS,
    looked=ASKED + 600 * MS,
    looked_again=ASKED + 2100 * MS,
    taking_back=ASKED + 2200 * MS,
    uncertainty_ns=20_000,
)
QUIET = Evidence(newest=99, watched=500, changed=0, buffers=249, has_rings=True, accesses=0)
"""Frame 99 was sent 5 ms before the step."""

SET, CLEAR, GONE = 0x0506, 0x0502, 0xFFFF


def seen(t_ms: float, command: int, gap_ms: float = 0, **changes: Any) -> BmeSample:
    """COMMAND at that time; if it changed it did so at most *gap_ms* before."""
    sample = BmeSample(
        t_ns=ASKED + round(t_ms * MS), uncertainty_ns=round((gap_ms + 0.01) * MS), host="alder",
        vf="vf0", command=command, bme=bool(command & 4), via="device", gap_ns=round(gap_ms * MS),
    )  # fmt: skip
    return replace(sample, **changes)


def found(
    *commands: tuple[float, ...],
    arrive: Sequence[float] = (),
    after_ms: float = 1,
    evidence: Evidence = QUIET,
    clock_uncertainty_ms: float = 5,
    **changes: Any,
) -> Audited:
    """What comes of `recorded`."""
    records = recorded(*commands, arrive=arrive, after_ms=after_ms, evidence=evidence, **changes)
    frame = packets(records.flow, asked_ns=records.moments.asked)
    return audited(records, frame, clock_uncertainty_ms=clock_uncertainty_ms)


def recorded(
    *commands: tuple[float, ...],
    arrive: Sequence[float] = (),
    after_ms: float = 1,
    evidence: Evidence = QUIET,
    **changes: Any,
) -> AuditRecords:
    """An audit with a frame each 5 ms, of which those sent at *arrive* and in the end came back.

    Those did *after_ms* after they were sent.
    """
    sent_ms = np.arange(-500, 4000, 5)
    sent = ASKED + sent_ms * MS
    there = np.flatnonzero(np.isin(sent_ms, arrive) | (sent_ms < -5) | (sent_ms >= 2500))
    numbers, nothing = np.arange(len(sent)), np.zeros(len(there))
    took = np.where(np.isin(sent_ms[there], arrive), round(after_ms * MS), MS)
    received = received_record(there, nothing, sent[there], sent[there] + took)
    flow = MeasuredFlow(
        name="audit", direction="round-trip", frame_bytes=9014, rate_pps=200,
        sent=sent_record(numbers, sent, sent), received=received, receiver_dropped=0,
    )  # fmt: skip
    records = AuditRecords(
        host="alder",
        vf="vf0",
        way="bme-cleared",
        trigger=None,
        driver="ixgbevf",
        own_memory_enable=True,
        moments=MOMENTS,
        samples=tuple(seen(t_ms, int(command), *gap) for t_ms, command, *gap in commands),
        flow=flow,
        evidence=evidence,
        back="BME set",
    )
    return replace(records, **changes)


STOPPED = ((-400, SET), (0.6, CLEAR), (2201, SET))
"""BME is set, clear from 0.6 ms on, and set again at 2201 ms, after the look.

Each change is known by the clocks alone.
"""
AFTER = 300
"""The number of a frame that was sent 1000 ms after the step."""
