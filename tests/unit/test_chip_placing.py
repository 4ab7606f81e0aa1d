"""A port's VFs have fixed places on the bus; test_chip_program sees what is written there."""

from __future__ import annotations

import pytest

from harness.chip.placing import vf_function


@pytest.mark.parametrize(
    ("port", "number", "device", "function"),
    [(0, 0, 0x10, 0), (0, 3, 0x10, 6), (0, 4, 0x11, 0), (1, 0, 0x10, 1), (1, 62, 0x1F, 5)],
)
def test_vfs_of_two_ports_take_turns(port: int, number: int, device: int, function: int) -> None:
    """Linux counts First VF Offset 0x80 and VF Stride 2 from the port (pci_iov_virtfn_devfn)."""
    assert vf_function(port, number) == device << 3 | function


def test_no_two_vfs_have_one_place() -> None:
    places = {vf_function(port, number) for port in (0, 1) for number in range(63)}
    assert len(places) == 126
    assert max(places) < 256, "all are on the port's own bus"
