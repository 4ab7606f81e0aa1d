"""What every way to migrate has in common: ask, wait for both ends, quote QEMU's own words."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Protocol

from harness.errors import HarnessError, MigrationError, RemoteError
from harness.guest.instance import Instance
from harness.guest.qmp import QemuGoneError, QmpEvent
from harness.waiting import Deadline

SECONDS_AT_LEAST = 60
SECONDS_PER_GUEST_GIB = 120
"""A migration's deadline grows with the guest's memory; an emulated host moves about 60 MiB/s."""

CANCEL_SECONDS = 60
"""QEMU itself waits 30 s for a guest to let a VF go before it cancels without."""

GONE, SILENT = "gone", "silent"
_ENDINGS = ("completed", "failed", "cancelled")


@dataclass(frozen=True, slots=True)
class Asked:
    """A migration that was asked for: *t_ns* is our monotonic time when ``migrate`` was sent.

    *since* is the number of the source's first event after that.  What it said before may be of
    another migration: the one that brought the guest here, or one that failed.
    """

    t_ns: int
    since: int


@dataclass(frozen=True, slots=True)
class Note:
    """Something that we ourselves did or missed: *t_ns* is our monotonic time."""

    t_ns: int
    name: str
    text: str
    data: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Outcome:
    """How a migration ended, as both ends say.

    *asked_ns* is our monotonic time when ``migrate`` was sent; *figures* is the source's whole
    ``query-migrate``, *status* and *reason* its ``status`` and ``error-desc``.  A state is GONE
    where QEMU itself ended, as the destination's does when a migration fails, and SILENT where it
    does not answer.  What did not come in time is a note, and the *reason* where QEMU gave none.
    Of a migration that QEMU would not begin *status* is REFUSED, *reason* its words, and there are
    no *figures*.
    """

    asked_ns: int
    status: str
    reason: str | None
    figures: Mapping[str, Any]
    source_state: str
    destination_state: str
    notes: tuple[Note, ...] = ()

    def noted(self, *notes: Note) -> Outcome:
        """Add *notes* to those that it has."""
        return replace(self, notes=(*self.notes, *notes))

    def check(self) -> Outcome:
        """Return this; raises MigrationError unless it completed and the destination runs."""
        if self.status != "completed" or self.destination_state != "running":
            raise MigrationError(
                f"the migration ended as {self.status!r}, with the destination "
                f"{self.destination_state!r}",
                because=f"QEMU says: {self.reason or 'nothing'}",
                fix="see the timeline and the QMP logs of both hosts among the artifacts",
            )
        return self


@dataclass(frozen=True, slots=True)
class Patience:
    """How long it is waited for what should come after a migration.

    *attach_s* for the guest to take up its VF, *after_s* to see what lasts, also where QEMU
    refused, *served_s* for a flow that is cut off at the end: the longer, the fewer outages have an
    open end.
    """

    attach_s: float = 60
    after_s: float = 5
    served_s: float = 20


class Scheme(Protocol):
    """A way to migrate."""

    @property
    def name(self) -> str:
        """Its word, as in the list of schemes."""

    @property
    def has_vf(self) -> bool:
        """Whether the guest owns a VF."""

    @property
    def trigger(self) -> str | None:
        """What tells the guest to let the VF go, or how that is stopped; None without one."""

    @property
    def patience(self) -> Patience:
        """For what comes after it."""

    def migrate(self, source: Instance, successor: Instance, address: tuple[str, int]) -> Outcome:
        """Move the guest to *successor*, which waits on another host; *address* leads there.

        Returns when both ends have come to an end, well or not.
        """


def move(
    source: Instance,
    successor: Instance,
    address: tuple[str, int],
    *,
    standing: Callable[[Instance, Instance], None] | None = None,
    arrived: Callable[[], None] = lambda: None,
    stayed: Callable[[], None] = lambda: None,
) -> Outcome:
    """Ask, wait for both ends, and do what is to be done where the guest runs then.

    With *standing* the successor must have been started paused: that is called when its memory is
    loaded and both sides stand still, and then the guest runs on.

    A migration that does not end in time is cancelled: that it got stuck is its outcome, and
    what was seen of it is worth the most.  So it is with one whose source ended.  Raises
    MigrationError if QEMU refuses it.
    """
    deadline = deadline_for(source)
    asked = ask(source, successor, address)
    return see_through(
        asked, source, successor, deadline, standing=standing, arrived=arrived, stayed=stayed
    )


def see_through(
    asked: Asked,
    source: Instance,
    successor: Instance,
    deadline: Deadline,
    *,
    standing: Callable[[Instance, Instance], None] | None,
    arrived: Callable[[], None],
    stayed: Callable[[], None],
) -> Outcome:
    """Do the rest of `move` with a migration that was asked for."""
    try:
        if wait_for_end(source, asked, deadline):
            if standing:
                wait_until_loaded(successor, deadline)
                standing(source, successor)
                successor.qmp.execute("cont")
            wait_for_resume(successor, deadline)
            arrived()
        else:
            stayed()
    except MigrationError as late:
        return given_up(late, asked, source, successor, stayed)
    return outcome(asked, source, successor)


def given_up(
    late: HarnessError,
    asked: Asked,
    source: Instance,
    successor: Instance,
    stayed: Callable[[], None],
) -> Outcome:
    """Cancel a migration that is *late*, and tell how far it came."""
    note = Note(time.monotonic_ns(), "gave up waiting", f"{late.what}; {late.because}")
    try:
        source.qmp.execute("migrate_cancel")  # does nothing to one that is over
        source.qmp.wait_for("it to end", is_ending, within=CANCEL_SECONDS, since=asked.since)
    except (QemuGoneError, MigrationError):
        if state_of(source) != GONE:  # that it ended is an outcome, too
            raise
    ended = outcome(asked, source, successor)
    if ended.status != "completed" and ended.source_state != GONE:
        stayed()
    return replace(ended, reason=ended.reason or note.text, notes=(note,))


def deadline_for(instance: Instance) -> Deadline:
    """How long a migration of this guest may take in all."""
    return Deadline(SECONDS_AT_LEAST + SECONDS_PER_GUEST_GIB * instance.spec.memory_mib / 1024)


def ask(source: Instance, successor: Instance, address: tuple[str, int]) -> Asked:
    """Have *successor* listen and *source* migrate to it.

    Raises RefusedError if either will not.
    """
    for each in (source, successor):
        each.qmp.execute("migrate-set-capabilities", {"capabilities": _ANNOUNCE_EACH_STEP})
    host, port = address
    successor.qmp.execute("migrate-incoming", {"uri": f"tcp:0.0.0.0:{port}"})
    asked = Asked(time.monotonic_ns(), since=len(source.qmp.events))
    source.qmp.execute("migrate", {"uri": f"tcp:{host}:{port}"})
    return asked


def wait_for_end(source: Instance, asked: Asked, deadline: Deadline) -> bool:
    """Wait until *source* says how it ended; whether it completed."""
    ending = source.qmp.wait_for(
        "the migration to end", is_ending, within=deadline, since=asked.since
    )
    return bool(ending.data["status"] == "completed")


def wait_until_loaded(successor: Instance, deadline: Deadline) -> None:
    """Return when the last page has arrived; the source is done as soon as it has sent it."""
    successor.qmp.wait_for(
        "the guest's memory to be loaded",
        lambda event: event.title == "MIGRATION completed",
        within=deadline,
    )


def wait_for_resume(successor: Instance, deadline: Deadline) -> QmpEvent:
    """Wait until the guest runs on at its destination."""
    return successor.qmp.wait_for(
        "the guest to run on", lambda event: event.name == "RESUME", within=deadline
    )


def outcome(asked: Asked, source: Instance, successor: Instance) -> Outcome:
    """Ask both ends how it went.  It failed if the source's QEMU has ended, its guest with it."""
    figures: Mapping[str, Any]
    try:
        figures = source.qmp.execute("query-migrate")
    except QemuGoneError:
        ended = f"{source.host.name}: the guest has ended at its source; {source.last_words}"
        figures = {"status": "failed", "error-desc": ended}
    return Outcome(
        asked_ns=asked.t_ns,
        status=str(figures["status"]),
        reason=figures.get("error-desc"),
        figures=figures,
        source_state=state_of(source),
        destination_state=state_of(successor),
    )


_ANNOUNCE_EACH_STEP = [{"capability": "events", "state": True}]


def state_of(instance: Instance) -> str:
    """The state of a guest's process; GONE if QEMU has ended, SILENT if it does not answer."""
    try:
        return instance.state
    except QemuGoneError:
        return GONE
    except RemoteError:
        return SILENT


def is_ending(event: QmpEvent) -> bool:
    """Whether QEMU says that the migration is over, well or not."""
    return event.name == "MIGRATION" and event.data["status"] in _ENDINGS
