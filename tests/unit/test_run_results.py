"""What a run writes for programs, and the limits that it is judged by."""

from __future__ import annotations

from typing import Any

import pytest
from test_run_record import LIMITS, PROVENANCE, TEST, conducted, contents, kept
from test_run_record import record as record
from test_run_record import topology as topology

from harness.analysis.expectation import Expectation, Fail, Pass
from harness.analysis.verdict import Limits
from harness.report.reading import read_results
from harness.run.lab import limits_of
from harness.run.record import Record
from harness.topology import Topology


def test_results_are_written_whole(record: Record) -> None:
    """Read back by the same schema that other programs use, with the way to each test's files."""
    record.provenance = PROVENANCE
    case = record.case(TEST)
    case.outcome = "passed"
    kept(case)
    record.case("tests/lab/test_bme.py::test_a_vf_masters_the_bus").outcome = "failed"

    written = record.finish()
    assert written == read_results(record.folder)
    assert (written.run, written.started) == (record.name, record.started)
    assert (written.lab.name, written.lab.emulated) == ("emulated", True)
    assert written.lab.topology == record.topology.file
    assert written.provenance == PROVENANCE
    first, second = written.tests
    assert (first.nodeid, first.outcome, first.verdict) == (TEST, "passed", "pass")
    assert record.folder / first.artifacts == case.folder
    assert len(first.migrations) == 1
    assert (second.outcome, second.verdict, second.migrations) == ("failed", None, [])
    assert (record.folder / "report.html").stat().st_size > 10_000


BAD = Limits(longest_outage_ms=100)
TOO_LONG = Fail("longest outage")


@pytest.mark.parametrize(
    ("migrations", "verdict", "as_expected"),
    [
        pytest.param([(LIMITS, Pass()), (BAD, Pass()), (LIMITS, Pass())], "fail",
                     [True, False, True], id="a good way back does not mend a bad way there"),
        pytest.param([(BAD, TOO_LONG)], "pass", [True], id="a red control is as expected"),
        pytest.param([(LIMITS, TOO_LONG)], "fail", [False], id="a green control is not"),
        pytest.param([(BAD, Fail("pages"))], "fail", [False], id="red for another reason"),
        pytest.param([(BAD, None), (LIMITS, Pass())], "pass", [True, True], id="made again"),
    ],
)  # fmt: skip
def test_a_test_is_as_good_as_its_migrations_are_as_expected(
    record: Record,
    migrations: list[tuple[Limits, Expectation | None]],
    verdict: str,
    as_expected: list[bool],
) -> None:
    """The seed's argument is that wrong orders fail: a suite that shows it has no failure."""
    record.provenance = PROVENANCE
    case = record.case(TEST)
    for limits, expect in migrations:
        case.keep(conducted(), limits, expect)
    results = record.finish()
    assert results is not None
    (found,) = results.tests
    assert found.verdict == verdict
    assert [each.as_expected for each in found.migrations] == as_expected
    first = migrations[0][1]
    expected = found.migrations[0].expected
    assert (expected is None) == (first is None)
    if first and expected:
        assert (expected.verdict, expected.because) == (first.word, first.because)


def test_a_run_that_never_reached_its_hosts_has_no_results(record: Record) -> None:
    """Who reads them would take an empty list for a run in which nothing went wrong."""
    record.case(TEST)
    assert record.finish() is None
    assert "results.json" not in contents(record.folder)


def test_limits_are_those_of_the_labs_topology(topology: Topology) -> None:
    """One that is not taken over is a default: 10 ms of lateness, on an emulated processor."""
    stated: dict[str, Any] = {
        "longest_outage_ms": 3001, "total_outage_ms": 5001, "lost": 77, "sender_late_max_ms": 51,
        "clock_uncertainty_ms": 21,
    }  # fmt: skip
    lab = topology.model_copy(update={"limits": topology.limits.model_copy(update=stated)})
    assert limits_of(lab) == Limits(**stated)
