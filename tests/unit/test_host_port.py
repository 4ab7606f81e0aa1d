"""A port of a host is found, brought up, and put back as it was."""

from __future__ import annotations

import pytest
from made_up_host import ENTRY, INTERFACE, PF, PORT, Machine

from harness.errors import LabError
from harness.host.port import Port, find_port, port_up
from harness.host.snapshot import snapshot
from harness.remote import Host


@pytest.fixture
def idle_port(host: Host) -> Port:
    """A port that is down, as a host has it before a run."""
    return find_port(host, "p0", ENTRY.ports["p0"])


@pytest.fixture
def port(idle_port: Port, machine: Machine) -> Port:
    """A port that is up and has its link."""
    machine.shown[INTERFACE] |= {"flags": ["LOWER_UP", "UP"], "operstate": "UP"}
    return idle_port


def test_a_port_is_known_by_its_device_and_interface(port: Port) -> None:
    """The rest of a run names the port by its device and interface."""
    assert (port.interface, port.profile.name, port.virtual_functions) == (INTERFACE, "82599", 0)


def test_an_address_without_a_device_is_an_error(host: Host, machine: Machine) -> None:
    """A card may have been moved to another slot."""
    machine.files = {}
    machine.links = {}
    machine.folders = set()
    with pytest.raises(LabError, match=f"alder: there is no PCI device {PF}"):
        find_port(host, "p0", ENTRY.ports["p0"])


def test_another_device_than_the_topology_says_is_an_error(host: Host, machine: Machine) -> None:
    """Somebody's disk controller must not be asked for VFs."""
    machine.files[f"{PORT}/device"] = "0x1521\n"
    with pytest.raises(LabError) as wrong:
        find_port(host, "p0", ENTRY.ports["p0"])
    assert wrong.value.what == f"alder: {PF} is device 0x1521, not a port of the 82599"
    assert "0x10fb" in wrong.value.because


def test_a_port_without_its_driver_is_an_error(host: Host, machine: Machine) -> None:
    """A port may be lent to a guest whole; the error names the driver that is missing."""
    machine.folders.discard(f"{PORT}/net/{INTERFACE}")
    with pytest.raises(LabError) as unbound:
        find_port(host, "p0", ENTRY.ports["p0"])
    assert unbound.value.fix == "bind it to ixgbe"


def test_a_port_is_brought_up_with_its_mtu_and_put_back(idle_port: Port, machine: Machine) -> None:
    """A port that is left up or jumbo is another port for whoever comes next."""
    before = snapshot(idle_port.host, ENTRY)
    with port_up(idle_port, mtu=9000):
        assert machine.shown[INTERFACE]["operstate"] == "UP"
        assert machine.shown[INTERFACE]["mtu"] == 9000
    before.check_same(snapshot(idle_port.host, ENTRY))
    assert machine.changes[-2:] == [f"ip link set dev {INTERFACE} down", "mtu = 1500"]


def test_a_port_that_is_up_already_is_left_up(port: Port, machine: Machine) -> None:
    """Taking down what was up is a change too."""
    with port_up(port, mtu=1500):
        pass
    assert machine.changes == []


def test_a_port_whose_mtu_was_changed_has_its_link_again(port: Port, machine: Machine) -> None:
    """ixgbe_change_mtu resets the port, whose state reads UP for a while all the same."""
    with port_up(port, mtu=9000):
        assert "LOWER_UP" in machine.shown[INTERFACE]["flags"]
