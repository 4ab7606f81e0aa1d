"""Tests move guests; a migration that is no result is made again, and each one is kept and told."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial

import pytest

from harness.analysis.expectation import PASS, Expectation
from harness.analysis.verdict import Limits
from harness.errors import GuestError
from harness.migration.move import Fault, Moment
from harness.migration.scheme import Scheme
from harness.report.junit import properties
from harness.run.lab import Lab
from harness.run.moving import MovingGuest
from harness.run.record import Case, Moved
from harness.traffic.flow import Flow

LOST = "the guest was lost; this lab tries once more"
NO_RESULT = "the harness was not good enough; this lab measures once more"


class Mover:
    """The fixture ``migrate`` of one test, *node*; see `harness.run.verbs.Migrate`."""

    def __init__(self, node: pytest.Item, lab: Lab, case: Case) -> None:
        self._node = node
        self._lab = lab
        self._case = case

    def __call__(
        self,
        guest: MovingGuest,
        *flows: Flow,
        by: Scheme,
        at: Mapping[Moment, Fault] | None = None,
        observe: bool = True,
        tries: int = 0,
        compare_memory: bool = False,
        expect: Expectation | None = PASS,
        limits: Limits | None = None,
    ) -> Moved:
        """Move *guest* as `Migrate` says."""
        go = partial(
            guest.migrate, flows, by=by, at=at, observe=observe, compare_memory=compare_memory
        )
        migrations = (tries or self._lab.topology.guest.migrate_tries) - 1  # that may still be lost
        measurings = self._lab.topology.limits.measure_tries - 1
        while True:
            try:
                with self._case.said() as raw:
                    conducted = go(raw)
            except GuestError:  # what it recorded itself is lost with it
                if not (migrations and guest.machine.lost):
                    raise
                migrations -= 1
                self._lab.progress(LOST)
                continue
            moved = self._case.keep(conducted, limits or self._lab.limits, expect)
            if migrations and conducted.lost_its_guest:
                migrations -= 1
                self._lab.progress(LOST)
            elif measurings and moved.verdict.word == "invalid" and not moved.migration.as_expected:
                measurings -= 1
                self._lab.progress(NO_RESULT)
            else:
                return self._told(moved, expect)
            self._told(self._case.not_counted(moved), None)

    def _told(self, moved: Moved, expect: Expectation | None) -> Moved:
        """Write the figures of *moved* for JUnit; fail the test if *moved* is not as expected."""
        number = len(self._case.moved)
        self._node.user_properties.extend(properties(moved.migration, number=number))
        if not moved.migration.as_expected:
            pytest.fail(f"expected {expect}; seen {moved.verdict.word}\n{moved.why}", pytrace=False)
        return moved
