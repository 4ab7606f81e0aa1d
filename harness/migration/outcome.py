"""How a migration ended, as both of its ends say, and what was done or missed meanwhile."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from harness.errors import MigrationError, RemoteError
from harness.guest.instance import Instance
from harness.guest.qmp import QemuGoneError

GONE, SILENT = "gone", "silent"


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

    asked_ns  our monotonic time when ``migrate`` was sent
    status    the source's word for the end, as ``query-migrate`` has it; REFUSED where QEMU would
              not begin
    reason    QEMU's own words for a failure or a refusal, else what did not come in time, or None
    figures   the source's whole ``query-migrate``; empty where QEMU refused
    notes     what the harness did and missed meanwhile, in order

    Each state is QEMU's word; GONE where QEMU has ended, as the destination's QEMU does when a
    migration fails; SILENT where QEMU does not answer.
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


def state_of(instance: Instance) -> str:
    """Return the state of a guest's process: QEMU's word, GONE or SILENT (see `Outcome`)."""
    try:
        return instance.state
    except QemuGoneError:
        return GONE
    except RemoteError:
        return SILENT
