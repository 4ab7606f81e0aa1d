"""What is kept of a run: a folder for it, one for each test, results.json and the report."""

from __future__ import annotations

import itertools
import json
import re
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pandas as pd

from harness.analysis.audit import Audited, audited
from harness.analysis.audit_records import AuditRecords
from harness.analysis.expectation import Expectation
from harness.analysis.measured import (
    CONFIG,
    DEVICE_WROTE,
    MEMORY_COMPARED,
    BmeSample,
    Event,
    MeasuredFlow,
)
from harness.analysis.packets import packets, write_packets
from harness.analysis.phases import NAMES
from harness.analysis.verdict import Limits, Verdict, worst
from harness.errors import MeasurementError
from harness.migration.experiment import Conducted
from harness.migration.raw import Raw
from harness.report.audit import audit_result
from harness.report.entry import migration_result
from harness.report.page import write_page
from harness.report.results import (
    CaseResult,
    GuestProvenance,
    Migration,
    Provenance,
    Results,
    write_results,
)
from harness.report.results import Lab as LabResult
from harness.topology import Topology

LATEST = "latest"
LONGEST_NAME = 200
"""Of a test's folder, in characters: a name in a file system has 255 bytes."""


@dataclass(frozen=True, slots=True)
class Moved:
    """One measured migration: its entry in results.json, its verdict, and what it comes from.

    *packets* are its flows' frames by the flow's name; columns as ``harness.analysis`` says.
    """

    migration: Migration
    verdict: Verdict
    conducted: Conducted
    packets: dict[str, pd.DataFrame]

    def bme_seen(self, *ways: str) -> set[bool]:
        """The values of BME that were read on the source by these *ways*: `BmeSample.via`."""
        measured = self.conducted.measured
        return {s.bme for s in measured.bme if s.host == measured.source and s.via in ways}

    def event(self, name: str) -> Event:
        """The last event of that name; LookupError without one."""
        return [event for event in self.conducted.measured.events if event.name == name][-1]

    def registers(self, name: str, host: str) -> dict[str, Event]:
        """The values that register ``capability.FIELD`` had on *host*, in order of time.

        Each by its name, with the event by which it was last seen to begin.
        """
        source, named = f"{CONFIG}:{host}", f"{name} = "
        events = [e for e in self.conducted.measured.events if e.source == source]
        return {e.name.removeprefix(named): e for e in events if e.name.startswith(named)}

    def served_in(self, phase: str) -> float:
        """Return the share of the frames due in *phase* that arrived at the peer in *phase*.

        The share is 0 for a phase that never began, such as ``after`` where the VF never mastered
        again.  Raises ValueError if *phase* is not one of `NAMES`.
        """
        if phase not in NAMES:
            raise ValueError(f"there is no phase {phase!r}: {', '.join(NAMES)}")
        stretch = next((each for each in self.migration.phases if each.name == phase), None)
        if stretch is None:
            return 0.0
        begin_ns, end_ns = stretch.start_ms * 1e6, stretch.end_ms * 1e6
        due = arrived = 0.0
        for flow in self.migration.flows:
            due += flow.rate_pps * (end_ns - begin_ns) / 1e9
            returned_ns = self.packets[flow.name]["returned_ns"]
            arrived += int(returned_ns.between(begin_ns, end_ns).sum())
        return arrived / due if due else 0.0

    @property
    def memory(self) -> Mapping[str, Any]:
        """What came of comparing memory: see scheme ``inplace``; empty where nobody did."""
        events = self.conducted.measured.events
        return next((event.data for event in events if event.name == MEMORY_COMPARED), {})

    @property
    def device_log(self) -> Event | None:
        """The last write of the source's VF, with what its log says; None where none is kept."""
        events = self.conducted.measured.events
        return next((event for event in events if event.name == DEVICE_WROTE), None)

    @property
    def why(self) -> str:
        """The reasons of the verdict, and whatever else did not come in time, a line each.

        Of a broken order of DMA also the lines of the timeline that it is about.
        """
        outcome = self.conducted.outcome
        notes = [f"{n.name}: {n.text}" for n in outcome.notes if n.text != outcome.reason]
        return "\n".join([*self.verdict.reasons, *self.verdict.excerpt, *notes])


