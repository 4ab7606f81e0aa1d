"""A lab finds its processes by name, ends them together, and misses one that has died."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from harness.lab import emulated
from harness.lab.processes import chip_name, chips_of, end_machines, machines_of, ours, process_name
from harness.topology import Topology, find, load
from harness.waiting import wait_for

LAB = f"processes-{os.getpid()}"
HOSTS = ("alder", "birch")

Start = Callable[[str, str], "subprocess.Popen[bytes]"]


@pytest.fixture
def start() -> Iterator[Start]:
    """Start a program that is idle, with a name as the value of an option.

    The kernel shows a command line some time after Popen has returned.
    """
    started = []

    def one(option: str, name: str) -> subprocess.Popen[bytes]:
        argv = [sys.executable, "-c", "import sys; sys.stdin.read()", option, name]
        process = ours(subprocess.Popen(argv, stdin=subprocess.PIPE))
        started.append(process)
        line = Path(f"/proc/{process.pid}/cmdline")
        wait_for(f"the command line of {name}", line.read_bytes, within=10)
        return process

    yield one
    for process in started:
        process.kill()
        process.communicate()


@pytest.fixture
def lab(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Topology:
    """The emulated lab under a name of its own, with a folder that says that it came up."""
    monkeypatch.setattr(emulated, "RUN", tmp_path)
    topology = load(find("emulated")).model_copy(update={"name": LAB})
    folder = emulated.run_folder(topology)
    folder.mkdir()
    (folder / emulated.IMAGE).touch()
    return topology


def test_a_lab_whose_chip_has_died_is_not_up(lab: Topology, start: Start) -> None:
    """The hosts of such a lab still answer, and a run would find hosts without ports."""
    chips = []
    for host in HOSTS:
        start("-name", process_name(LAB, host))
        chips.append(start("--name", chip_name(LAB, host)))
    assert emulated.status(lab).is_up
    chips[1].kill()
    chips[1].wait()
    assert emulated.status(lab).machines == HOSTS
    assert not emulated.status(lab).is_up


def test_a_chip_whose_qemu_has_died_is_ended(start: Start) -> None:
    """Such a chip would hold the taps of the wire, and the next start would find two chips."""
    left = start("--name", chip_name(LAB, "alder"))
    end_machines(LAB, HOSTS)
    assert left.returncode is not None
    assert (machines_of(LAB, HOSTS), chips_of(LAB, HOSTS)) == ({}, {})


def test_what_a_labs_machines_said_is_kept_in_the_runs_folder(
    lab: Topology, tmp_path: Path
) -> None:
    """The lab's own folder goes with the lab, and with it why a machine ended."""
    kept = tmp_path / "run" / "lab"
    emulated.keep_words(lab, kept)
    assert not kept.exists(), "no machine said anything"
    for name in ("alder.console", "alder.log", "alder-chip.log"):
        (emulated.run_folder(lab) / name).write_text(name)
    emulated.keep_words(lab, kept)
    assert {file.name for file in kept.iterdir()} == {
        "alder.console",
        "alder.log",
        "alder-chip.log",
    }
    assert (kept / "alder.console").read_text() == "alder.console"
