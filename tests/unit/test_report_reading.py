"""Reading results.json: of this schema, of an older one, of a later one, and damaged."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from synthetic import failover
from test_report_page import printed
from test_report_results import run_of

from harness.analysis.expectation import Pass
from harness.analysis.verdict import Limits
from harness.errors import UsageError
from harness.report.entry import migration_result
from harness.report.page import write_page
from harness.report.reading import read_results
from harness.report.results import Migration, write_results

TWO_REASONS = "fail: QEMU said: gone; its last words: none; flow jumbo: 3 frames lost, more than 1"


def written(folder: Path, **changes: object) -> None:
    """Write a run with *changes* at the top of its results.json."""
    path = write_results(run_of(migration_result(failover()).migration), folder)
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


def of_schema_1(folder: Path, reason: str | None) -> None:
    """Write the same run as a harness of schema 1 wrote it."""
    path = write_results(run_of(migration_result(failover()).migration), folder)
    document = json.loads(path.read_text())
    (old,) = document["tests"][0]["migrations"]
    for name in ("verdict", "reasons", "expected", "as_expected", "qemu_reason"):
        del old[name]
    for phase in old["phases"]:
        del phase["uncertainty_ms"]
    for outage in old["flows"][0]["outages"]:
        del outage["candidates"]
    path.write_text(json.dumps({**document, "schema": 1, "tests": [
        {**document["tests"][0], "migrations": [{**old, "reason": reason}]}
    ]}))  # fmt: skip


def only(folder: Path) -> Migration:
    ((migration,),) = (case.migrations for case in read_results(folder).tests)
    return migration


@pytest.mark.parametrize(
    ("reason", "verdict", "reasons", "qemu_reason"),
    [
        (None, "pass", (), None),
        ("QEMU refused: no; never", "pass", (), "QEMU refused: no; never"),
        (TWO_REASONS, "fail", (TWO_REASONS.removeprefix("fail: "),), None),
        ("invalid: 3 ms late", "invalid", ("3 ms late",), None),
    ],
)
def test_a_run_of_schema_1_is_read(
    reason: str | None, verdict: str, reasons: tuple[str, ...], qemu_reason: str | None,
    tmp_path: Path,
) -> None:  # fmt: skip
    """Years of nightly runs are of schema 1; a sentence with "; " in it stays whole."""
    of_schema_1(tmp_path, reason)
    found = only(tmp_path)
    assert (found.verdict, found.reasons, found.qemu_reason) == (verdict, reasons, qemu_reason)
    assert (found.expected, found.as_expected) == (None, verdict == "pass")
    assert {outage.candidates for outage in found.flows[0].outages} == {None}
    assert {phase.uncertainty_ms for phase in found.phases} == {None}
    assert "jumbo" in write_page(tmp_path).read_text()


def test_a_reason_with_a_semicolon_is_one_line(tmp_path: Path) -> None:
    """QEMU's words have semicolons; half of a sentence in a list means something else."""
    limits = Limits(status="completed")
    gone = failover(status="failed", reason="gone; nothing heard")
    moved = migration_result(gone, limits, Pass())
    run = run_of(moved.migration)
    said = "the migration ended as failed, not as completed: gone; nothing heard"
    assert f"fail test_x (failover): {said}\n" in printed(run)
    write_results(run, tmp_path)
    assert f"<li>{said}</li>" in write_page(tmp_path).read_text()


def test_a_name_of_a_later_harness_is_passed_over(tmp_path: Path) -> None:
    """What was only added needs no new number; an old reader must go on."""
    written(tmp_path, surprise=1)
    assert read_results(tmp_path).run == "synthetic"


@pytest.mark.parametrize(
    ("changes", "what", "fix"),
    [
        ({"schema": 3}, "is of schema 3", "newer version of the harness"),
        ({"schema": 0}, "is not of schema 2: schema: Input should be 2", "provenance.harness"),
        ({"schema": None}, "does not say of which schema", "copy the run's folder again"),
        ({"schema": True}, "does not say of which schema", "copy the run's folder again"),
        ({"tests": None}, "tests: Input should be a valid list", "provenance.harness"),
        ({"schema": 1, "tests": None}, "is not of schema 1: ", "copy the run's folder again"),
        ({"schema": 1, "tests": [{}]}, "is not of schema 1: ", "copy the run's folder again"),
        ({"schema": 1, "tests": [7]}, "is not of schema 1: ", "copy the run's folder again"),
    ],
)
def test_what_cannot_be_trusted_is_refused_in_words(
    changes: dict[str, Any], what: str, fix: str, tmp_path: Path
) -> None:
    """A reader that guesses would compare what cannot be compared."""
    written(tmp_path, **changes)
    with pytest.raises(UsageError, match=what) as refused:
        read_results(tmp_path)
    assert fix in refused.value.fix


@pytest.mark.parametrize("text", ["", '{"schema": 2, "run": "x"', "\x00"])
def test_a_file_that_was_cut_off_is_refused(text: str, tmp_path: Path) -> None:
    (tmp_path / "results.json").write_text(text)
    with pytest.raises(UsageError, match="is not JSON"):
        read_results(tmp_path)


def test_a_folder_without_results_is_refused(tmp_path: Path) -> None:
    for folder in (tmp_path, Path(__file__)):  # the latter is a file
        with pytest.raises(UsageError, match=r"holds no results\.json"):
            read_results(folder)


def test_a_file_that_holds_no_object_is_refused(tmp_path: Path) -> None:
    (tmp_path / "results.json").write_text("[]")
    with pytest.raises(UsageError, match="the file: Input should be a valid dictionary"):
        read_results(tmp_path)