@dataclass(slots=True)
class Case:
    """One test: its *folder*, and the migrations made in it so far."""

    nodeid: str
    folder: Path
    moved: list[Moved] = field(default_factory=list)
    audits: list[Audited] = field(default_factory=list)
    outcome: str = "not run"
    _broken: int = 0
    _unjudged: int = 0
    _kept: int = 0

    @contextmanager
    def said(self, suffix: str | None = None) -> Iterator[Raw]:
        """What the next migration says; written into the folder whatever becomes of it.

        Its files' names end in *suffix*; one that breaks off has names of its own, so that a later
        one writes over nothing.
        """
        raw = Raw()
        try:
            yield raw
        except BaseException as error:
            suffix = f"-broken-{self._broken + 1}"
            if raw.write(self.folder, suffix):
                self._broken += 1
                error.add_note(f"what was said until then: *{suffix}.* in {self.folder}")
            raise
        raw.write(self.folder, self._suffix if suffix is None else suffix)

    def keep(
        self, conducted: Conducted, limits: Limits, expect: Expectation | None = None
    ) -> Moved:
        """Judge a migration and write all that was measured of it into the folder.

        *expect* is what the test expects of the migration; None if it expects nothing.  Raises
        MeasurementError where it cannot be judged, with all that was recorded written.
        """
        measured = conducted.measured
        _write_lines(self.folder / f"timeline{self._suffix}.jsonl", measured.events)
        _write_lines(self.folder / f"bme{self._suffix}.jsonl", measured.bme)
        for name, table in conducted.tables.items():
            table.to_parquet(self.folder / f"{name}{self._suffix}.parquet", index=False)
        try:
            recorded = migration_result(measured, limits, expect)
        except MeasurementError as error:
            self._write_raw(measured.flows, self._suffix)
            self._unjudged += 1
            error.add_note(f"what its flows recorded: sent-*.bin, received-*.bin in {self.folder}")
            raise
        recorded.write(self.folder, number=self._number)
        moved = Moved(recorded.migration, recorded.verdict, conducted, recorded.packets)
        self.moved.append(moved)
        return moved

    def not_counted(self, moved: Moved) -> Moved:
        """Return *moved*, the last that was kept, as one that its test expects nothing of."""
        nothing = {"expected": None, "as_expected": True}
        self.moved[-1] = replace(moved, migration=moved.migration.model_copy(update=nothing))
        return self.moved[-1]

    def keep_audit(self, records: AuditRecords, limits: Limits) -> Audited:
        """Write what was recorded of an audit into the folder, and report what it comes to.

        Raises MeasurementError, with all of it written, where that cannot be told.
        """
        suffix = self.audit_suffix(records.way)
        self._kept += 1
        _write_lines(self.folder / f"bme{suffix}.jsonl", records.samples)
        (self.folder / f"audit{suffix}.json").write_text(json.dumps(records.facts, indent=1) + "\n")
        self._write_raw([records.flow], suffix)  # what came twice, or changed, has no row
        frame = packets(records.flow, asked_ns=records.moments.asked)
        about = {"way": records.way, "zero": "step asked, peer's clock"}
        write_packets(self.folder / f"packets{suffix}.parquet", frame, about=about)
        found = audited(records, frame, clock_uncertainty_ms=limits.clock_uncertainty_ms)
        self.audits.append(found)
        return found

    def audit_suffix(self, way: str) -> str:
        """What the names of the files of the next audit end in."""
        return f"-{way}-{self._kept + 1}"

    def _write_raw(self, flows: Iterable[MeasuredFlow], suffix: str) -> None:
        """Write the records of *flows* as their ends made them."""
        for flow in flows:
            for which, data in (("sent", flow.sent), ("received", flow.received)):
                (self.folder / f"{which}-{flow.name}{suffix}.bin").write_bytes(data)

    @property
    def _number(self) -> int:
        """Of the next migration, those that could not be judged counted."""
        return len(self.moved) + self._unjudged + 1

    @property
    def _suffix(self) -> str:
        """Of the next migration's files: a test's second one must not write over its first."""
        return f"-{self._number}" if self._number > 1 else ""


class Record:
    """The folder of one run below *artifacts*; made at once, with ``latest`` pointing to it."""

    def __init__(self, artifacts: Path, topology: Topology) -> None:
        self.started = datetime.now(UTC)
        self.topology = topology
        self.provenance: Provenance | None = None
        self.cases: dict[str, Case] = {}
        self.folder = _make_new(
            artifacts.absolute(), f"{self.started:%Y%m%d-%H%M%S}-{topology.name}"
        )
        self.name = self.folder.name
        _point(self.folder.parent / LATEST, self.name)

    def case(self, nodeid: str) -> Case:
        """The case of a test, made when it is first asked for."""
        if nodeid not in self.cases:
            self.cases[nodeid] = Case(nodeid, _make_new(self.folder, _folder_name(nodeid)))
        return self.cases[nodeid]

    def note_guest(self, guest: GuestProvenance) -> None:
        """What the guests of this run boot, as the last one told."""
        if self.provenance is not None:
            self.provenance = self.provenance.model_copy(update={"guest": guest})

    def finish(self) -> Results | None:
        """Write results.json and report.html; None if no host was ever asked what it runs."""
        if self.provenance is None:
            return None
        results = Results(
            run=self.name,
            started=self.started,
            lab=LabResult(
                name=self.topology.name,
                emulated=self.topology.emulation is not None,
                topology=self.topology.file,
            ),
            provenance=self.provenance,
            tests=[_case_result(case, self.folder) for case in self.cases.values()],
        )
        write_results(results, self.folder)
        write_page(self.folder)
        return results


def _folder_name(nodeid: str) -> str:
    """``test_file.test_name-parameters``; two tests may share it."""
    file, _, test = nodeid.partition("::")
    name = re.sub(r"[^\w.=-]+", "-", f"{Path(file).stem}.{test}")
    return name[:LONGEST_NAME].strip("-")


def _make_new(parent: Path, name: str) -> Path:
    """Make a folder for nobody else: *name*, or with the first number that is free."""
    parent.mkdir(parents=True, exist_ok=True)
    folder, numbers = parent / name, itertools.count(2)
    while True:
        try:
            folder.mkdir()
        except FileExistsError:
            folder = parent / f"{name}-{next(numbers)}"
        else:
            return folder


def _case_result(case: Case, run: Path) -> CaseResult:
    return CaseResult(
        nodeid=case.nodeid,
        outcome=case.outcome,
        verdict=worst(moved.migration.counts_as for moved in case.moved),
        artifacts=str(case.folder.relative_to(run)),
        migrations=[moved.migration for moved in case.moved],
        audits=[audit_result(each) for each in case.audits],
    )


def _write_lines(path: Path, lines: Iterable[Event | BmeSample]) -> None:
    path.write_text("".join(json.dumps(asdict(line)) + "\n" for line in lines))


def _point(link: Path, name: str) -> None:
    """Let *link* point to *name*, at no moment to nothing."""
    new = link.with_name(f".{link.name}.new")
    new.unlink(missing_ok=True)
    new.symlink_to(name)
    new.replace(link)
