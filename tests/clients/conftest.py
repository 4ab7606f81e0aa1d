"""The machines in which clients run, and the functions that they are given."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager

import pytest

from clients import testpmd
from clients.machine import PORT, VF, Boot, ClientMachine, client_machine
from harness.lab.image import image
from harness.lab.tree import tree


@pytest.fixture(scope="session")
def boot(tmp_path_factory: pytest.TempPathFactory) -> Boot:
    """Boot a machine that has testpmd."""
    lab = image((), print)
    programs = tree(testpmd.RECIPE, "DPDK's file tree", print)

    def start(*, kernel_words: str, viommu: bool = True) -> AbstractContextManager[ClientMachine]:
        folder = tmp_path_factory.mktemp("client")
        return client_machine(
            lab, programs, testpmd.FILES, testpmd.MODULES, folder,
            kernel_words=kernel_words, viommu=viommu,
        )  # fmt: skip

    return start


@pytest.fixture(scope="module")
def machine(boot: Boot) -> Iterator[ClientMachine]:
    """A machine with a vIOMMU that lets the kernel's own drivers pass."""
    with boot(kernel_words="intel_iommu=on iommu=pt") as started:
        yield started


@pytest.fixture(scope="module", params=["vf", "port"])
def function(machine: ClientMachine, request: pytest.FixtureRequest) -> Iterator[str]:
    """The address of a function that programs may have: a VF of the kernel's port, or the port."""
    if request.param == "vf":
        machine.make_vfs()
        yield VF
        machine.remove_vfs()
    else:
        yield PORT
        machine.bind(PORT, "ixgbe")
