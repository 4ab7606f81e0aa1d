"""The table of the quiesce audit: what each way to stop a VF did to it."""

from __future__ import annotations

from dataclasses import dataclass

from harness.analysis.audit import Audited
from harness.analysis.audit_records import NOT_BACK
from harness.report.results import Audit, Bme, Results
from harness.report.words import duration

WAYS = {
    "nothing": "nothing",
    "link-down": "interface down",
    "unbind": "driver unbound",
    "unplug": "hot-unplug",
    "device-suspend": "driver's suspend alone (pm_test)",
    "acpi-suspend": "suspend to RAM (S3)",
    "removed": "removed in the guest",
    "reset-vfio": "function reset through VFIO",
    "reset-sysfs": "function reset, host's sysfs",
    "reset-in-guest": "function reset, guest's sysfs",
    "bme-cleared": "BME cleared by the host",
}
TRIGGERS = {"acpi": " by ACPI", "pcie": " by native PCIe"}


@dataclass(frozen=True, slots=True)
class AuditRow:
    """One audit, written out; *silent* says whether nothing came in while it was looked at."""

    stopped: str
    driver: str
    step: str
    bme: str
    memory_enable: str
    frames: str
    rings: str
    back: str
    silent: bool
    faults: tuple[str, ...]


def audit_result(audited: Audited) -> Audit:
    """An audit as its entry in results.json."""
    seen = audited.evidence
    return Audit(
        way=audited.way,
        trigger=audited.trigger,
        host=audited.host,
        vf=audited.vf,
        driver=audited.driver,
        uncertainty_ms=audited.uncertainty_ms,
        step_ms=audited.step_ms,
        looked_ms=audited.looked_ms,
        bme=[
            Bme(t_ms=ms, host=s.host, vf=s.vf, command=s.command, bme=s.masters, via=s.via)
            for ms, s in audited.command
        ],
        cleared_ms=audited.cleared_ms,
        set_again_ms=audited.set_again_ms,
        own_memory_enable=audited.own_memory_enable,
        memory_cleared_ms=audited.memory_cleared_ms,
        master=audited.is_master,
        gone=audited.is_gone,
        silent=audited.is_silent,
        sent=audited.sent,
        returned=audited.returned,
        let_in=audited.let_in,
        newest_ms=audited.newest_ms,
        paused_ms=audited.paused_ms,
        pages_watched=seen.watched,
        pages_changed=seen.changed,
        has_rings=seen.has_rings,
        accesses=seen.accesses,
        back=audited.back,
        back_ms=audited.back_ms,
        trouble=audited.trouble,
        faults=audited.faults,
    )


def audit_rows(results: Results) -> list[AuditRow]:
    """A row for each audit of the run, in the order of WAYS."""
    found = [audit for case in results.tests for audit in case.audits]
    order = list(WAYS)
    found.sort(key=lambda each: order.index(each.way) if each.way in order else len(order))
    return [_row(each) for each in found]


def _row(audit: Audit) -> AuditRow:
    return AuditRow(
        stopped=WAYS.get(audit.way, audit.way) + TRIGGERS.get(audit.trigger or "", ""),
        driver=audit.driver,
        step=duration(audit.step_ms),
        bme=_bme(audit),
        memory_enable=_memory_enable(audit),
        frames=_frames(audit),
        rings=_rings(audit),
        back=_back(audit),
        silent=audit.silent,
        faults=tuple(audit.faults),
    )


def _bme(audit: Audit) -> str:
    if audit.cleared_ms is None:
        return "stays 1"
    then = ", then gone" if audit.gone else ""
    if audit.set_again_ms is not None:
        then = f", 1 again after {duration(audit.set_again_ms)}"
    return f"0 {_since(audit.cleared_ms, audit)}{then}"


def _memory_enable(audit: Audit) -> str:
    if audit.memory_cleared_ms is not None:
        return f"0 {_since(audit.memory_cleared_ms, audit)}"
    return "stays as it was" if audit.own_memory_enable else "no such bit"


def _since(ms: float, audit: Audit) -> str:
    """When that was since the step, or that it was so before, by more than the clocks' doubt."""
    is_of_before = ms < -2 * audit.uncertainty_ms
    return "from before" if is_of_before else f"after {duration(max(ms, 0))}"


def _frames(audit: Audit) -> str:
    newest = audit.newest_ms
    side = "before" if newest <= 0 else "after"
    last = f"the last in memory was sent {duration(abs(newest))} {side}"
    return f"{audit.returned} came in, {audit.sent} were sent; {last}"


def _rings(audit: Audit) -> str:
    gone = "" if audit.has_rings else ", whose rings are no more"
    logged = f", {audit.accesses} accesses" if audit.accesses is not None else ""
    return f"{audit.pages_changed} of {audit.pages_watched} pages{gone}{logged}"


def _back(audit: Audit) -> str:
    if audit.back == NOT_BACK or audit.back_ms is None:
        return f"no: {audit.trouble}" if audit.trouble else "no"
    return f"{audit.back}: after {duration(audit.back_ms)}"
