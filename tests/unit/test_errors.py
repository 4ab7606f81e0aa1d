"""Errors: three parts, and an exit code that says who must act."""

import pytest

from harness.errors import (
    GuestError,
    HarnessError,
    LabBusy,
    LabError,
    MeasurementError,
    MigrationError,
    RemoteError,
    RestoreError,
    UsageError,
    WaitError,
)

EXIT_CODES = {
    UsageError: 2,
    LabError: 11,
    LabBusy: 10,
    RestoreError: 12,
    RemoteError: 1,
    WaitError: 1,
    GuestError: 1,
    MigrationError: 1,
    MeasurementError: 1,
}


@pytest.mark.parametrize(("kind", "code"), EXIT_CODES.items())
def test_each_error_has_the_exit_code_that_is_documented(
    kind: type[HarnessError], code: int
) -> None:
    """CI jobs tell a busy lab (10) from an unhealthy one (11) and a dirty host (12) by these."""
    error = kind("alder: no answer", because="nothing can be measured", fix="look at alder")
    assert error.exit_code == code


def test_an_error_is_read_as_what_because_and_fix() -> None:
    """A part lost in printing would leave the reader without a next step."""
    error = LabBusy("alder: is lent to ci-17", because="two runs would mix", fix="wait until 12:40")
    assert str(error).splitlines() == [
        "alder: is lent to ci-17",
        "  because: two runs would mix",
        "  to fix:  wait until 12:40",
    ]
    assert (error.what, error.because, error.fix) == (
        "alder: is lent to ci-17",
        "two runs would mix",
        "wait until 12:40",
    )


@pytest.mark.parametrize("missing", ["because", "fix"])
def test_an_error_cannot_be_raised_without_its_reason_or_its_cure(missing: str) -> None:
    """A default would be what most messages end with."""
    parts = {"because": "it does not answer", "fix": "look at it"}
    del parts[missing]
    with pytest.raises(TypeError, match=missing):
        LabError("alder: broken", **parts)


def test_whoever_catches_lab_errors_catches_busy_and_restore_errors() -> None:
    """The command line ends a run on any of the three without naming each."""
    assert issubclass(LabBusy, LabError)
    assert issubclass(RestoreError, LabError)
    assert all(issubclass(kind, HarnessError) for kind in EXIT_CODES)
