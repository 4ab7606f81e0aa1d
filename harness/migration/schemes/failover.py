"""``failover``: QEMU unplugs the VF, moves the guest on its standby, and plugs in a new VF.

Ref: QEMU, docs/system/virtio-net-failover.rst.  UNPLUG_PRIMARY only says that the guest was asked;
that it let go shows in ``wait-unplug`` turning into ``active``.
"""

from __future__ import annotations

from harness.guest.instance import Instance
from harness.guest.spec import Trigger
from harness.migration import scheme
from harness.migration.comparison import Comparison
from harness.migration.handoff import HandOff


class Failover:
    """virtio-net failover: VF and standby share an address; QEMU does the unplugging."""

    name = "failover"
    has_vf = True
    patience = scheme.Patience()

    def __init__(
        self,
        hand_off: HandOff,
        trigger: Trigger = Trigger.ACPI,
        comparison: Comparison | None = None,
    ) -> None:
        """*trigger* is the guest's own, as its machine was built."""
        self._hand_off = hand_off
        self._standing = comparison.digest if comparison else None
        self.trigger = trigger.value

    def migrate(
        self, source: Instance, successor: Instance, address: tuple[str, int]
    ) -> scheme.Outcome:
        """Move the guest; its hand-off says when the filter on the destination is set."""
        return scheme.move(
            source, successor, address, standing=self._standing,
            arrived=self._hand_off.arrive, stayed=self._hand_off.stay,
        )  # fmt: skip
