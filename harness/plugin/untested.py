"""One line names the subjects that a lab leaves untested."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

import pytest

from harness.topology import Unmet

UNMET = pytest.StashKey[list[Unmet]]()
"""The needs of a test that the lab does not meet."""


def subject(item: pytest.Item) -> str:
    """Return the subject of a test: its marker ``about``, or its file's name in plain words."""
    marker = item.get_closest_marker("about")
    if marker is not None:
        return str(marker.args[0])
    return Path(item.path).stem.removeprefix("test_").replace("_", " ")


def untested(lab: str, items: Sequence[pytest.Item]) -> str:
    """Return a line on the subjects of which no test in *items* can run; empty if all can.

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
