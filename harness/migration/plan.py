"""An experiment of scheme ``inplace``: how a VF's DMA is stopped, when, and where marking stands.

Three things have to happen before the last pages are copied: the device's DMA has to stop
(*quiesce*), what it wrote has to be marked dirty (*marking*), and only then may the last pass be
made.

Ref: the message of 4 December 2015 that the project was made from.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from typing import Any

from harness.errors import UsageError


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

    @property
    def by_guest(self) -> bool:
        """Whether the guest has to do it, and so has to run."""
        return self not in (Quiesce.NOTHING, Quiesce.BME_CLEARED)


class When(Enum):
    """When the steps are taken."""

    BEFORE = "before"
    """Before the migration is asked for."""
    PRECOPY = "pre-copy"
    """With half of the memory copied in the first pass."""
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
    AS_WRITTEN = "as-written"
    """Each write goes through QEMU, which marks it: as hardware would that tracks its writes."""


def between(passes: int, gap_s: float) -> str:
    """What lies between stopping and marking, as a person goes on to say it; empty for nothing."""
    made = f"{passes} pass{'' if passes == 1 else 'es'}" if passes else ""
    gap = f"{gap_s:g} s" if gap_s else ""
    both = " and ".join(each for each in (made, gap) if each)
    return f", {both} between" if both else ""


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
        order = f"{self.quiesce.value} {self.when.value}, marked {self.marking.value}"
        return order + between(self.passes, self.gap_s)

    def check(self) -> None:
        """Raise UsageError for one that cannot be done."""
        if self.quiesce.by_guest and self.when in (When.PRE_SWITCHOVER, When.AFTER_STOP):
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
        if self.passes and self.quiesce in (Quiesce.ACPI_SUSPEND, Quiesce.DEVICE_SUSPEND):
            raise UsageError(
                f"no pass lies between two steps of which one is {self.quiesce.value}",
                because="a guest that stands writes nothing, and QEMU makes no pass over that",
                fix="leave passes out, or stop the VF in another way",
            )
        if self.gap_s < 0:
            raise UsageError(
                f"{self.gap_s:g} s cannot lie between two steps",
                because="the order of the steps is the plan's `marking`",
                fix="swap them there, and give a gap of 0 or more",
            )
        if self.gap_s and not self.passes and self.when is When.PRECOPY:
            raise UsageError(
                f"{self.gap_s:g} s alone do not part two steps in pre-copy",
                because="what is marked is copied in the next pass, however late that comes",
                fix="have at least one pass between them",
            )
        if (self.passes or self.gap_s) and self.marking not in (Marking.BEFORE, Marking.AFTER):
            raise UsageError(
                f"nothing lies between stopping and marking, which is {self.marking.value}",
                because="marking is no step of its own then",
                fix="mark before or after the stop, or leave passes and gap_s out",
            )
