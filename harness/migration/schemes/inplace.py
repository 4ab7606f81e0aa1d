"""``inplace``: the guest keeps its VF; what the seed is about, with every order of its steps.

QEMU moves a guest with a vfio-user device as if there were none, so nothing but the order of the
steps protects its memory; the order is a ``Plan``.
"""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import dataclass

from harness.analysis.measured import IN_PLACE, MARKED, MARKING_REFUSED, QUIESCE, QUIESCED
from harness.analysis.scheme import Mark
from harness.errors import LabError, MigrationError, RemoteError, WaitError
from harness.guest.instance import Instance
from harness.guest.qmp import QmpEvent
from harness.guest.spec import GuestSpec
from harness.host.software_vf import Logged
from harness.host.twin import Twin
from harness.host.vf import Vf
from harness.migration import pacing
from harness.migration.memory import LoggedComparison
from harness.migration.move import Move
from harness.migration.outcome import GONE, Outcome, state_of
from harness.migration.plan import Marking, Plan, Quiesce, When
from harness.migration.quiescing import stop_dma
from harness.migration.scheme import Patience, Scheme, cannot_move
from harness.waiting import let_pass

TOO_LATE_S = 0.5
"""How long after the end a step *after the stop* is taken: DMA goes on until then."""

_ATTACH_S = {Quiesce.ACPI_SUSPEND: 2.0, Quiesce.DEVICE_SUSPEND: 12.0}
"""Where a driver's resume may come: pm_test has it come 5 s after, and a guest stands meanwhile."""

PASS_SECONDS = 60

KEEPS_VF = (
    ("quiesce", Mark.QUIESCE),
    ("pre-copy", Mark.ASKED),
    ("stop", Mark.STOPPING),
    ("resume", Mark.RUNS),
    ("after", Mark.MASTERS),
)
"""The phases of every scheme by which a guest keeps its VF."""


def check_keeps_vf(scheme: Scheme, spec: GuestSpec) -> None:
    """Raise UsageError for a guest whose VF has a standby: QEMU would unplug that VF."""
    if spec.standby:
        raise cannot_move(
            scheme,
            because="its VF is the primary of a failover pair, which QEMU unplugs",
            fix="use the fixture bare_guest, or name Failover()",
        )


@dataclass(frozen=True)
class InPlace(Scheme):
    """Move a guest together with its twin, in the order of *plan*.

    What has been done to stop its DMA is not undone where the migration fails: the VF of a guest
    that stays is as the plan left it.
    """

    plan: Plan

    name = "inplace"
    vf = "kept"
    phases = KEEPS_VF
    must_show = (Mark.MASTERS,)

    @property
    def usual_patience(self) -> Patience:
        """A VF that no driver sets up anew is dead and stays so: nobody waits for that VF long."""
        return Patience(attach_s=_ATTACH_S.get(self.plan.quiesce, 0.5), after_s=1, served_s=1)

    @property
    def always_compares(self) -> bool:
        """The scheme always compares: it asks whether every byte arrived."""
        return True

    def check(self, spec: GuestSpec, vf: Vf | None, destination: Vf | None) -> None:
        """Refuse a plan that cannot be done, a guest with a standby, and one without twins."""
        self.plan.check()
        check_keeps_vf(self, spec)
        Twin.of(vf).check_logged()
        Twin.of(destination)

    def comparison(self, source: Instance, log: Logged | None) -> LoggedComparison:
        """Return the comparison that holds each page against the twin's own log."""
        del log
        return LoggedComparison(Twin.of(source.vf))

    def trigger(self, spec: GuestSpec) -> str:
        """Return how the plan stops the VF."""
        del spec
        return self.plan.quiesce.value

    def migrate(self, move: Move) -> Outcome:
        """Make *move*, which has a `LoggedComparison`.

        Raises LabError if QEMU stopped the guest before the plan's steps were taken: that would be
        another experiment.
        """
        move.note(IN_PLACE, self.plan.words, self.plan.data)
        twin = Twin.of(move.source.vf)
        steps = _Steps(self.plan, move, twin, log_at_start=twin.log_position)
        twin.set_tracked(self.plan.marking is Marking.AS_WRITTEN)
        try:
            return steps.take()
        finally:
            twin.set_tracked(False)


