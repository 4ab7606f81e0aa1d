"""Scheme ``inplace`` where QEMU drives it: with QEMUs that refuse, move, or fail, as over QMP."""

from __future__ import annotations

import time

import pytest
from qmp_server import Arguments, RefusedError, connected
from two_ends import MAC, End, filters_set, migrated
from two_ends import ends as ends

from harness.analysis.measured import MIGRATE_REFUSED, REFUSED
from harness.errors import MigrationError
from harness.migration.handoff import HandOff, Order
from harness.migration.outcome import GONE, Outcome
from harness.migration.schemes.vfio import VfioMigration

WORDS = "0000:01:10.0: VFIO migration is not supported in kernel"


def refuse(_: Arguments) -> object:
    raise RefusedError(WORDS)


def driven(ends: tuple[End, End]) -> Outcome:
    source, destination = ends
    hand_off = HandOff(source.vf, destination.vf, MAC, Order.AFTER_RESUME)
    return migrated(ends, VfioMigration(), hand_off)


def test_that_qemu_refuses_is_an_outcome_in_its_own_words(ends: tuple[End, End]) -> None:
    """It is what stock QEMU and drivers must do with such a VF: not an error of the harness."""
    source, destination = ends
    source.monitor.reacts["migrate"] = refuse
    before_ns = time.monotonic_ns()
    outcome = driven(ends)
    assert (outcome.status, outcome.reason, outcome.figures) == (REFUSED, WORDS, {})
    assert (outcome.source_state, outcome.destination_state) == ("running", "inmigrate")
    (note,) = outcome.notes
    assert (note.name, note.text) == (MIGRATE_REFUSED, WORDS)
    assert before_ns < outcome.asked_ns < note.t_ns < time.monotonic_ns()
    assert "query-migrate" not in source.asked, "QEMU knows of no migration"
    assert (filters_set(source), filters_set(destination)) == ([], [])


@pytest.mark.parametrize("command", ["migrate-incoming", "migrate-set-capabilities"])
def test_what_else_qemu_refuses_is_an_error(ends: tuple[End, End], command: str) -> None:
    """A port that is taken would pass for a VF that cannot be moved."""
    ends[1].monitor.reacts[command] = refuse
    with pytest.raises(MigrationError, match=f"birch: QEMU refused {command}"):
        driven(ends)


def test_a_qemu_that_does_not_refuse_is_waited_for(ends: tuple[End, End]) -> None:
    """The filter goes where the guest runs, as with any VF."""
    source, destination = ends
    connected(source.monitor, destination.monitor, resumes_after_s=0.1)
    outcome = driven(ends).check()
    assert outcome.figures["downtime"] == 224
    assert (filters_set(source), filters_set(destination)) == ([], [MAC])


def test_a_migration_that_fails_leaves_the_filter_at_the_source(ends: tuple[End, End]) -> None:
    """A device that cannot be loaded is seen late, by the destination alone."""
    source, destination = ends
    connected(source.monitor, destination.monitor, fails="Broken pipe")
    outcome = driven(ends)
    assert (outcome.status, outcome.destination_state) == ("failed", GONE)
    assert (filters_set(source), filters_set(destination)) == ([MAC], [])
