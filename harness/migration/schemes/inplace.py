"""``inplace``: the guest keeps its VF; what the seed is about, with every order of its steps.

QEMU moves a guest with a vfio-user device as if there were none, so nothing but the order of the
steps protects its memory; the order is a ``Plan``.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import replace
from typing import Any

from harness.analysis.measured import (
    IN_PLACE,
    MARKED,
    MARKING_REFUSED,
    QUIESCE,
    QUIESCED,
)
from harness.errors import LabError, MigrationError, RemoteError, WaitError
from harness.guest.instance import Instance
from harness.guest.machine import GuestMachine
from harness.guest.qmp import QmpEvent
from harness.host.twin import Twin
from harness.migration import pacing, scheme
from harness.migration.memory import LoggedComparison
from harness.migration.plan import Marking, Plan, Quiesce, When
from harness.migration.quiescing import stop_dma
from harness.migration.scheme import Note, Outcome
from harness.waiting import Deadline, let_pass

TOO_LATE_S = 0.5
"""How long after the end a step *after the stop* is taken: DMA goes on until then."""

_ATTACH_S = {Quiesce.ACPI_SUSPEND: 2.0, Quiesce.DEVICE_SUSPEND: 12.0}
"""Where a driver's resume may come: pm_test has it come 5 s after, and a guest stands meanwhile."""

PASS_SECONDS = 60
SWITCH_SECONDS = 60


