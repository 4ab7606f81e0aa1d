"""A software chip starts as a whole, or leaves no process."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from harness.errors import WaitError
from harness.lab.cable import cables
from harness.lab.processes import chips_of
from harness.lab.software_chip import SoftwareChip
from harness.waiting import Deadline

CHIP = SoftwareChip(ports=1, vfs=2, mac="52:54:00:82:58:00")


@pytest.fixture
def wires() -> Iterator[list[int]]:
    with ExitStack() as stack:
        yield cables(1, (), stack)


def test_a_chip_that_comes_too_late_is_not_left_behind(tmp_path: Path, wires: list[int]) -> None:
    """Nobody else could end such a chip: its process is in a session of its own."""
    name = f"vf-harness-lab-{tmp_path.name}-alder-chip"
    with pytest.raises(WaitError, match="the chip of alder"):
        CHIP.start(
            tmp_path, tmp_path / "log", whose="alder", name=name, wires=wires,
            dies_with_us=False, deadline=Deadline(0),
        )  # fmt: skip
    assert chips_of(tmp_path.name, ("alder",)) == {}


def test_every_function_takes_a_client_once_a_chip_has_started(
    tmp_path: Path, wires: list[int]
) -> None:
    """A socket has its name before anybody listens, and a QEMU that comes between is refused."""
    process = CHIP.start(
        tmp_path, tmp_path / "log", whose="alder", name="chip", wires=wires,
        dies_with_us=True, deadline=Deadline(30),
    )  # fmt: skip
    try:
        for name, _ in CHIP.functions():
            with socket.socket(socket.AF_UNIX) as client:
                client.connect(str(tmp_path / name))
    finally:
        process.kill()
        process.wait()
