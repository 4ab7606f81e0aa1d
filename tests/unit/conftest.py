"""All unit tests share these settings, and many tests of the chip begin with these fixtures."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from hypothesis import HealthCheck, settings
from port_driver import Port, port_of_chip
from vf_of_port import PortVf, vf_of

# Other programs may keep the machine busy, so that no example and no drawing of one is timed:
settings.register_profile("unhurried", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("unhurried")


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
