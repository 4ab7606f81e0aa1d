"""What is waited for in a day's work on twins."""

from __future__ import annotations

import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from xml.etree import ElementTree

from bench.rows import Row
from bench.starting import ROOT, environment

MOVES = "test_a_guest_that_sleeps_meanwhile_has_its_vf_back"
"""The test of `smoke` that boots a guest, starts another QEMU for it, and migrates between them."""


def daily(say: Callable[[str], None]) -> list[Row]:
    """The smoke tests as a user runs them, lab and all; and the one that migrates, from there."""
    say("smoke tests on twins")
    with tempfile.TemporaryDirectory() as folder:
        told = Path(folder) / "junit.xml"
        asked = ["--lab", "twin", "-m", "smoke", "-q", f"--junitxml={told}"]
        argv = [sys.executable, "-m", "pytest", *asked, f"--artifacts={folder}"]
        began = time.monotonic()
        subprocess.run(argv, check=True, cwd=ROOT, env=environment(), stdout=subprocess.DEVNULL)
        took_s = time.monotonic() - began
        cases = list(ElementTree.parse(told).iter("testcase"))
    (moves_s,) = (float(case.attrib["time"]) for case in cases if case.attrib["name"] == MOVES)
    return [
        Row("`pytest --lab twin -m smoke`", f"{took_s:.0f} s", "60 s or less",
            f"one run of {len(cases)} tests, the lab's start and end included"),
        Row("a test that boots a guest and migrates it on twins", f"{moves_s:.1f} s",
            "20 s or less", f"`{MOVES}`, with set-up and putting back"),
    ]  # fmt: skip
