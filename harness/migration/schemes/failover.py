"""``failover``: QEMU unplugs the VF, moves the guest on its standby, and plugs in a new VF.

Ref: QEMU, docs/system/virtio-net-failover.rst.  UNPLUG_PRIMARY only says that the guest was asked;
that it let go shows in ``wait-unplug`` turning into ``active``.
"""

from __future__ import annotations

from dataclasses import dataclass

from harness.analysis.scheme import Mark
from harness.guest.instance import Instance
from harness.guest.spec import GuestSpec
from harness.host.vf import Vf
from harness.migration.handoff import HandOff, Order
from harness.migration.move import Move
from harness.migration.outcome import Outcome
from harness.migration.scheme import Scheme, cannot_move


@dataclass(frozen=True, kw_only=True)
class Failover(Scheme):
    """virtio-net failover: VF and standby share an address; QEMU does the unplugging.

    *order* is that of the hand-off of the MAC filter; None: the order that the destination's
    family needs.
    """

    order: Order | None = None

    name = "failover"
    vf = "replaced"
    phases = (
        ("unplug", Mark.ASKED),
        ("pre-copy", Mark.RELEASED),
        ("stop", Mark.STOPPING),
        ("resume", Mark.RUNS),
        ("replug", Mark.MASTERS),
        ("after", Mark.ATTACHED),
    )
    must_show = (Mark.ATTACHED,)

    def check(self, spec: GuestSpec, vf: Vf | None, destination: Vf | None) -> None:
        """Refuse a guest without a standby, or without a VF on either host."""
        if not spec.standby:
            raise cannot_move(
                self,
                because="its VF has no standby, so QEMU will not unplug the VF",
                fix="use the fixture guest, or name a scheme that keeps the VF",
            )
        if vf is None or destination is None:
            raise cannot_move(
                self,
                because="no VF is lent to it, so there is nothing to unplug",
                fix='use a guest that has a VF, in a test marked `needs("vf")`',
            )

    def hand_off(self, source: Instance, destination: Vf | None) -> HandOff | None:
        """Return the hand-off from the source's VF to *destination*."""
        assert source.vf is not None, "checked"
        assert destination is not None, "checked"
        order = self.order or Order.of(destination)
        return HandOff(source.vf, destination, source.spec.mac, order)

    def trigger(self, spec: GuestSpec) -> str:
        """Return the trigger that the guest's machine is built with."""
        return spec.trigger.value

    def migrate(self, move: Move) -> Outcome:
        """Move the guest; its hand-off says when the filter on the destination is set."""
        return move.go()
