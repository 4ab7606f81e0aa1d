"""The rows of the quiesce audit, and the files of what was recorded of it."""

from __future__ import annotations

import io
import json
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from made_up_audit import AFTER, ASKED, CLEAR, QUIET, SET, STOPPED, found, recorded
from rich.console import Console
from test_report_results import run_of

from harness.analysis.audit import Audited
from harness.analysis.audit_records import NOT_BACK
from harness.analysis.packets import read_packets
from harness.analysis.verdict import Limits
from harness.audit.ways import Way
from harness.errors import MeasurementError
from harness.report.audit import WAYS, audit_result, audit_rows
from harness.report.page import write_page
from harness.report.reading import read_results
from harness.report.results import CaseResult, Results, write_results
from harness.report.summary import summary
from harness.run.record import Case


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
    assert second.frames == "1 came in, 299 were sent; the last in memory was sent 1.00 s after"
    assert second.rings == "0 of 500 pages, 0 accesses"
    page = write_page(tmp_path).read_text()
    assert "What each way to stop a VF does" in page
    assert page.count("and still 1 frames came in, a frame sent 999 ms later is in memory") == 1
    said = io.StringIO()
    summary(results, Console(file=said, width=140))
    assert "BME cleared by the host" in said.getvalue()
    assert "fail VF vf0 of alder was not allowed" in said.getvalue()


def test_a_time_before_its_cause_is_shown_as_none(tmp_path: Path) -> None:
    """By the clocks' doubt: a row that says 0 after -10 us puzzles who reads it."""
    early = found((-400, SET), (-0.03, CLEAR), (2201, SET))
    (row,) = audit_rows(written(tmp_path, early))
    assert row.bme == "0 after 0.0 ms"


def test_a_row_says_what_was_so_before_the_step(tmp_path: Path) -> None:
    """A VF that the step before left without BME did not lose it by this one, nor keep it."""
    early = found((-400, SET), (-0.05, CLEAR), (2201, SET))
    assert early.cleared_ms == -0.05
    never = found((-400, 0), (2201, SET))
    risen = found((-400, CLEAR), (700, SET), (3000, SET))
    rows = audit_rows(written(tmp_path, early, never, risen))
    before, stays = "0 from before", "stays as it was"
    assert [row.bme for row in rows] == [before, before, f"{before}, 1 again after 700 ms"]
    assert [row.memory_enable for row in rows] == [stays, before, stays]


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
    """By the way and its number, also of one that says nothing: there most has to be looked at."""
    case = Case("tests/lab/test_x.py::test_x", tmp_path)
    case.keep_audit(recorded(*STOPPED), Limits())
    with pytest.raises(MeasurementError, match="no buffer in"):
        case.keep_audit(recorded(*STOPPED, evidence=replace(QUIET, buffers=0)), Limits())
    case.keep_audit(recorded(*STOPPED, way="unbind"), Limits())
    with pytest.raises(MeasurementError, match="the clocks agree to 0"):
        case.keep_audit(recorded(*STOPPED), Limits(clock_uncertainty_ms=0.01))
    assert [each.way for each in case.audits] == ["bme-cleared", "unbind"]
    for kept in ("bme-cleared-1", "bme-cleared-2", "unbind-3"):
        samples = lines(tmp_path / f"bme-{kept}.jsonl")
        assert [sample["command"] for sample in samples] == [SET, CLEAR, SET]
        assert read_packets(tmp_path / f"packets-{kept}.parquet")["returned_ns"].count() > 300
    told = json.loads((tmp_path / "audit-bme-cleared-2.json").read_text())
    assert (told["moments"]["asked"], told["evidence"]["buffers"]) == (ASKED, 0)
    assert (told["back"], told["flow"]["receiver_dropped"]) == ("BME set", 0)
    assert not {"samples", "sent", "received"} & {*told, *told["flow"]}


def test_records_of_which_no_frame_can_be_made_are_kept_as_they_are(tmp_path: Path) -> None:
    """A recorder that was cut: whoever wants to know why needs what it wrote."""
    case, records = Case("tests/lab/test_x.py::test_x", tmp_path), recorded(*STOPPED)
    torn = replace(records.flow, received=records.flow.received[:-1])
    with pytest.raises(MeasurementError, match="ends in the middle of an entry"):
        case.keep_audit(replace(records, flow=torn), Limits())
    assert (tmp_path / "received-audit-bme-cleared-1.bin").read_bytes() == torn.received
    assert (tmp_path / "sent-audit-bme-cleared-1.bin").read_bytes() == torn.sent
    assert lines(tmp_path / "bme-bme-cleared-1.jsonl")


def lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(each) for each in path.read_text().splitlines()]
