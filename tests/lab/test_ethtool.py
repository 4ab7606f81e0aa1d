"""What ``ethtool`` and ``ip`` say of an 82599 port and of its VF: tests, the module, counters."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest

from harness.devices import ETH_FCS_LEN
from harness.host.port import Port, find_port, port_up
from harness.remote import Host
from harness.run.lab import Lab
from harness.run.moving import MovingGuest
from harness.traffic.flow import Flow

pytestmark = pytest.mark.needs("82599", "sriov")

WITH_GUEST = pytest.mark.needs("two-hosts", "peer", "iommu")


@pytest.fixture
def port(lab: Lab, hosts: list[Host]) -> Iterator[Port]:
    """The first port of the first host, up, without VFs."""
    host = hosts[0]
    name, entry = next(iter(lab.topology.hosts[host.name].ports.items()))
    found = find_port(host, name, entry)
    with port_up(found, mtu=lab.topology.guest.mtu):
        yield found


@pytest.mark.about("the module of a port")
def test_the_module_in_the_cage_tells_its_vendor(port: Port) -> None:
    """Every bit of that is read over I2C.  Ref: ixgbe_get_module_eeprom."""
    assert port.module_vendor


@pytest.mark.nightly
@pytest.mark.about("self-test of a port")
def test_a_port_passes_its_drivers_tests(port: Port) -> None:
    """Registers, EEPROM, interrupts, frames in loopback, and the link.  Ref: ixgbe_diag_test."""
    tested = port.self_test(offline=True)
    assert len(tested.results) == 5
    assert tested.passed, tested.failed
    assert port.self_test(offline=False).passed


@pytest.mark.nightly
@pytest.mark.about("self-test of a port")
@WITH_GUEST
def test_a_port_whose_vf_is_in_use_is_not_tested(
    staying_guest: MovingGuest, flow: Callable[..., Flow]
) -> None:
    """Its driver refuses, which reads as a failure of every test, and the VF works on."""
    tested = staying_guest.function_of_port.port.self_test(offline=True)
    assert not tested.passed
    assert set(tested.results.values()) == {1}
    records = staying_guest.stay(flow(64))
    assert records.receiver.received == records.sender.sent > 0


@pytest.mark.nightly
@pytest.mark.about("self-test of a VF")
@WITH_GUEST
def test_a_vf_passes_its_drivers_tests(
    staying_guest: MovingGuest, flow: Callable[..., Flow]
) -> None:
    """The driver in the guest writes patterns into its registers.  Ref: ixgbevf_diag_test."""
    interface = staying_guest.ends().guest_end.interface
    tested = staying_guest.machine.self_test(interface, offline=True)
    assert len(tested.results) == 2
    assert tested.passed, tested.failed
    assert staying_guest.stay(flow(9014)).receiver.received > 0


@pytest.mark.about("counters of port and VF")
@WITH_GUEST
def test_port_and_vf_count_the_frames_that_a_flow_sent(
    staying_guest: MovingGuest, flow: Callable[..., Flow]
) -> None:
    """The port counts at its MAC, and for the VF's pool; the VF's driver counts its rings.

    What the guest says beside the flow, such as ARP, is a tenth of that at the most.
    """
    vf, echo = staying_guest.function_of_port, flow(256)
    before, vf_before = vf.port.statistics(), vf.traffic()
    sent = staying_guest.stay(echo).sender.sent
    of_port, of_vf = vf.port.statistics(), vf.traffic().since(vf_before)
    of_mac = {name: of_port[f"{name}_nic"] - before[f"{name}_nic"] for name in COUNTED}
    frames = [of_vf.received, of_vf.sent, of_mac["rx_pkts"], of_mac["tx_pkts"]]
    assert frames == pytest.approx([sent * 1.05] * 4, rel=0.05)
    octets = [of_vf.received_bytes, of_vf.sent_bytes, of_mac["rx_bytes"], of_mac["tx_bytes"]]
    assert octets == pytest.approx([sent * 1.05 * (echo.frame_bytes + ETH_FCS_LEN)] * 4, rel=0.05)
    assert of_port["rx_packets"] - before["rx_packets"] < sent / 10, "the port's own queues"


COUNTED = ("rx_pkts", "tx_pkts", "rx_bytes", "tx_bytes")
