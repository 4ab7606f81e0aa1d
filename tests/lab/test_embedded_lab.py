"""The embedded lab itself: a start that does not get through leaves nothing behind."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from harness.errors import UnsupportedQemu
from harness.lab.emulated import Status, down, status
from harness.lab.processes import chips_of, machines_of
from harness.topology import TOPOLOGIES, Topology, load
from harness.waiting import wait_for

pytestmark = [
    *(pytest.mark.faults, pytest.mark.about("starts of the embedded lab")),
    pytest.mark.needs("wire"),
]

NOTHING = Status(machines=(), namespaces=(), folder=None, whole=False)
OWN = (
    ('name = "emulated"', 'name = "spare"'),
    ("vfh-emulated-peer", "vfh-spare-peer"),
    ("port = 22022", "port = 22122"),
    ("port = 22023", "port = 22123"),
)


@pytest.fixture
def spare(tmp_path: Path) -> Iterator[Callable[..., Topology]]:
    """A second emulated lab, beside the one that may be up; ended, should a test leave it there."""
    described = []

    def describe(*changes: tuple[str, str]) -> Topology:
        text = (TOPOLOGIES / "emulated.toml").read_text()
        for old, new in (*OWN, *changes):
            assert old in text
            text = text.replace(old, new, 1)
        file = tmp_path / "spare.toml"
        file.write_text(text)
        described.append(load(file))
        return described[0]

    yield describe
    for topology in described:
        down(topology)


def start(topology: Topology) -> subprocess.Popen[str]:
    """``vf-harness lab up``, for which Ctrl-C means something even where it is ignored for us."""
    command = [sys.executable, "-u", "-m", "harness.cli", "lab", "up", "--lab", topology.file]
    return subprocess.Popen(
        ["env", "--default-signal=INT", *command],
        stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True,
    )  # fmt: skip


def test_a_start_that_is_interrupted_leaves_nothing(spare: Callable[..., Topology]) -> None:
    """Ctrl-C while the machines boot: there is a wire by then, and a QEMU."""
    topology = spare()
    with start(topology) as starting:
        assert starting.stderr
        wait_for("a machine to run", lambda: status(topology).machines, within=60)
        assert status(topology).namespaces
        starting.send_signal(signal.SIGINT)
        last = starting.stderr.read().splitlines()[-1]
    assert starting.returncode == 130
    assert last == "vf-harness: interrupted; what was begun was undone"
    assert status(topology) == NOTHING


def test_a_start_that_fails_half_way_leaves_nothing(spare: Callable[..., Topology]) -> None:
    """More memory than a process can have: QEMU refuses when the wire is made already."""
    topology = spare(("host_memory_mib = 3072", "host_memory_mib = 200_000_000"))
    with start(topology) as starting:
        assert starting.stderr
        said = starting.stderr.read()
    assert starting.returncode == 11, said
    assert "its QEMU ended with status" in said
    assert "Traceback" not in said
    assert status(topology) == NOTHING


@pytest.mark.nightly
@pytest.mark.needs("82599")
@pytest.mark.about("a QEMU that takes the chip otherwise")
@pytest.mark.parametrize("fails", ["in-whole-reads", "dma"])
def test_where_qemu_does_not_take_one_way_the_other_is_taken(
    spare: Callable[..., Topology], fails: str
) -> None:
    """A newer QEMU may read or write configuration space in another way than today's."""
    topology = spare(("vfs = 8 #", f'vfs = 2\nchip_fails = ["{fails}"] #'))
    with start(topology) as starting:
        assert starting.stderr
        said = starting.stderr.read()
    assert starting.returncode == 0, said
    assert f"QEMU does not take {fails}; trying another way" in said
    assert status(topology).is_up


@pytest.mark.nightly
@pytest.mark.needs("82599")
@pytest.mark.about("a QEMU that takes the chip otherwise")
@pytest.mark.parametrize("fails", ['"in-whole-reads", "until-reset"', '"dma", "qtest"'])
def test_where_qemu_takes_neither_way_it_is_said_and_another_lab_named(
    spare: Callable[..., Topology], fails: str
) -> None:
    """`make demo` goes on with the other lab at this exit code, and leaves nothing of this one."""
    topology = spare(("vfs = 8 #", f"vfs = 2\nchip_fails = [{fails}] #"))
    with start(topology) as starting:
        assert starting.stderr
        said = starting.stderr.read()
    assert starting.returncode == UnsupportedQemu.exit_code, said
    what, because, fix = said.splitlines()[-3:]
    assert what.startswith("vf-harness: ")
    assert because.startswith("  because: ")
    assert fix.startswith("  to fix:  ")
    assert "--lab emulated-82576" in fix
    assert status(topology) == NOTHING


@pytest.mark.nightly
@pytest.mark.needs("82599")
@pytest.mark.about("programs of a lab that are killed")
@pytest.mark.parametrize("which", [chips_of, machines_of], ids=["chip", "QEMU"])
def test_a_lab_of_which_a_program_is_killed_starts_anew_and_leaves_nothing(
    spare: Callable[..., Topology], which: Callable[[str, tuple[str, ...]], dict[str, int]]
) -> None:
    """The next start ends what the killed program left: its machine, the other host, the wire."""
    topology, hosts = spare(), ("alder", "birch")
    for _ in range(2):
        with start(topology) as starting:
            assert starting.stderr
            said = starting.stderr.read()
        assert starting.returncode == 0, said
        assert status(topology).is_up
        os.kill(which(topology.name, hosts)["alder"], signal.SIGKILL)
        wait_for("the lab not to be up", lambda: not status(topology).is_up, within=10)
    down(topology)
    assert status(topology) == NOTHING
    assert (chips_of(topology.name, hosts), machines_of(topology.name, hosts)) == ({}, {})
