"""``inplace``: the guest keeps its VF; what the seed is about, with every order of its steps.

Three things have to happen before the last pages are copied: the device's DMA has to stop
(*quiesce*), what it wrote has to be marked dirty (*marking*), and only then may the last pass be
made.  How, when, and in which order are the experiment.  QEMU moves a guest with a vfio-user device
as if there were none, so nothing but this order protects its memory.

Ref: the message of 4 December 2015 that the project was made from; QEMU,
docs/devel/migration/main.rst, ``pause-before-switchover``.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from enum import Enum
from typing import Any

import pandas as pd

from harness.analysis.measured import (
    IN_PLACE,
    MARKED,
    MARKING_REFUSED,
    MEMORY_COMPARED,
    QUIESCE,
    QUIESCED,
)
from harness.analysis.memory import (
    DIGEST_BYTES,
    Lent,
    differing,
    explained,
    read_log,
    written_pages,
)
from harness.errors import RemoteError, UsageError
from harness.guest.command_line import MEMORY
from harness.guest.instance import Instance
from harness.guest.machine import GuestMachine
from harness.guest.qmp import QmpEvent
from harness.host.twin import Twin
from harness.migration import scheme
from harness.migration.scheme import Note, Outcome
from harness.twin.dma_log import Kind
from harness.waiting import Deadline, let_pass

PRECOPY_S = 1.5
"""How far into the first pass a step is taken; it lasts some 3 s for 512 MiB."""

TOO_LATE_S = 0.5
"""How long after the end a step *after the stop* is taken: DMA goes on until then."""

DOWNTIME_MS = 300
"""QEMU's own default: below this the rest is copied while the guest stands still."""

PASS_SECONDS = 60
ASLEEP_SECONDS = 30
SWITCH_SECONDS = 60


class Quiesce(Enum):
    """How the VF's DMA is stopped."""

    NOTHING = "nothing"
    LINK_DOWN = "link-down"
    """``ip link set down`` in the guest: the driver stops its queues."""
    UNBIND = "unbind"
    """The driver lets the VF go, and clears BME."""
    DEVICE_SUSPEND = "device-suspend"
    """The driver's suspend alone, through ``/sys/power/pm_test``; it resumes after 5 s."""
    ACPI_SUSPEND = "acpi-suspend"
    """The guest suspends to RAM (S3), and is woken where it arrives."""
    BME_CLEARED = "bme-cleared"
    """The host clears BME, as through VFIO's config region; the guest is told nothing."""


class When(Enum):
    """When the steps are taken."""

    BEFORE = "before"
    """Before the migration is asked for."""
    PRECOPY = "pre-copy"
    """PRECOPY_S into the first pass."""
    PRE_SWITCHOVER = "pre-switchover"
    """The guest's processors are stopped, the last pass is to come."""
    AFTER_STOP = "after-stop"
    """The last pass is over: too late by design, to see that it shows."""


class Marking(Enum):
    """Where marking stands in the order."""

    NONE = "none"
    BEFORE = "before"
    """Marked, then stopped."""
    AFTER = "after"
    """Stopped, then marked: Duyck's order."""


@dataclass(frozen=True, slots=True)
class Plan:
    """One experiment.

    *passes* is how many whole passes over the memory lie between stopping and marking, or between
    marking and stopping, and *gap_s* how much time after those: what is marked is copied in the
    next pass, what is written after that is not.
    """

    quiesce: Quiesce = Quiesce.NOTHING
    when: When = When.PRECOPY
    marking: Marking = Marking.NONE
    passes: int = 0
    gap_s: float = 0.0

    @property
    def data(self) -> dict[str, Any]:
        """As a record has it."""
        return {
            "quiesce": self.quiesce.value,
            "when": self.when.value,
            "marking": self.marking.value,
            "passes": self.passes,
            "gap_s": self.gap_s,
        }

    @property
    def words(self) -> str:
        """As a person says it."""
        between = f", {self.passes} passes and {self.gap_s:g} s between" if self.passes else ""
        return f"{self.quiesce.value} {self.when.value}, marked {self.marking.value}{between}"

    def check(self) -> None:
        """Raise UsageError for one that cannot be done."""
        if self.quiesce in _BY_GUEST and self.when in (When.PRE_SWITCHOVER, When.AFTER_STOP):
            raise UsageError(
                f"{self.quiesce.value} cannot be done at {self.when.value}",
                because="the guest has to do it, and its processors are stopped then",
                fix="take the step before or during pre-copy, or clear BME from the host",
            )
        if self.passes and self.when is not When.PRECOPY:
            raise UsageError(
                f"no pass lies between two steps at {self.when.value}",
                because="passes over the memory are made during pre-copy",
                fix="take the steps then, or leave passes out",
            )


