"""A client of the running program finds the ports of a chip as Linux does."""

from __future__ import annotations

import socket
import tempfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from vfio_client import Client

from harness.lab.cable import cables
from harness.lab.software_chip import SoftwareChip
from harness.uapi.vfio import PciRegion
from harness.waiting import Deadline

ARI = 0x150
"""Where an 82599 has its capability of alternative routing ids; its word is 4 bytes further on."""


@pytest.fixture
def reads(request: pytest.FixtureRequest) -> Iterator[Callable[[str, int], int]]:
    """Start a chip with as many ports as the parameter says; yield a reader of 16 bits."""
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        chip = SoftwareChip(request.param, 1, "52:54:00:82:58:00")
        process = chip.start(
            folder, folder / "log", whose="a test", name=folder.name,
            wires=cables(request.param, [], stack), dies_with_us=True, deadline=Deadline(30),
        )  # fmt: skip
        stack.callback(process.wait)
        stack.callback(process.terminate)

        def read(function: str, offset: int) -> int:
            connection = socket.socket(socket.AF_UNIX)
            connection.connect(str(folder / function))
            client = Client(connection)
            stack.callback(client.hang_up)
            client.negotiate()
            return client.read(PciRegion.CONFIG, offset, 2)

        yield read


@pytest.mark.parametrize("reads", [2], indirect=True)
def test_the_second_port_is_named_by_the_first(reads: Callable[[str, int], int]) -> None:
    """Linux looks for a second port only where the first one names it, and the chain ends there."""
    assert reads("port0", ARI + 4) == 0x0100
    assert reads("port1", ARI + 4) == 0


@pytest.mark.parametrize("reads", [1], indirect=True)
def test_a_single_port_names_no_other(reads: Callable[[str, int], int]) -> None:
    assert reads("port0", ARI + 4) == 0
