"""How long things take to start, the main job from nothing included."""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from bench.rows import Row
from harness.lab import emulated
from harness.lab.image import image
from harness.topology import Topology

RUNS = 3
ROOT = Path(__file__).parents[2]


def demonstrating(topology: Topology, say: Callable[[str], None]) -> list[Row]:
    """`make demo` in a new clone with nothing in its caches, and once more there."""
    emulated.down(topology)
    with tempfile.TemporaryDirectory(dir="/var/tmp") as folder:
        clone = Path(folder) / "clone"
        subprocess.run(["git", "clone", "--quiet", str(ROOT), str(clone)], check=True)
        ours = {"VF_HARNESS_CACHE": f"{folder}/cache", "PIP_NO_CACHE_DIR": "1"}
        variables = environment() | ours

        def demo() -> None:
            done = subprocess.run(
                ["make", "demo"], cwd=clone, env=variables, check=False,
                stdout=subprocess.PIPE, text=True,
            )  # fmt: skip
            if done.returncode:
                sys.stderr.write(done.stdout)
            done.check_returncode()

        say("make demo in a new clone")
        from_nothing_s = _seconds(demo)
        say("make demo once more")
        again_s = _seconds(demo)
    return [
        Row("`make demo` from nothing", f"{from_nothing_s:.0f} s", "6 minutes or less",
            "a new clone and empty caches: .venv, image and migration; downloads included, "
            "distribution packages there already"),
        Row("`make demo` with .venv and image built", f"{again_s:.0f} s", "120 s or less",
            "the same clone, again"),
    ]  # fmt: skip


def starting(topology: Topology, say: Callable[[str], None]) -> list[Row]:
    """Times of starting the lab, from a saved state and by booting, and of collecting tests."""
    emulated.down(topology)
    built = image(tuple(topology.hosts), say)
    booted, resumed = [], []
    for number in range(RUNS):
        say(f"starting the lab, {number + 1} of {RUNS}")
        for state in built.folder.glob("state-*"):
            state.unlink()
        booted.append(_seconds(lambda: emulated.up(topology, lambda _: None, dies_with_us=True)))
        emulated.down(topology)
        resumed.append(_seconds(lambda: emulated.up(topology, lambda _: None, dies_with_us=True)))
        emulated.down(topology)
    say("collecting tests")
    collect = [sys.executable, "-m", "pytest", "--collect-only", "-q", "tests/lab"]
    collected = [
        _seconds(
            lambda: subprocess.run(collect, check=True, capture_output=True, env=environment())
        )
        for _ in range(RUNS)
    ]
    how = f"median of {RUNS}"
    return [
        Row("lab up from a saved state", _in_s(resumed), "6 s or less", how),
        Row("lab up from a built image, by booting and saving", _in_s(booted), "35 s or less", how),
        Row("`pytest --collect-only tests/lab`", _in_s(collected), "2 s or less", how),
    ]


def environment() -> dict[str, str]:
    """Ours, but that Python keeps what it compiled, as it does for a user."""
    return {key: value for key, value in os.environ.items() if key != "PYTHONDONTWRITEBYTECODE"}


def _seconds(work: Callable[[], object]) -> float:
    began = time.monotonic()
    work()
    return time.monotonic() - began


def _in_s(seconds: list[float]) -> str:
    return f"{statistics.median(seconds):.1f} s ({min(seconds):.1f} to {max(seconds):.1f})"