_BY_GUEST = {
    Quiesce.LINK_DOWN, Quiesce.UNBIND, Quiesce.DEVICE_SUSPEND, Quiesce.ACPI_SUSPEND,
}  # fmt: skip


class Inplace:
    """Move a guest together with its twin.

    After `migrate`, *tables* has the source's DMA log (``dma``) and what became of each page
    (``memory``); see ``analysis.memory``.
    """

    name = "inplace"
    has_vf = True
    patience = scheme.Patience(attach_s=5, after_s=2, served_s=1)
    """A VF that is dead at its destination stays so; nobody has to wait for it."""

    def __init__(self, plan: Plan, guest: GuestMachine, source: Twin, destination: Twin) -> None:
        plan.check()
        self.trigger = plan.quiesce.value
        self._plan = plan
        self._guest = guest
        self._source = source
        self._destination = destination
        self._notes: list[Note] = []
        self._log_at_start = self._asked_ns = self._since = 0
        self._marked_ns: int | None = None
        self.tables: dict[str, pd.DataFrame] = {}

    def migrate(self, source: Instance, successor: Instance, address: tuple[str, int]) -> Outcome:
        """Move the guest; the successor must have been started *paused*."""
        deadline = scheme.deadline_for(source)
        self._note(IN_PLACE, self._plan.words, self._plan.data)
        self._log_at_start = self._source.log_position
        if self._plan.when is When.BEFORE:
            self._take_steps(source)
        self._prepare(source)
        asked = scheme.ask(source, successor, address)
        self._asked_ns = asked.t_ns
        if self._plan.when is When.PRECOPY:
            self._wait_for(source, asked, "active", deadline)
            let_pass(PRECOPY_S)
            self._take_steps(source)
            _limit_downtime(source, DOWNTIME_MS)
        self._wait_for(source, asked, "pre-switchover", deadline)
        if self._plan.when is When.PRE_SWITCHOVER:
            self._take_steps(source)
        source.qmp.execute("migrate-continue", {"state": "pre-switchover"})
        if not scheme.wait_for_end(source, asked, deadline):
            return scheme.outcome(asked, source, successor)
        if self._plan.when is When.AFTER_STOP:
            let_pass(TOO_LATE_S)
            self._take_steps(source)
        self._source.take_off_the_wire()  # its guest has gone: both memories stand still now
        here, there = self._digests(source, successor)
        self._resume(successor)
        self._explain(source, here, there)
        return replace(scheme.outcome(asked, source, successor), notes=tuple(self._notes))

    def _prepare(self, source: Instance) -> None:
        """Have QEMU wait for us: in pre-copy, if there is something to do, and at its end."""
        capabilities = [{"capability": "pause-before-switchover", "state": True}]
        source.qmp.execute("migrate-set-capabilities", {"capabilities": capabilities})
        self._since = len(source.qmp.events)
        _limit_downtime(source, 0 if self._plan.passes else DOWNTIME_MS)

    def _wait_for(
        self, source: Instance, asked: scheme.Asked, status: str, deadline: Deadline
    ) -> None:
        source.qmp.wait_for(
            f"the migration to be {status}",
            lambda event: event.title in (f"MIGRATION {status}", "MIGRATION failed"),
            within=deadline,
            since=asked.since,
        )

    def _take_steps(self, source: Instance) -> None:
        if self._plan.marking is Marking.BEFORE:
            self._mark()
            self._let_gap_pass(source)
        self._quiesce(source)
        if self._plan.marking is Marking.AFTER:
            self._let_gap_pass(source)
            self._mark()

    def _let_gap_pass(self, source: Instance) -> None:
        """Wait until so many whole passes were made, and that time; one under way is not whole.

        QEMU makes no more of them once there is nothing left to copy.
        """
        since = len(source.qmp.events)

        def enough(event: QmpEvent) -> bool:
            made = sum(each.name == "MIGRATION_PASS" for each in source.qmp.events[since:])
            return made > self._plan.passes or event.title == "MIGRATION pre-switchover"

        if self._plan.passes:
            source.qmp.wait_for(
                "the next pass over the memory", enough, within=PASS_SECONDS, since=self._since
            )
        let_pass(self._plan.gap_s)

    def _quiesce(self, source: Instance) -> None:
        how = self._plan.quiesce
        if how is Quiesce.NOTHING:
            return
        self._note(QUIESCE, how.value)
        if how is Quiesce.BME_CLEARED:
            self._source.control.ask("clear_bus_master")
        elif how is Quiesce.ACPI_SUSPEND:
            self._suspend(source)
        else:
            self._guest.host.run("sh", "-c", _IN_GUEST[how], seconds=ASLEEP_SECONDS)
            self._source.wait_until_quiet(ASLEEP_SECONDS)
        self._note(QUIESCED, how.value)

    def _suspend(self, source: Instance) -> None:
        """Let the guest fall asleep a moment after it was asked: the asking would not return."""
        since = len(source.qmp.events)
        self._guest.host.run("sh", "-c", "(sleep 0.2; echo mem > /sys/power/state) >&- 2>&- <&- &")
        source.qmp.wait_for(
            "the guest to fall asleep",
            lambda event: event.name == "SUSPEND",
            within=ASLEEP_SECONDS,
            since=since,
        )

    def _mark(self) -> None:
        try:
            self._marked_ns = time.monotonic_ns()
            marked = self._source.control.ask("mark", since=self._log_at_start)
            self._note(MARKED, f"{marked} pages", {"pages": marked})
        except RemoteError as refused:
            self._marked_ns = None
            self._note(MARKING_REFUSED, refused.because)

    def _digests(self, source: Instance, successor: Instance) -> tuple[bytes, bytes]:
        """Digest both memories while both stand still; the guest waits for that."""
        began = time.monotonic()
        here = source.host.digest_memory(source.pid, MEMORY)
        there = successor.host.digest_memory(successor.pid, MEMORY)
        took_ms = (time.monotonic() - began) * 1e3
        self._note("memory digested", f"in {took_ms:.0f} ms", {"took_ms": took_ms})
        return here, there

    def _explain(self, source: Instance, here: bytes, there: bytes) -> None:
        """Compare the memories, and look each difference up in the device's own log."""
        log = read_log(self._source.dma_log())
        lent = [Lent(**each) for each in self._source.control.ask("status")["memory"]]
        too_late = self._plan.when is When.AFTER_STOP
        pages = explained(
            differing(here, there),
            written_pages(log, lent),
            asked_ns=self._asked_ns,
            copied_ns=_copied_ns(source),
            marked_ns=None if too_late else self._marked_ns,
        )
        self.tables = {"dma": log, "memory": pages}
        lost = pages[pages["differs"]]
        count = len(here) // DIGEST_BYTES
        data = {
            "pages": count,
            "differ": len(lost),
            "may_differ": int(pages["may_differ"].sum()),
            "must_differ": int(pages["must_differ"].sum()),
            "unexplained": [int(page) for page in lost[~lost["may_differ"]]["page"]],
            "without_bme": int((log["kind"] == Kind.MISBEHAVED).sum()),
        }
        self._note(MEMORY_COMPARED, f"{len(lost)} of {count} pages differ", data)

    def _resume(self, successor: Instance) -> None:
        """Let the guest run on, wake it if it sleeps, and tell the wire where it is."""
        mac = successor.spec.mac
        self._destination.put_on_the_wire(mac)
        successor.qmp.execute("cont")
        scheme.wait_for_resume(successor, Deadline(SWITCH_SECONDS))
        if self._plan.quiesce is Quiesce.ACPI_SUSPEND:
            successor.qmp.execute("system_wakeup")
        self._destination.announce(mac)

    def _note(self, name: str, text: str, data: Mapping[str, Any] | None = None) -> None:
        self._notes.append(Note(time.monotonic_ns(), name, text, data or {}))


