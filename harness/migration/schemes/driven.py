"""``inplace``, driven by QEMU: the guest keeps its VF, and the kernel moves what the VF holds.

QEMU stops, saves and loads the VF by VFIO's migration states, where the VF's driver on the host
offers them.  Plain vfio-pci offers none, and QEMU will not begin then.

Ref: QEMU, docs/devel/migration/vfio.rst, and hw/vfio/migration.c, vfio_migration_realize().
"""

from __future__ import annotations

import time

from harness.analysis.measured import MIGRATE_REFUSED, REFUSED
from harness.guest.instance import Instance
from harness.guest.qmp import RefusedError
from harness.migration import scheme
from harness.migration.comparison import Comparison
from harness.migration.handoff import HandOff
from harness.migration.scheme import Note, Outcome


class Driven:
    """Move a guest together with its VF as QEMU does it by itself; nobody stops its DMA for it."""

    name = "inplace"
    has_vf = True
    trigger = None
    patience = scheme.Patience()

    def __init__(self, hand_off: HandOff, comparison: Comparison | None = None) -> None:
        self._hand_off = hand_off
        self._standing = comparison.digest if comparison else None

    def migrate(self, source: Instance, successor: Instance, address: tuple[str, int]) -> Outcome:
        """Ask for it; that QEMU refuses ``migrate`` is an outcome, and the guest runs on."""
        deadline = scheme.deadline_for(source)
        try:
            asked = scheme.ask(source, successor, address)
        except RefusedError as refused:
            if refused.command != "migrate":
                raise
            return _refused(refused, source, successor)
        return scheme.see_through(
            asked, source, successor, deadline, standing=self._standing,
            arrived=self._hand_off.arrive, stayed=self._hand_off.stay,
        )  # fmt: skip


def _refused(refused: RefusedError, source: Instance, successor: Instance) -> Outcome:
    note = Note(time.monotonic_ns(), MIGRATE_REFUSED, refused.words)
    return Outcome(
        asked_ns=refused.asked_ns,
        status=REFUSED,
        reason=refused.words,
        figures={},
        source_state=scheme.state_of(source),
        destination_state=scheme.state_of(successor),
        notes=(note,),
    )
