"""All unit tests share these settings; tests of hosts and of the chip share these fixtures."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings
from made_up_host import Machine, made_up_host
from port_driver import Port, port_of_chip
from vf_of_port import PortVf, vf_of

from harness.remote import Host

# Other programs may keep the machine busy, so that no example and no drawing of one is timed:
settings.register_profile("unhurried", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("unhurried")


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    """Return a made-up machine, whose state is in a folder of the test."""
    return Machine(tmp_path / "state")


@pytest.fixture
def host(machine: Machine) -> Host:
    """Return the made-up host that runs on the machine."""
    return made_up_host(machine)


@pytest.fixture
def port() -> Iterator[Port]:
    """Yield a port whose driver has started it with four VFs."""
    with port_of_chip() as port:
        port.start(vfs=4)
        yield port


@pytest.fixture
def vf(port: Port) -> Iterator[PortVf]:
    """Yield the first VF of the port, started by its driver."""
    with vf_of(port, 0) as vf:
        yield vf


@pytest.fixture
def vfs(port: Port) -> Iterator[list[PortVf]]:
    """Yield the first two VFs of the port, started by their drivers."""
    with vf_of(port, 0) as first, vf_of(port, 1) as second:
        yield [first, second]
