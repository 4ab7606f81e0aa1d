"""The proof that a host was put back: what was seen of it before and after."""

from __future__ import annotations

from dataclasses import replace

import pytest
from made_up_host import (
    ENTRY,
    INTERFACE,
    PORT,
    Machine,
    made_up_host,
)

from harness.errors import RestoreError
from harness.host.snapshot import Snapshot, snapshot


def test_a_snapshot_of_what_has_not_changed_is_the_same(machine: Machine) -> None:
    """A carrier that comes and goes with the cable is not ours to put back."""
    host = made_up_host(machine)
    before = snapshot(host, ENTRY)
    machine.shown[INTERFACE]["flags"].append("NO-CARRIER")

    before.check_same(snapshot(host, ENTRY))
    assert machine.changes == []


@pytest.mark.parametrize(
    ("key", "value", "line"),
    [
        ("mtu", 9000, "p0 mtu: 1500 is now 9000"),
        ("flags", ["BROADCAST", "MULTICAST", "UP"],
         'p0 flags: ["BROADCAST", "MULTICAST"] is now ["BROADCAST", "MULTICAST", "UP"]'),
        ("master", "vfh0", 'p0 master: null is now "vfh0"'),
        ("promiscuity", 1, "p0 promiscuity: 0 is now 1"),
        ("address", "02:00:00:00:17:01",
         'p0 address: "02:00:00:00:17:00" is now "02:00:00:00:17:01"'),
    ],
)  # fmt: skip
def test_each_thing_that_is_left_of_a_link_is_named(
    machine: Machine, key: str, value: object, line: str
) -> None:
    """`not as it was` alone sends a person through the whole host."""
    host = made_up_host(machine)
    before = snapshot(host, ENTRY)
    machine.shown[INTERFACE][key] = value

    with pytest.raises(RestoreError) as bent:
        before.check_same(snapshot(host, ENTRY))
    assert bent.value.because == line


@pytest.mark.parametrize(
    ("name", "line"),
    [
        ("sriov_numvfs", "p0 sriov_numvfs: 0 is now 2"),
        ("sriov_drivers_autoprobe", "p0 sriov_drivers_autoprobe: 1 is now 2"),
    ],
)
def test_each_attribute_that_is_left_changed_is_named(
    machine: Machine, name: str, line: str
) -> None:
    """VFs that stay, and VFs that the next driver does not see."""
    host = made_up_host(machine)
    before = snapshot(host, ENTRY)
    machine.files[f"{PORT}/{name}"] = "2\n"

    with pytest.raises(RestoreError) as bent:
        before.check_same(snapshot(host, ENTRY))
    assert bent.value.because == line


def test_another_driver_and_a_bridge_of_ours_are_named_together(machine: Machine) -> None:
    """Both in one error, each with what was and what is."""
    host = made_up_host(machine)
    before = snapshot(host, ENTRY)
    machine.links[f"{PORT}/driver"] = "../../../../bus/pci/drivers/vfio-pci"
    machine.shown["vfh0"] = {}

    with pytest.raises(RestoreError) as bent:
        before.check_same(snapshot(host, ENTRY))
    assert bent.value.because == (
        "interfaces of ours: none is now vfh0; p0 driver: ixgbe is now vfio-pci"
    )


def test_an_interface_of_someone_else_is_not_ours_to_put_back(machine: Machine) -> None:
    """A container that is started meanwhile must not fail the run."""
    host = made_up_host(machine)
    before = snapshot(host, ENTRY)
    machine.shown["docker0"] = {}

    before.check_same(snapshot(host, ENTRY))


def test_a_line_that_only_one_of_two_snapshots_has_is_a_difference() -> None:
    """A port that has gone is a change, too; comparing common lines only would miss it."""
    whole = Snapshot("alder", {"p0 mtu": "1500", "p1 mtu": "1500"})
    part = replace(whole, lines={"p0 mtu": "1500"})
    with pytest.raises(RestoreError, match="p1 mtu: 1500 is now absent"):
        whole.check_same(part)
    with pytest.raises(RestoreError, match="p1 mtu: absent is now 1500"):
        part.check_same(whole)
