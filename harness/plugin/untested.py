"""What a lab leaves untested, in one line: the subjects of the tests that it cannot run."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

import pytest

from harness.topology import Unmet

UNMET = pytest.StashKey[list[Unmet]]()
"""What a test needs and the lab has not."""


def subject(item: pytest.Item) -> str:
    """What a test is about: its marker ``about``, or else the name of its file in plain words."""
    marker = item.get_closest_marker("about")
    if marker is not None:
        return str(marker.args[0])
    return Path(item.path).stem.removeprefix("test_").replace("_", " ")


def untested(lab: str, items: Sequence[pytest.Item]) -> str:
    """One line on the subjects of which no test among *items* can run; empty if there is none.

    Subjects are grouped by the needs that are not met, in the order of the tests.
    """
    lacking = [item for item in items if item.stash.get(UNMET, [])]
    tested = {subject(item) for item in items if not item.stash.get(UNMET, [])}
    needs: dict[str, dict[str, None]] = {}
    for item in lacking:
        if subject(item) not in tested:
            unmet = needs.setdefault(subject(item), {})
            unmet.update(dict.fromkeys(each.need for each in item.stash[UNMET]))
    groups: dict[str, list[str]] = {}
    for about, unmet in needs.items():
        groups.setdefault(", ".join(unmet), []).append(about)
    return f"not tested on lab {lab!r}: {_told(groups.items())}" if groups else ""


def _told(groups: Iterable[tuple[str, list[str]]]) -> str:
    return "; ".join(f"{', '.join(subjects)} (needs {need})" for need, subjects in groups)
