"""The embedded lab itself: a start that does not get through leaves nothing behind."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

import pytest

from harness.lab.emulated import Status, status
from harness.topology import TOPOLOGIES, Topology, load

pytestmark = [pytest.mark.needs("wire"), pytest.mark.faults]

NOTHING = Status(machines=(), namespaces=(), folder=None, whole=False)
OWN = (
    ('name = "emulated"', 'name = "spare"'),
    ("vfh-emulated-peer", "vfh-spare-peer"),
    ("port = 22022", "port = 22122"),
    ("port = 22023", "port = 22123"),
)


def spare(folder: Path, *changes: tuple[str, str]) -> Topology:
    """A second emulated lab, beside the one that may be up."""
    text = (TOPOLOGIES / "emulated.toml").read_text()
    for old, new in (*OWN, *changes):
        assert old in text
        text = text.replace(old, new, 1)
    file = folder / "spare.toml"
    file.write_text(text)
    return load(file)


def start(topology: Topology) -> subprocess.Popen[str]:
    argv = [sys.executable, "-u", "-m", "harness.cli", "lab", "up", "--lab", topology.file]
    return subprocess.Popen(argv, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True)


def test_a_start_that_is_interrupted_leaves_nothing(tmp_path: Path) -> None:
    """Ctrl-C while the machines boot: there is a wire by then, and two QEMUs."""
    topology = spare(tmp_path)
    with start(topology) as starting:
        assert starting.stderr
        for line in starting.stderr:
            if "ing alder and birch" in line:
                break
        assert status(topology).namespaces, "it was not under way yet"
        starting.send_signal(signal.SIGINT)
        last = starting.stderr.read().splitlines()[-1]
    assert starting.returncode == 130
    assert last == "vf-harness: interrupted; what was begun was undone"
    assert status(topology) == NOTHING


def test_a_start_that_fails_half_way_leaves_nothing(tmp_path: Path) -> None:
    """More memory than any machine has: QEMU refuses when the wire is made already."""
    topology = spare(tmp_path, ("host_memory_mib = 3072", "host_memory_mib = 100_000_000"))
    with start(topology) as starting:
        assert starting.stderr
        said = starting.stderr.read()
    assert starting.returncode == 11
    assert "its QEMU ended with status" in said
    assert "Cannot allocate memory" in said
    assert "Traceback" not in said
    assert status(topology) == NOTHING
