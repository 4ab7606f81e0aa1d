"""A program of the lab that is missing, fails or hangs is an error in three parts."""

from __future__ import annotations

from pathlib import Path

import pytest
from machines import alive

from harness.errors import LabError
from harness.lab import programs

MEANS = "the lab's keys could not be made"


def test_a_program_that_fails_is_told_with_its_last_words() -> None:
    with pytest.raises(LabError) as failed:
        programs.output_of("sh", "-c", "echo first; echo no room >&2; exit 3", means=MEANS)
    assert str(failed.value.what).endswith("ended with status 3")
    assert failed.value.because == f"{MEANS}; its last words: no room"
    assert "by hand" in failed.value.fix


def test_a_failure_may_have_a_fix_of_its_own() -> None:
    with pytest.raises(LabError) as failed:
        programs.output_of("false", means=MEANS, fix="make room")
    assert failed.value.fix == "make room"
    assert failed.value.because.endswith("its last words: nothing")


def test_a_program_that_is_missing_is_named() -> None:
    with pytest.raises(LabError, match="no-such-program is not installed") as missing:
        programs.run("no-such-program", means=MEANS)
    assert missing.value.because == MEANS


def test_a_program_that_hangs_is_ended_with_what_it_has_started(tmp_path: Path) -> None:
    """A package manager that lives on writes to a folder that is being removed."""
    child = tmp_path / "child"
    script = f"sleep 60 & echo $! > {child}; echo waits for ever >&2; wait"
    with pytest.raises(LabError, match="sh did not end in 5 s") as late:
        programs.run("sh", "-c", script, means=MEANS, seconds=5)
    assert late.value.because == f"{MEANS}; its last words: waits for ever"
    assert not alive(int(child.read_text()))


def test_a_program_that_cannot_be_run_is_named(tmp_path: Path) -> None:
    with pytest.raises(LabError, match="cannot be run: Permission denied") as refused:
        programs.run(str(tmp_path), means=MEANS)
    assert refused.value.because == MEANS


def test_output_that_is_no_text_does_not_end_the_lab() -> None:
    assert programs.output_of("printf", r"\377", means=MEANS) == "\N{REPLACEMENT CHARACTER}"
