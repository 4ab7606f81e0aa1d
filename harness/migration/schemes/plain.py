"""``plain``: a guest that no host lends a VF.

The baseline: what moving costs when no device is in the way.
"""

from __future__ import annotations

from harness.guest.instance import Instance
from harness.migration import scheme
from harness.migration.comparison import Comparison


class Plain:
    """virtio only."""

    name = "plain"
    has_vf = False
    trigger = None
    patience = scheme.Patience()

    def __init__(self, comparison: Comparison | None = None) -> None:
        self._standing = comparison.digest if comparison else None

    def migrate(
        self, source: Instance, successor: Instance, address: tuple[str, int]
    ) -> scheme.Outcome:
        """Move the guest; see Scheme."""
        return scheme.move(source, successor, address, standing=self._standing)
