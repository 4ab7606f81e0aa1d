"""The order of a run's tests: modules that share a guest are run one after the other."""

from __future__ import annotations

import pytest

SHARED = ("guest", "staying_guest")
"""The fixtures by which modules share a guest, in the order in which such modules are run."""


def put_together(items: list[pytest.Item]) -> None:
    """Sort *items*: modules without a guest of SHARED first, then those of each, as they were.

    A module may have a fixture ``guest`` of its own that asks for another of SHARED, which counts.
    """
    ranks: dict[str, int] = {}
    for item in items:
        names = getattr(item, "fixturenames", ())
        rank = max((1 + place for place, name in enumerate(SHARED) if name in names), default=0)
        module = item.nodeid.partition("::")[0]
        ranks[module] = max(rank, ranks.get(module, 0))
    items.sort(key=lambda item: ranks[item.nodeid.partition("::")[0]])
