"""``plain``: a guest without a VF. The baseline: what moving costs when no device is in the way."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

import pandas as pd

from harness.guest.instance import Instance
from harness.migration import scheme


class Plain:
    """virtio only."""

    name = "plain"
    has_vf = False
    trigger = None
    patience = scheme.Patience()
    tables: Mapping[str, pd.DataFrame] = MappingProxyType({})

    def migrate(
        self, source: Instance, successor: Instance, address: tuple[str, int]
    ) -> scheme.Outcome:
        """Move the guest; see Scheme."""
        return scheme.move(source, successor, address)
