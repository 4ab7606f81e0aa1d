"""Each lab runs as much of the suite as it should, and each test runs on some lab."""

from __future__ import annotations

import functools

import pytest
from selected_tests import selected

from harness.topology import TOPOLOGIES

LEAST = {
    "x520-pair": 48, "twin": 57, "emulated": 63, "emulated-x520-da2": 63, "emulated-63-vfs": 64,
    "emulated-82576": 38,
}  # fmt: skip
"""Of each lab that is described, how many test functions it selects at the least."""

selection = functools.cache(selected)


def functions(lab: str) -> dict[str, bool]:
    """Say for each test function whether the lab selects a case of it."""
    found: dict[str, bool] = {}
    for function, _, runs in selection(lab):
        found[function] = found.get(function, False) or runs
    return found


def test_every_lab_that_is_described_is_counted() -> None:
    """LEAST says of each lab in topologies/ how many tests the lab runs."""
    assert LEAST.keys() == {file.stem for file in TOPOLOGIES.glob("*.toml")}


@pytest.mark.parametrize(("lab", "least"), LEAST.items(), ids=LEAST)
def test_a_lab_selects_as_many_tests_as_it_should(lab: str, least: int) -> None:
    """A need that is too broad would take tests from a lab, and the lab would stay green."""
    found = functions(lab)
    assert sum(found.values()) >= least, [name for name, runs in found.items() if not runs]


def test_every_test_runs_on_one_of_the_labs() -> None:
    """Nobody ever sees a test fail or pass that no lab selects."""
    runs = [functions(lab) for lab in LEAST]
    assert [name for name in runs[0] if not any(each[name] for each in runs)] == []


@pytest.mark.parametrize("lab", LEAST)
def test_no_test_that_a_lab_cannot_run_hides_behind_others_of_its_subject(lab: str) -> None:
    """The summary of a run names the subjects that had no test: each lacking one needs its own."""
    tested = {about for _, about, runs in selection(lab) if runs}
    hidden = [each for each in selection(lab) if not each[2] and each[1] in tested]
    assert hidden == [], "mark these with about(...)"
