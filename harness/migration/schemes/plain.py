"""``plain``: a guest that no host lends a VF.

The baseline: what moving costs when no device is in the way.
"""

from __future__ import annotations

from dataclasses import dataclass

from harness.analysis.scheme import Mark
from harness.guest.spec import GuestSpec
from harness.host.vf import Vf
from harness.migration.move import Move
from harness.migration.outcome import Outcome
from harness.migration.scheme import Scheme, cannot_move


@dataclass(frozen=True, kw_only=True)
class Plain(Scheme):
    """QEMU moves the guest with the devices that QEMU itself emulates."""

    name = "plain"
    vf = "none"
    phases = (
        ("pre-copy", Mark.ASKED),
        ("stop", Mark.STOPPING),
        ("resume", Mark.RUNS),
        ("after", Mark.LOADED),
    )

    def check(self, spec: GuestSpec, vf: Vf | None, destination: Vf | None) -> None:
        """Refuse a guest that a host lends a VF."""
        del spec, destination
        if vf is not None:
            raise cannot_move(
                self,
                because=f"{vf.host.name} lends it VF {vf.name}, which would be in the way",
                fix="name a scheme for guests with a VF, such as Failover()",
            )

    def migrate(self, move: Move) -> Outcome:
        """Move the guest; see `Scheme`."""
        return move.go()
