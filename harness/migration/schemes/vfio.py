"""``inplace`` by VFIO: the guest keeps its VF, and the kernel moves what the VF holds.

QEMU stops, saves and loads the VF by VFIO's migration states, where the VF's driver on the host
offers them.  Plain vfio-pci offers none, and QEMU will not begin then.

Ref: QEMU, docs/devel/migration/vfio.rst, and hw/vfio/migration.c, vfio_migration_realize().
"""

from __future__ import annotations

from dataclasses import dataclass

from harness.analysis.measured import MIGRATE_REFUSED, REFUSED
from harness.analysis.scheme import Mark
from harness.guest.instance import Instance
from harness.guest.qmp import RefusedError
from harness.guest.spec import GuestSpec
from harness.host.vf import Vf
from harness.migration.handoff import HandOff, Order
from harness.migration.move import Move
from harness.migration.outcome import Outcome
from harness.migration.scheme import Scheme, cannot_move
from harness.migration.schemes.inplace import KEEPS_VF, check_keeps_vf


@dataclass(frozen=True, kw_only=True)
class VfioMigration(Scheme):
    """Move a guest together with its VF as QEMU does it by itself; nobody stops its DMA for it."""

    name = "inplace"
    vf = "kept"
    phases = KEEPS_VF
    must_show = (Mark.MASTERS,)

    def check(self, spec: GuestSpec, vf: Vf | None, destination: Vf | None) -> None:
        """Refuse a guest with a standby, or without a VF on either host."""
        check_keeps_vf(self, spec)
        if vf is None or destination is None:
            raise cannot_move(
                self,
                because="no VF is lent to it, so there is none to keep",
                fix='use a guest that has a VF, in a test marked `needs("vf")`',
            )

    def hand_off(self, source: Instance, destination: Vf | None) -> HandOff | None:
        """Return the hand-off, which sets the filter once the guest runs at its destination.

        The driver of a guest that keeps its VF does not reset the VF, so nothing would put back an
        address that opening the VF took out.
        """
        assert source.vf is not None, "checked"
        assert destination is not None, "checked"
        return HandOff(source.vf, destination, source.spec.mac, Order.AFTER_RESUME)

    def migrate(self, move: Move) -> Outcome:
        """Ask for it; that QEMU refuses ``migrate`` is an outcome, and the guest runs on."""
        try:
            move.ask()
        except RefusedError as refused:
            if refused.command != "migrate":
                raise
            move.note(MIGRATE_REFUSED, refused.words)
            return move.ended_as(REFUSED, refused.words, {})
        return move.see_through()