def _limit_downtime(source: Instance, ms: int) -> None:
    """How long the last pass may take; with 0 QEMU makes one after the other until nothing is left.

    A guest with traffic always has something left.
    """
    source.qmp.execute("migrate-set-parameters", {"downtime-limit": ms})


def _copied_ns(source: Instance) -> int:
    """When the source's QEMU had sent the last page, by this machine's monotonic clock.

    Source and harness are on one machine where twins are, so QEMU's wall clock is ours.
    """
    done = (e for e in reversed(source.qmp.events) if e.title == "MIGRATION completed")
    return next(done).realtime_ns - time.time_ns() + time.monotonic_ns()


_VF_OF_GUEST = "vf=$(basename $(dirname $(ls -d /sys/bus/pci/drivers/ixgbevf/0*/net))); "
_IN_GUEST = {
    Quiesce.LINK_DOWN: f"{_VF_OF_GUEST} ip link set $(ls /sys/bus/pci/devices/$vf/net) down",
    Quiesce.UNBIND: f"{_VF_OF_GUEST} echo $vf > /sys/bus/pci/drivers/ixgbevf/unbind",
    Quiesce.DEVICE_SUSPEND: "echo devices > /sys/power/pm_test; (sleep 0.2; "
    "echo mem > /sys/power/state) >&- 2>&- <&- &",
}
