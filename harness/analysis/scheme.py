"""The scheme of a migration, as the analysis has to know it: the VF's fate, and its phases."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from typing import Literal

Fate = Literal["none", "kept", "replaced"]


class Mark(Enum):
    """A mark is something on the timeline of a migration at which a phase may begin."""

    QUIESCE = "stopping the VF's DMA begins, before the migration is asked for"
    ASKED = "the migration is asked for"
    RELEASED = "the VF is let go on the source"
    STOPPING = "QEMU begins to stop the guest for the last pages"
    RUNS = "the guest runs again"
    LOADED = "the QEMU where the guest runs again says that the migration completed"
    MASTERS = "a VF masters the bus where the guest runs again"
    ATTACHED = "an interface of the failover pair gets the link that it then keeps"


@dataclass(frozen=True, slots=True)
class SchemeRecord:
    """The record of a scheme says what the analysis has to know of it.

    name       the scheme's word in reports
    trigger    what told the guest to let its VF go, or how the VF was stopped; None without one
    vf         ``none``: no host lends the guest a VF; ``kept``: the guest moves with its VF;
               ``replaced``: the guest lets its VF go, and gets another one at its destination
    phases     the phases after ``before``, in their order, each with the mark at which it begins
    must_show  marks without which a completed migration is a failure: MASTERS, ATTACHED
    """

    name: str
    trigger: str | None
    vf: Fate
    phases: tuple[tuple[str, Mark], ...]
    must_show: tuple[Mark, ...] = ()
