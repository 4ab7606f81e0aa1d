"""A program tells which tests of the suite a lab selects, by the lab's name or file.

It prints one line of JSON: for each test its function, its subject, and whether the lab has all
that the test needs.  Collecting touches no machine.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


class Selection:
    """A plugin that notes what was collected."""

    def __init__(self) -> None:
        self.tests: list[list[object]] = []

    def pytest_collection_finish(self, session: pytest.Session) -> None:
        """Note each test, whose function is its name without parameters."""
        from harness.plugin.untested import (
            UNMET,
            subject,
        )  # not before pytest itself has loaded the plugin

        for item in session.items:
            function = item.nodeid.partition("[")[0]
            self.tests.append([function, subject(item), not item.stash.get(UNMET, [])])


def selected(lab: str) -> list[tuple[str, str, bool]]:
    """Ask another process, whose pytest is not in the middle of a run."""
    done = subprocess.run(
        [sys.executable, __file__, lab], cwd=ROOT, capture_output=True, text=True, check=True
    )
    return [
        (function, about, runs)
        for function, about, runs in json.loads(done.stdout.splitlines()[-1])
    ]


if __name__ == "__main__":
    sys.path.insert(0, str(ROOT))
    selection = Selection()
    quiet = ["--collect-only", "-qqq", "-p", "no:cacheprovider", "-p", "no:xdist"]
    status = pytest.main(["tests/lab", "--lab", sys.argv[1], *quiet], plugins=[selection])
    sys.stdout.write(json.dumps(selection.tests) + "\n")
    sys.exit(status)
