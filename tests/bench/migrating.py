"""A benchmark migrates a guest again and again, and goes on where a guest is lost."""

from __future__ import annotations

import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from harness.analysis.measured import MEMORY_COMPARED
from harness.errors import GuestError
from harness.migration.experiment import Conducted
from harness.migration.handoff import Order
from harness.migration.raw import Raw
from harness.migration.schemes.failover import Failover
from harness.run.moving import MovingGuest
from harness.traffic.flow import Flow


class Moved(NamedTuple):
    """One migration; *conducted* is None where the guest's own record was lost with the guest.

    *memory* is what a comparison of both memories found, also of a guest that is lost: the data of
    its note, empty without a comparison.
    """

    conducted: Conducted | None
    is_lost: bool
    memory: Mapping[str, Any]


def moved(
    guest: MovingGuest,
    flow: Flow,
    kept: Path,
    *,
    compare_memory: bool = False,
    order: Order | None = None,
) -> Moved:
    """Migrate *guest* under *flow*; what was said of a guest that is lost stays in *kept*.

    Arguments are as of ``MovingGuest.migrate``, which replaces a lost guest the next time.
    """
    guest.find_with_vf()  # a guest that does not come up now is none that a migration lost
    raw, conducted = Raw(), None
    try:
        conducted = guest.migrate(
            [flow], raw, by=Failover(order=order), compare_memory=compare_memory
        )
    except GuestError:
        if not guest.machine.lost:
            raise
    if guest.machine.lost:
        raw.write(kept, suffix=f"-{flow.name}-{time.monotonic_ns()}")
    notes = conducted.outcome.notes if conducted else raw.notes
    memory = next((note.data for note in notes if note.name == MEMORY_COMPARED), {})
    return Moved(conducted, bool(guest.machine.lost), memory)
