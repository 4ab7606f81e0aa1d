"""The quiesce audit: what is made of its records."""

from __future__ import annotations

import io
import json
from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from rich.console import Console
from synthetic import received_record, sent_record
from test_report_results import run_of

from harness.analysis.audit import NOT_BACK, Audited, Evidence, Moments, audited
from harness.analysis.measured import MeasuredFlow
from harness.analysis.packets import read_packets
from harness.audit.ways import Way
from harness.errors import MeasurementError
from harness.report.audit import WAYS, audit_result, audit_rows
from harness.report.page import write_page
from harness.report.results import CaseResult, Results, read_results, write_results
from harness.report.summary import summary
from harness.run.record import Case

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
SET, CLEAR, GONE = 0x0506, 0x0502, 0xFFFF
"""Frame 99 is the last but one that was sent before the step."""


def line(t_ms: float, command: int, via: str = "device") -> dict[str, Any]:
    names = {"host": "alder", "vf": "vf0", "via": via, "gap_ns": 0}
    return {"t_ns": ASKED + round(t_ms * MS), "command": command, "bme": bool(command & 4), **names}


def found(
    *commands: tuple[float, int],
    arrive: Sequence[float] = (),
    evidence: Evidence = QUIET,
    **changes: Any,
) -> Audited:
    """An audit with a frame each 5 ms, of which those sent at *arrive* and in the end came back."""
    sent_ms = np.arange(-500, 4000, 5)
    sent = ASKED + sent_ms * MS
    there = np.flatnonzero(np.isin(sent_ms, arrive) | (sent_ms < -5) | (sent_ms >= 2500))
    numbers, nothing = np.arange(len(sent)), np.zeros(len(there))
    received = received_record(there, nothing, sent[there], sent[there] + MS)
    flow = MeasuredFlow(
        name="audit", direction="round-trip", frame_bytes=9014, rate_pps=200,
        sent=sent_record(numbers, sent, sent), received=received, receiver_dropped=0,
    )  # fmt: skip
    given: dict[str, Any] = {
        "way": "bme-cleared",
        "trigger": None,
        "driver": "ixgbevf",
        "own_memory_enable": True,
        "moments": MOMENTS,
        "lines": [line(t_ms, command) for t_ms, command in commands],
        "flow": flow,
        "evidence": evidence,
        "back": "BME set",
    }
    return audited(**{**given, **changes})


STOPPED = ((-400, SET), (0.6, CLEAR), (2201, SET))
AFTER = 300
"""The number of a frame that was sent 1000 ms after the step."""


def test_a_vf_that_stops_is_silent_and_comes_back() -> None:
    quiet = found(*STOPPED)
    assert quiet.is_silent
    assert not quiet.is_master
    assert quiet.faults == []
    assert (quiet.cleared_ms, quiet.memory_cleared_ms, quiet.step_ms) == (0.6, None, 2)
    assert (quiet.sent, quiet.returned, quiet.back_ms, quiet.newest_ms) == (301, 0, 301, -5)


@pytest.mark.parametrize(
    ("signs", "told"),
    [
        ({"arrive": [1000, 1005]}, "2 frames came in"),
        ({"evidence": replace(QUIET, newest=AFTER)}, "a frame of 400 ms after is in memory"),
        ({"evidence": replace(QUIET, changed=3)}, "3 pages under its rings changed"),
        ({"evidence": replace(QUIET, accesses=1)}, "1 accesses were logged"),
    ],
    ids=str,
)
def test_each_sign_of_life_of_a_vf_that_must_be_silent_is_a_fault(
    signs: dict[str, Any], told: str
) -> None:
    """A frame whose answer is lost was received all the same: memory tells, and so does a log."""
    alive = found(*STOPPED, **signs)
    assert not alive.is_silent
    wrong = f"VF vf0 of alder was not allowed to master the bus, and still {told}"
    assert alive.faults == [wrong]


def test_what_lives_while_bme_is_set_is_no_fault() -> None:
    lively = replace(QUIET, newest=AFTER, changed=500)
    working = found((-400, SET), (4000, SET), arrive=[1000], evidence=lively)
    assert working.is_master
    assert not working.is_silent
    assert working.faults == []


def test_pages_that_the_driver_gave_back_may_change() -> None:
    """Its kernel uses them for anything: that they change is no sign of the device."""
    given_back = replace(QUIET, changed=3, has_rings=False)
    assert found(*STOPPED, evidence=given_back).is_silent


def test_a_vf_that_is_gone_neither_masters_nor_has_memory() -> None:
    """All ones has every bit set; it means that no function answered."""
    gone = found((-400, SET), (100, GONE), (2300, SET))
    assert (gone.is_gone, gone.is_master) == (True, False)
    assert (gone.cleared_ms, gone.memory_cleared_ms) == (100, 100)


def test_a_bit_that_the_vf_does_not_have_is_not_cleared() -> None:
    """VFIO makes up Memory Enable for an 82599's VF; read through sysfs it seems to go."""
    lines = [line(-400, 0x0506, "vfio"), line(0.6, 0x0500, "sysfs")]
    assert found(lines=lines, own_memory_enable=False).memory_cleared_ms is None
    assert found(lines=lines, own_memory_enable=True).memory_cleared_ms == 0.6


def test_a_vf_that_masters_the_bus_again_meanwhile_may_write() -> None:
    """Its driver has noticed, and set it up: that is no device that goes on without leave."""
    writes = replace(QUIET, newest=AFTER)
    again = found((-400, SET), (1, CLEAR), (1500, SET), arrive=[1600], evidence=writes)
    assert again.is_master
    assert again.faults == []
    assert (again.cleared_ms, again.set_again_ms) == (1, 1500)
    assert again.back_ms == 301, "what came in while it was looked at did not come back by that"