class _Steps:
    """The steps of *plan* are taken once, while *move* is made with *twin*."""

    def __init__(self, plan: Plan, move: Move, twin: Twin, *, log_at_start: int) -> None:
        self._plan = plan
        self._move = move
        self._twin = twin
        self._log_at_start = log_at_start
        self._since = 0

    def take(self) -> Outcome:
        move, source = self._move, self._move.source
        assert isinstance(move.comparison, LoggedComparison), "the scheme's own"
        if self._plan.when is When.BEFORE:
            self._stop_and_mark()
        pacing.pause_before_switchover(source)
        self._since = len(source.qmp.events)
        if self._plan.when is When.PRECOPY:
            pacing.make_passes_without_end(source)
        move.comparison.trace_copies(source)
        move.ask()
        try:
            self._bring_over()
            return move.outcome()
        except (MigrationError, WaitError, RemoteError) as late:
            if isinstance(late, RemoteError) and state_of(source) != GONE:
                raise
            return move.give_up(late)

    def _bring_over(self) -> None:
        """Take the steps, and let the guest run on; less, if the migration ends before."""
        move, source = self._move, self._move.source
        move.come_to_precopy()
        if self._plan.when is When.PRECOPY:
            pacing.wait_for_half(source, move.deadline)
            self._stop_and_mark()
            pacing.make_last_pass_soon(source)
        if not self._comes_to_switchover():
            return
        if self._plan.when is When.PRE_SWITCHOVER:
            self._stop_and_mark()
        source.qmp.execute("migrate-continue", {"state": "pre-switchover"})
        if not move.wait_for_end():
            return
        if self._plan.when is When.AFTER_STOP:
            let_pass(TOO_LATE_S)
            self._stop_and_mark()
        self._twin.take_off_the_wire()  # its guest has gone
        move.compare_standing()
        self._resume()

    def _comes_to_switchover(self) -> bool:
        """Wait until QEMU has stopped the guest, or the migration has ended some other way."""
        event = self._move.wait_for(
            "the migration to be pre-switchover",
            lambda event: event.title == "MIGRATION pre-switchover",
        )
        return bool(event.data["status"] == "pre-switchover")

    def _check_in_precopy(self) -> None:
        source = self._move.source
        if self._plan.when is When.PRECOPY and any(
            event.name == "STOP" for event in source.qmp.events[self._since :]
        ):
            raise LabError(
                f"{source.host.name}: QEMU stopped the guest before the plan's steps were taken",
                because=f"the plan is {self._plan.words}: this was another one",
                fix="give the lab's machine less to do beside it, and run it again",
            )

    def _stop_and_mark(self) -> None:
        with ExitStack() as going:
            if self._plan.passes:
                going.enter_context(pacing.busy(self._move.source, self._move.guest))
            if self._plan.marking is Marking.BEFORE:
                self._mark()
                self._let_gap_pass(going)
            self._quiesce()
            if self._plan.marking is Marking.AFTER:
                self._let_gap_pass(going)
                self._mark()
            self._check_in_precopy()

    def _let_gap_pass(self, going: ExitStack) -> None:
        """Wait for the plan's whole passes over the memory, and then for the plan's time.

        The pass that is under way is not a whole one.  The passes after that are slow until *going*
        is closed, so that QEMU does not come to the last pass before the steps are taken.
        """
        source = self._move.source
        since = len(source.qmp.events)
        if self._plan.passes:
            self._wait_for_passes(since, 1)
            going.enter_context(pacing.slowed(source))
            self._wait_for_passes(since, 1 + self._plan.passes)
        let_pass(self._plan.gap_s)

    def _wait_for_passes(self, since: int, count: int) -> None:
        """Return when *count* passes have ended since QEMU's event *since*, or the guest stops."""
        qmp = self._move.source.qmp

        def enough(event: QmpEvent) -> bool:
            ended = sum(each.name == "MIGRATION_PASS" for each in qmp.events[since:])
            return ended >= count or event.title == "MIGRATION pre-switchover"

        qmp.wait_for(
            "the next pass over the memory", enough, within=PASS_SECONDS, since=self._since
        )

    def _quiesce(self) -> None:
        how = self._plan.quiesce
        if how is Quiesce.NOTHING:
            return
        self._move.note(QUIESCE, how.value)
        stop_dma(how, self._twin, self._move.guest, self._move.source)
        self._move.note(QUIESCED, how.value)

    def _mark(self) -> None:
        marked = self._twin.control.ask("mark", since=self._log_at_start)
        if marked["refused"]:
            self._move.note(MARKING_REFUSED, marked["refused"])
        else:
            self._move.note(MARKED, f"{marked['pages']} pages", {"pages": marked["pages"]})

    def _resume(self) -> None:
        """Let the guest run on, wake it if it sleeps, and tell the wire where it is."""
        successor = self._move.successor
        mac, twin = successor.spec.mac, Twin.of(successor.vf)
        twin.set_filter(mac)
        successor.qmp.execute("cont")
        self._move.wait_for_resume()
        if self._plan.quiesce is Quiesce.ACPI_SUSPEND:
            successor.qmp.execute("system_wakeup")
        twin.announce(mac)
