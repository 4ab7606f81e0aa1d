"""One move of a guest between two QEMUs: ask, wait for both ends, quote QEMU's own words."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from enum import Enum
from typing import Any

from harness.analysis.measured import FAULT, NO_FAULT
from harness.errors import HarnessError, MigrationError, UsageError
from harness.guest.instance import Instance
from harness.guest.machine import GuestMachine
from harness.guest.qmp import QemuGoneError, QmpEvent
from harness.migration.comparison import Comparison
from harness.migration.handoff import HandOff
from harness.migration.outcome import GONE, Note, Outcome, state_of
from harness.waiting import Deadline

SECONDS_AT_LEAST = 60
SECONDS_PER_GUEST_GIB = 120
"""A migration's deadline grows with the guest's memory; an emulated host moves about 60 MiB/s."""

CANCEL_SECONDS = 60
"""QEMU itself waits 30 s for a guest to let a VF go before it cancels without."""

_ENDINGS = ("completed", "failed", "cancelled")
_ANNOUNCE_EACH_STEP = [{"capability": "events", "state": True}]


class Moment(Enum):
    """A test can put in a fault at one of these moments, which follow each other."""

    FLOWING = "the flows run, and the migration is asked for next"
    PRECOPY = "memory is copied, and a failover guest has let its VF go"
    STANDING = "memory is loaded, and both sides stand still to be compared"
    DIGESTED = "both memories are digested, and the guest runs on next"
    RESUMED = "the guest runs at its destination"


Fault = Callable[[Instance, Instance], object]
"""A fault is a function that gets the QEMU of the source and the QEMU of the destination."""


@dataclass(slots=True)
class Move:
    """A move brings *guest*, once, from the QEMU *source* to *successor*, which waits elsewhere.

    address     where the source's QEMU reaches the successor's
    hand_off    of the guest's MAC filter; None for a guest that no host lends a VF
    comparison  of both memories, for which the successor must have been started paused; or None
    faults      what a test does to the migration, by the moment
    notes       what was done and missed so far, in order; a part of `outcome`
    deadline    for the whole migration; it begins as the migration is asked for, and once more
                when both memories are digested
    """

    source: Instance
    successor: Instance
    address: tuple[str, int]
    guest: GuestMachine
    hand_off: HandOff | None = None
    comparison: Comparison | None = None
    faults: Mapping[Moment, Fault] = field(default_factory=dict)
    notes: list[Note] = field(default_factory=list)
    deadline: Deadline = field(init=False)
    _asked_ns: int = field(init=False, default=0)
    _since: int = field(init=False, default=0)
    """The number of the source's first event after ``migrate`` was sent.

    What it said before may be of another migration: of the one that brought the guest here.
    """

    def go(self) -> Outcome:
        """Ask for the migration, and see it through.

        A migration that does not end in time is cancelled: that it got stuck is its outcome, and
        what was seen of it is worth the most.  A migration whose source ended has an outcome, too.
        Raises MigrationError if QEMU refuses the migration.
        """
        self.ask()
        return self.see_through()

    def ask(self) -> None:
        """Have the successor listen and the source migrate to it; the deadline begins.

        Raises RefusedError if either will not.
        """
        self.deadline = deadline_for(self.source)
        for each in (self.source, self.successor):
            each.qmp.execute("migrate-set-capabilities", {"capabilities": _ANNOUNCE_EACH_STEP})
        host, port = self.address
        self.successor.qmp.execute("migrate-incoming", {"uri": f"tcp:0.0.0.0:{port}"})
        self._asked_ns, self._since = time.monotonic_ns(), len(self.source.qmp.events)
        self.source.qmp.execute("migrate", {"uri": f"tcp:{host}:{port}"})

    def see_through(self) -> Outcome:
        """Wait for both ends, and do what is to be done where the guest runs then."""
        try:
            self.come_to_precopy()
            if self.wait_for_end():
                if self.comparison:
                    self.compare_standing()
                    self.successor.qmp.execute("cont")
                self.wait_for_resume()
                if self.hand_off:
                    self.hand_off.arrive()
            else:
                self._stay()
        except MigrationError as late:
            return self.give_up(late)
        return self.outcome()

    def come_to_precopy(self) -> None:
        """Put in the fault of that moment, if there is one, as soon as memory is copied."""
        if Moment.PRECOPY not in self.faults:
            return
        seen = self.wait_for("memory to be copied", lambda event: event.title == "MIGRATION active")
        if not is_ending(seen):
            self.come_to(Moment.PRECOPY)

    def come_to(self, moment: Moment) -> None:
        """Put in the fault that a test has planned for *moment*, if there is one, and note that."""
        if moment in self.faults:
            self.faults[moment](self.source, self.successor)
            self.note(FAULT, moment.name.lower())

    def wait_for(self, what: str, happened: Callable[[QmpEvent], bool]) -> QmpEvent:
        """Return the event of the source's QEMU for which *happened*, or that ends the migration.

        *what* is what is waited for, in words.  Raises MigrationError if neither comes in time.
        """
        return self.source.qmp.wait_for(
            what,
            lambda event: happened(event) or is_ending(event),
            within=self.deadline,
            since=self._since,
        )

    def wait_for_end(self) -> bool:
        """Wait until the source's QEMU says how the migration ended, and return if it completed."""
        ending = self.wait_for("the migration to end", is_ending)
        return bool(ending.data["status"] == "completed")

    def compare_standing(self) -> None:
        """Digest both memories while both sides stand still, once the last page is loaded.

        The source is done as soon as it has sent that page.
        """
        assert self.comparison is not None, "nothing is compared"
        self.successor.qmp.wait_for(
            "the guest's memory to be loaded",
            lambda event: event.title == "MIGRATION completed",
            within=self.deadline,
        )
        self.come_to(Moment.STANDING)
        self.comparison.digest(self.source, self.successor)
        self.come_to(Moment.DIGESTED)
        self.deadline = deadline_for(self.source)  # digesting took time that is not QEMU's

    def wait_for_resume(self) -> None:
        """Wait until the guest runs on at its destination."""
        self.successor.qmp.wait_for(
            "the guest to run on", lambda event: event.name == "RESUME", within=self.deadline
        )
        self.come_to(Moment.RESUMED)

    def give_up(self, late: HarnessError) -> Outcome:
        """Cancel a migration that is *late*, and tell how far it came."""
        note = self.note("gave up waiting", f"{late.what}; {late.because}")
        try:
            self.source.qmp.execute("migrate_cancel")  # does nothing to one that is over
            self.source.qmp.wait_for(
                "it to end", is_ending, within=CANCEL_SECONDS, since=self._since
            )
        except (QemuGoneError, MigrationError):
            if state_of(self.source) != GONE:  # that it ended is an outcome, too
                raise
        ended = self.outcome(else_because=note.text)
        if ended.status != "completed" and ended.source_state != GONE:
            self._stay()
        return ended

    def outcome(self, else_because: str | None = None) -> Outcome:
        """Ask both ends how it went; *else_because* is the reason where QEMU gives none.

        The migration failed if the source's QEMU has ended, its guest with it.
        """
        figures: Mapping[str, Any]
        try:
            figures = self.source.qmp.execute("query-migrate")
        except QemuGoneError:
            host = self.source.host.name
            ended = f"{host}: the guest has ended at its source; {self.source.last_words}"
            figures = {"status": "failed", "error-desc": ended}
        reason = figures.get("error-desc") or else_because
        return self.ended_as(str(figures["status"]), reason, figures)

    def ended_as(self, status: str, reason: str | None, figures: Mapping[str, Any]) -> Outcome:
        """Return the outcome with that *status*, all notes, and the states of both ends now."""
        return Outcome(
            asked_ns=self._asked_ns,
            status=status,
            reason=reason,
            figures=figures,
            source_state=state_of(self.source),
            destination_state=state_of(self.successor),
            notes=(*self.notes, *self._faults_left()),
        )

    def note(self, name: str, text: str, data: Mapping[str, Any] | None = None) -> Note:
        """Note that something was done or missed now."""
        self.notes.append(Note(time.monotonic_ns(), name, text, data or {}))
        return self.notes[-1]

    def _faults_left(self) -> tuple[Note, ...]:
        """Return a note for each fault whose moment never came: nothing was shown by it."""
        put_in = {note.text for note in self.notes if note.name == FAULT}
        left = [each.name.lower() for each in self.faults if each.name.lower() not in put_in]
        now_ns = time.monotonic_ns()
        return tuple(Note(now_ns, NO_FAULT, f"{name}: it did not come to that") for name in left)

    def _stay(self) -> None:
        if self.hand_off:
            self.hand_off.stay()


def check_faults(faults: Mapping[Moment, Fault], *, compares: bool) -> None:
    """Raise UsageError for a fault at a moment to which no migration of this kind comes.

    *compares* says whether both memories are compared.
    """
    for moment in (Moment.STANDING, Moment.DIGESTED):
        if moment in faults and not compares:
            raise UsageError(
                f"a fault at Moment.{moment.name} would never be put in",
                because="both sides stand still only where both memories are compared",
                fix="add compare_memory=True, or choose another moment",
            )


def deadline_for(instance: Instance) -> Deadline:
    """Return how long a migration of this guest may take in all."""
    return Deadline(SECONDS_AT_LEAST + SECONDS_PER_GUEST_GIB * instance.spec.memory_mib / 1024)


def is_ending(event: QmpEvent) -> bool:
    """Say whether *event* is QEMU's word that the migration is over, well or not."""
    return event.name == "MIGRATION" and event.data["status"] in _ENDINGS