class Inplace:
    """Move a guest together with its twin.

    What has been done to stop its DMA is not undone where the migration fails: the VF of a guest
    that stays is as the plan left it.
    """

    name = "inplace"
    has_vf = True

    def __init__(
        self,
        plan: Plan,
        guest: GuestMachine,
        source: Twin,
        destination: Twin,
        comparison: LoggedComparison,
    ) -> None:
        self.trigger = plan.quiesce.value
        attach_s = _ATTACH_S.get(plan.quiesce, 0.5)
        self.patience = scheme.Patience(attach_s=attach_s, after_s=1, served_s=1)
        """A VF that no driver sets up anew is dead and stays so; nobody has to wait for it long."""
        self._plan = plan
        self._guest = guest
        self._source = source
        self._destination = destination
        self._comparison = comparison
        self._notes: list[Note] = []
        self._log_at_start = self._since = 0

    def migrate(self, source: Instance, successor: Instance, address: tuple[str, int]) -> Outcome:
        """Move the guest; the successor must have been started *paused*.

        Raises LabError if QEMU stopped the guest before the plan's steps were taken: that would be
        another experiment.
        """
        self._note(IN_PLACE, self._plan.words, self._plan.data)
        self._log_at_start = self._source.log_position
        self._source.set_tracked(self._plan.marking is Marking.AS_WRITTEN)
        try:
            return self._move(source, successor, address)
        finally:
            self._source.set_tracked(False)

    def _move(self, source: Instance, successor: Instance, address: tuple[str, int]) -> Outcome:
        deadline = scheme.deadline_for(source)
        if self._plan.when is When.BEFORE:
            self._take_steps(source)
        pacing.pause_before_switchover(source)
        self._since = len(source.qmp.events)
        if self._plan.when is When.PRECOPY:
            pacing.make_passes_without_end(source)
        self._comparison.trace_copies(source)
        asked = scheme.ask(source, successor, address)
        try:
            self._bring_over(source, successor, asked, deadline)
            ended = scheme.outcome(asked, source, successor)
        except (MigrationError, WaitError, RemoteError) as late:
            if isinstance(late, RemoteError) and scheme.state_of(source) != scheme.GONE:
                raise
            ended = scheme.given_up(late, asked, source, successor, lambda: None)
        return replace(ended, notes=(*self._notes, *ended.notes))

    def _bring_over(
        self, source: Instance, successor: Instance, asked: scheme.Asked, deadline: Deadline
    ) -> None:
        """Take the steps, and let the guest run on; less, if the migration ends before."""
        if self._plan.when is When.PRECOPY:
            pacing.wait_for_half(source, deadline)
            self._take_steps(source)
            pacing.make_last_pass_soon(source)
        if not self._comes_to_switchover(source, asked, deadline):
            return
        if self._plan.when is When.PRE_SWITCHOVER:
            self._take_steps(source)
        source.qmp.execute("migrate-continue", {"state": "pre-switchover"})
        if not scheme.wait_for_end(source, asked, deadline):
            return
        if self._plan.when is When.AFTER_STOP:
            let_pass(TOO_LATE_S)
            self._take_steps(source)
        self._source.take_off_the_wire()  # its guest has gone
        scheme.wait_until_loaded(successor, deadline)
        self._comparison.digest(source, successor)
        self._resume(successor)

    def _comes_to_switchover(
        self, source: Instance, asked: scheme.Asked, deadline: Deadline
    ) -> bool:
        """Wait until QEMU has stopped the guest, or the migration has ended some other way."""
        event = source.qmp.wait_for(
            "the migration to be pre-switchover",
            lambda event: event.title == "MIGRATION pre-switchover" or scheme.is_ending(event),
            within=deadline,
            since=asked.since,
        )
        return bool(event.data["status"] == "pre-switchover")

    def _check_in_precopy(self, source: Instance) -> None:
        if self._plan.when is When.PRECOPY and any(
            event.name == "STOP" for event in source.qmp.events[self._since :]
        ):
            raise LabError(
                f"{source.host.name}: QEMU stopped the guest before the plan's steps were taken",
                because=f"the plan is {self._plan.words}: this was another one",
                fix="give the lab's machine less to do beside it, and run it again",
            )

    def _take_steps(self, source: Instance) -> None:
        with ExitStack() as going:
            if self._plan.passes:
                going.enter_context(pacing.busy(source, self._guest))
            if self._plan.marking is Marking.BEFORE:
                self._mark()
                self._let_gap_pass(source, going)
            self._quiesce(source)
            if self._plan.marking is Marking.AFTER:
                self._let_gap_pass(source, going)
                self._mark()
            self._check_in_precopy(source)

    def _let_gap_pass(self, source: Instance, going: ExitStack) -> None:
        """Wait for the plan's whole passes over the memory, and then for the plan's time.

        The pass that is under way is not a whole one.  The passes after that are slow until *going*
        is closed, so that QEMU does not come to the last pass before the steps are taken.
        """
        since = len(source.qmp.events)
        if self._plan.passes:
            self._wait_for_passes(source, since, 1)
            going.enter_context(pacing.slowed(source))
            self._wait_for_passes(source, since, 1 + self._plan.passes)
        let_pass(self._plan.gap_s)

    def _wait_for_passes(self, source: Instance, since: int, count: int) -> None:
        """Return when *count* passes have ended since QEMU's event *since*, or the guest stops."""

        def enough(event: QmpEvent) -> bool:
            ended = sum(each.name == "MIGRATION_PASS" for each in source.qmp.events[since:])
            return ended >= count or event.title == "MIGRATION pre-switchover"

        source.qmp.wait_for(
            "the next pass over the memory", enough, within=PASS_SECONDS, since=self._since
        )

    def _quiesce(self, source: Instance) -> None:
        how = self._plan.quiesce
        if how is Quiesce.NOTHING:
            return
        self._note(QUIESCE, how.value)
        stop_dma(how, self._source, self._guest, source)
        self._note(QUIESCED, how.value)

    def _mark(self) -> None:
        marked = self._source.control.ask("mark", since=self._log_at_start)
        if marked["refused"]:
            self._note(MARKING_REFUSED, marked["refused"])
        else:
            self._note(MARKED, f"{marked['pages']} pages", {"pages": marked["pages"]})

    def _resume(self, successor: Instance) -> None:
        """Let the guest run on, wake it if it sleeps, and tell the wire where it is."""
        mac = successor.spec.mac
        self._destination.set_filter(mac)
        successor.qmp.execute("cont")
        scheme.wait_for_resume(successor, Deadline(SWITCH_SECONDS))
        if self._plan.quiesce is Quiesce.ACPI_SUSPEND:
            successor.qmp.execute("system_wakeup")
        self._destination.announce(mac)

    def _note(self, name: str, text: str, data: Mapping[str, Any] | None = None) -> None:
        self._notes.append(Note(time.monotonic_ns(), name, text, data or {}))