def test_a_vf_that_is_cleared_and_stays_so_is_not_set_again() -> None:
    """Another bit may change first, as INTx Disable does, with BME set as it was."""
    still = found((-400, SET), (0.2, SET & ~0x400), (0.6, CLEAR), (2201, SET))
    assert (still.cleared_ms, still.set_again_ms) == (0.6, None)


def test_what_bme_does_after_the_look_does_not_count() -> None:
    """It is set again to take the step back; and what it did before was another step's."""
    late = found((-400, SET), (2150, CLEAR), (2300, SET))
    assert late.is_master
    assert late.cleared_ms is None


def test_a_change_that_the_clocks_put_before_its_cause_counts() -> None:
    early = found((-400, SET), (-0.01, CLEAR), (2201, SET))
    assert early.cleared_ms == -0.01
    assert found((-400, SET), (-0.03, CLEAR), (2201, SET)).cleared_ms is None


def test_a_vf_that_does_not_come_back_has_no_time() -> None:
    """Frames that came in before it was given up are nobody's return."""
    assert found(*STOPPED, back=NOT_BACK).back_ms is None


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"lines": []}, "nobody observed"),
        ({"moments": replace(MOMENTS, looked_again=ASKED)}, "no frame was sent"),
        ({"evidence": replace(QUIET, buffers=0)}, "no buffer in"),
        ({"evidence": replace(QUIET, newest=None)}, "no frame that the flow sent was found"),
        ({"evidence": replace(QUIET, newest=999_999)}, "no frame that the flow sent was found"),
    ],
)
def test_an_audit_without_evidence_is_none(changes: dict[str, Any], told: str) -> None:
    """Silence of a flow that did not run, or of a VF that nobody looked at, says nothing."""
    with pytest.raises(MeasurementError, match=told):
        found(*STOPPED, **changes)


def test_every_way_has_its_words() -> None:
    assert list(WAYS) == [way.value for way in Way]


def written(folder: Path, *audits: Audited) -> Results:
    results = run_of()
    case = CaseResult(
        nodeid="tests/lab/test_x.py::test_x", outcome="passed", verdict=None, artifacts="x",
        migrations=[], audits=[audit_result(each) for each in audits],
    )  # fmt: skip
    results = results.model_copy(update={"tests": [case], "started": datetime.now(UTC)})
    write_results(results, folder)
    return read_results(folder)


def test_the_report_has_a_row_for_each_audit_and_says_what_is_wrong(tmp_path: Path) -> None:
    alive = found(*STOPPED, arrive=[1000], evidence=replace(QUIET, newest=AFTER))
    unplugged = replace(found(*STOPPED), way="unplug", trigger="pcie", back=NOT_BACK)
    results = written(tmp_path, alive, replace(unplugged, trouble="it was lost"))
    first, second = audit_rows(results)
    assert (first.stopped, first.back) == ("hot-unplug by native PCIe", "no: it was lost")
    assert (first.silent, second.silent) == (True, False)
    assert second.bme == "0 after 0.6 ms"
    assert second.memory_enable == "stays as it was"
    assert second.frames == "1 of 301 came in; the last in memory was sent 1.00 s after"
    assert second.rings == "0 of 500 pages, 0 accesses"
    page = write_page(tmp_path).read_text()
    assert "What each way to stop a VF does" in page
    assert page.count("and still 1 frames came in, a frame of 400 ms after is in memory") == 1
    said = io.StringIO()
    summary(results, Console(file=said, width=140))
    assert "BME cleared by the host" in said.getvalue()
    assert "fail VF vf0 of alder was not allowed" in said.getvalue()


def test_a_time_before_its_cause_is_shown_as_none(tmp_path: Path) -> None:
    """By the clocks' doubt: a row that says 0 after -10 us puzzles who reads it."""
    early = found((-400, SET), (-0.01, CLEAR), (2201, SET))
    (row,) = audit_rows(written(tmp_path, early))
    assert row.bme == "0 after 0.0 ms"


def test_a_row_says_what_came_after_the_first_change(tmp_path: Path) -> None:
    """A reset clears BME and puts it back: a row that told the fall alone would be wrong."""
    reset = found((-400, SET), (1, 0), (100, SET), (2300, SET), own_memory_enable=False)
    freed = found(*STOPPED, evidence=replace(QUIET, changed=2, has_rings=False, accesses=None))
    again, given_back = audit_rows(written(tmp_path, reset, freed))
    assert again.bme == "0 after 1.0 ms, 1 again after 100 ms"
    assert again.memory_enable == "no such bit"
    assert given_back.rings == "2 of 500 pages, whose rings are no more"
    assert given_back.silent


def test_what_was_recorded_of_an_audit_is_in_its_tests_folder(tmp_path: Path) -> None:
    """By the way and its number: a test's second audit must not write over its first."""
    case = Case("tests/lab/test_x.py::test_x", tmp_path)
    case.keep_audit(found(*STOPPED))
    case.keep_audit(replace(found(*STOPPED), way="unbind"))
    assert [each.way for each in case.audits] == ["bme-cleared", "unbind"]
    lines = (tmp_path / "bme-unbind-2.jsonl").read_text().splitlines()
    commands = [json.loads(each) for each in lines]
    assert [each["command"] for each in commands] == [SET, CLEAR, SET]
    kept = read_packets(tmp_path / "packets-bme-cleared-1.parquet")
    assert kept.equals(case.audits[0].packets)
