"""Which tests of the suite a lab selects; run as a program with the lab's name or file.

It prints one line of JSON: for each test function whether at least one of its cases has all that
it needs.  Collecting touches no machine.
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
        self.functions: dict[str, bool] = {}

    def pytest_collection_finish(self, session: pytest.Session) -> None:
        """Note each test function under its name without parameters."""
        from harness.plugin.hooks import UNMET  # not before pytest itself has loaded the plugin

        for item in session.items:
            name = item.nodeid.partition("[")[0]
            selected = not item.stash.get(UNMET, [])
            self.functions[name] = self.functions.get(name, False) or selected


def selected(lab: str) -> dict[str, bool]:
    """Ask another process, whose pytest is not in the middle of a run."""
    done = subprocess.run(
        [sys.executable, __file__, lab], cwd=ROOT, capture_output=True, text=True, check=True
    )
    functions: dict[str, bool] = json.loads(done.stdout.splitlines()[-1])
    return functions


if __name__ == "__main__":
    sys.path.insert(0, str(ROOT))
    selection = Selection()
    quiet = ["--collect-only", "-qqq", "-p", "no:cacheprovider", "-p", "no:xdist"]
    status = pytest.main(["tests/lab", "--lab", sys.argv[1], *quiet], plugins=[selection])
    sys.stdout.write(json.dumps(selection.functions) + "\n")
    sys.exit(status)
