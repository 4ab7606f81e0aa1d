"""VFs are lent: made, looked at through VFIO, and taken back so that nothing is left of them."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from harness.errors import LabError
from harness.host.port import Port, find_port, port_up
from harness.host.snapshot import snapshot
from harness.host.sriov import virtual_functions
from harness.host.vf import NO_MAC
from harness.uapi.pci_regs import Command

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from harness.remote import Host
    from harness.run.lab import Lab

pytestmark = [
    pytest.mark.usefixtures("no_guest"),
    pytest.mark.about("VFs lent by a port"),
    pytest.mark.needs("sriov", "iommu"),
]


@pytest.fixture
def port(lab: Lab, hosts: list[Host], port_pair: Mapping[str, str]) -> Iterator[Port]:
    """A port of the first host, up."""
    host = hosts[0]
    name = port_pair[host.name]
    found = find_port(host, name, lab.topology.hosts[host.name].ports[name])
    with port_up(found, mtu=lab.topology.guest.mtu):
        yield found


@pytest.mark.smoke
@pytest.mark.needs("two-vfs")
def test_vfs_are_lent_with_addresses_of_their_own_and_taken_back(lab: Lab, port: Port) -> None:
    """The port looks afterwards as it did before: VFs, drivers, filters, flags."""
    entry = lab.topology.hosts[port.host.name]
    before = snapshot(port.host, entry)
    with virtual_functions(port, 2) as lent:
        assert [vf.index for vf in lent] == [0, 1]
        assert len({vf.pci for vf in lent}) == 2
        assert len({vf.iommu_group for vf in lent}) == 2, "a shared group cannot be split"
        lent[1].set_filter(lab.topology.guest.mac)
        assert port.filters() == {0: NO_MAC, 1: lab.topology.guest.mac}
    before.check_same(snapshot(port.host, entry))


def test_a_port_that_has_vfs_is_not_touched(port: Port) -> None:
    """Whoever made them may be using them."""
    with virtual_functions(port, 1):
        with pytest.raises(LabError, match="already has 1 VFs"), virtual_functions(port, 1):
            pytest.fail("the second user got VFs")
        assert port.virtual_functions == 1


@pytest.mark.bme
def test_vfio_reaches_the_vf_itself(port: Port) -> None:
    """Regions, interrupts, config space and reset, by ioctl on the real device.

    A wrong structure or ioctl would read sizes of nothing, or write BME where nothing obeys.
    """
    with virtual_functions(port, 1) as (vf,):
        seen = vf.inspect()
    assert {"PCI", "RESET"} <= set(seen.flags)
    assert seen.region_bytes["CONFIG"] >= 256
    assert seen.region_bytes["BAR0"] >= 4096, "the VF's registers"
    assert seen.interrupts["MSIX"] >= 2, "one for a queue, one for the mailbox"
    assert (seen.migration, seen.migration_state) == ([], None), "plain vfio-pci can save no VF"
    assert not seen.command_opened & Command.MASTER
    assert seen.command_mastering & Command.MASTER
    assert seen.command_reset == seen.command_mastering, "the kernel puts it back after a reset"


@pytest.mark.nightly
@pytest.mark.about("all VFs of a port")
@pytest.mark.needs("all-vfs")
def test_as_many_vfs_as_the_family_has_are_lent_and_gone_again(lab: Lab, port: Port) -> None:
    """Each has an address and an IOMMU group of its own; the last one works as the first does.

    Ref: for an 82599, IXGBE_MAX_VFS_DRV_LIMIT, 63.
    """
    most, mac = port.profile.max_vfs.value, lab.topology.guest.mac
    before = snapshot(port.host, lab.topology.hosts[port.host.name])
    with virtual_functions(port, most) as lent:
        assert len({vf.pci for vf in lent}) == len({vf.iommu_group for vf in lent}) == most
        lent[-1].set_filter(mac)
        assert port.filters() == {**dict.fromkeys(range(most - 1), NO_MAC), most - 1: mac}
        assert lent[-1].inspect().interrupts["MSIX"] >= 2, "one for a queue, one for the mailbox"
    before.check_same(snapshot(port.host, lab.topology.hosts[port.host.name]))
