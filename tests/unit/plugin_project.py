"""A project of tests loads the plugin, and a real pytest runs the tests."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

UNIT = Path(__file__).parent
ROOT = UNIT.parents[1]

MADE_UP_LAB = """
from contextlib import contextmanager
from pathlib import Path

import pytest
import harness.lab.use, harness.run.lab
from test_run_lab import IMAGE, Machines

pytest_plugins = ["harness.plugin"]
machines = Machines(Path(__file__).parent / "machines")
harness.run.lab.connect = machines.connect

@contextmanager
def ready(topology, progress, *, keeps=None):
    yield machines.topology, IMAGE

harness.lab.use.ready = ready
for machine in machines.by_name.values():
    machine.programs["ethtool"] = lambda argv: (0, "driver: ixgbe")
"""

OF_THE_LAB = "def test_it(lab): pass\n"


class Ran:
    """A pytest ended with *status*, and printed *text*."""

    def __init__(self, done: subprocess.CompletedProcess[str]) -> None:
        self.status = done.returncode
        self.text = done.stdout + done.stderr


class Project:
    """A folder has tests, and a conftest.py that loads the plugin."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.write("conftest.py", 'pytest_plugins = ["harness.plugin"]\n')
        self.write("test_it.py", "def test_it(): pass\n")

    def write(self, name: str, text: str) -> Path:
        path = self.folder / name
        path.write_text(text)
        return path

    def pytest(self, *arguments: str, **variables: str) -> Ran:
        clean = {k: v for k, v in os.environ.items() if not k.startswith(("VF_HARNESS_", "PYTEST"))}
        argv = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", *arguments]
        return Ran(
            subprocess.run(
                argv,
                cwd=self.folder,
                capture_output=True,
                text=True,
                timeout=60,
                env={**clean, "PYTHONPATH": f"{ROOT}{os.pathsep}{UNIT}", **variables},
                check=False,
            )
        )


@pytest.fixture
def project(tmp_path: Path) -> Project:
    return Project(tmp_path)
