"""The twin as a program: what it needs and has not is said in one line."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest


def run(folder: Path, **options: str) -> subprocess.CompletedProcess[str]:
    given = {
        "socket": f"{folder}/vf", "control": f"{folder}/control", "tap": "no-such-tap",
        "bme": f"{folder}/bme.jsonl", **options,
    }  # fmt: skip
    arguments = [f"--{name.replace('_', '-')}={value}" for name, value in given.items()]
    argv = [sys.executable, "-m", "harness.twin", *arguments]
    return subprocess.run(argv, capture_output=True, text=True, timeout=20, check=False)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({}, "no-such-tap: there is no such tap"),
        ({"tap": "lo"}, "lo: there is no such tap"),
        ({"bme": "/no/such/folder/bme.jsonl"}, "No such file or directory"),
        ({"dma_log": "/dev/null"}, "twin: it cannot be started: [Errno"),
    ],
)
def test_what_is_missing_is_said_in_one_line(
    tmp_path: Path, options: dict[str, str], said: str
) -> None:
    """A tap that is not there would be made, and lead to nobody."""
    done = run(tmp_path, **options)
    assert done.returncode == 1
    assert said in done.stderr
    assert done.stderr.count("\n") == 1, done.stderr
    assert not (tmp_path / "vf").exists()
