"""The table of the quiesce audit: what each way to stop a VF did to it."""

from __future__ import annotations

from dataclasses import dataclass

from harness.analysis.audit import NOT_BACK, Audited
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
    watched, changed = audited.pages
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
            for ms, s in zip(audited.command_ms, audited.command, strict=True)
        ],
        cleared_ms=audited.cleared_ms,
        memory_cleared_ms=audited.memory_cleared_ms,
        master=audited.is_master,
        gone=audited.is_gone,
        sent=audited.sent,
        returned=audited.returned,
        newest_ms=audited.newest_ms,
        pages_watched=watched,
        pages_changed=changed,
        accesses=audited.accesses,
        back=audited.back,
        back_ms=audited.back_ms,
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
        bme=_cleared(audit.cleared_ms, "stays 1", gone=audit.gone),
        memory_enable=_cleared(audit.memory_cleared_ms, "stays as it was", gone=audit.gone),
        frames=_frames(audit),
        rings=f"{audit.pages_changed} of {audit.pages_watched} pages"
        + (f", {audit.accesses} accesses" if audit.accesses is not None else ""),
        back=_back(audit),
        silent=not (audit.returned or audit.pages_changed or audit.accesses),
        faults=tuple(audit.faults),
    )


def _cleared(ms: float | None, otherwise: str, *, gone: bool) -> str:
    if ms is None:
        return otherwise
    return f"0 after {duration(ms)}" + (", then gone" if gone else "")


def _frames(audit: Audit) -> str:
    newest = audit.newest_ms
    if newest is None:
        last = "none is in memory"
    elif newest <= 0:
        last = f"the last in memory was sent {duration(-newest)} before"
    else:
        last = f"the last in memory was sent {duration(newest)} after"
    return f"{audit.returned} of {audit.sent} came in; {last}"


def _back(audit: Audit) -> str:
    if audit.back == NOT_BACK or audit.back_ms is None:
        return "no"
    return f"{audit.back}: after {duration(audit.back_ms)}"
