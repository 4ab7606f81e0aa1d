"""``ethtool`` and ``ip`` tell whether an 82599 port and its VF work, and what they counted."""

from __future__ import annotations

import re
from collections.abc import Iterator

import pytest

from harness.devices import ETH_FCS_LEN
from harness.host.ethtool import eeprom, registers
from harness.host.port import Port, find_port, port_up
from harness.remote import Host
from harness.run.lab import Lab
from harness.run.moving import MovingGuest
from harness.run.verbs import MakeFlow

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


@pytest.mark.usefixtures("no_guest")
@pytest.mark.about("the module of a port")
def test_the_module_in_the_cage_tells_its_vendor(port: Port) -> None:
    """The driver reads every bit of that over I2C.  Ref: ixgbe_get_module_eeprom."""
    assert port.module_vendor


@pytest.mark.nightly
@pytest.mark.usefixtures("no_guest")
@pytest.mark.about("self-test of a port")
def test_a_port_passes_its_drivers_tests(port: Port) -> None:
    """The driver tests registers, EEPROM, interrupts, loopback and link.  Ref: ixgbe_diag_test."""
    tested = port.self_test(offline=True)
    assert len(tested.results) == 5
    assert tested.passed, tested.failed
    assert port.self_test(offline=False).passed


@pytest.mark.nightly
@pytest.mark.usefixtures("no_guest")
@pytest.mark.about("registers and EEPROM of a port")
def test_a_port_shows_its_registers_and_its_eeprom(port: Port) -> None:
    """Ref: ixgbe_get_regs, of which ethtool names each register; ixgbe_get_eeprom."""
    shown = registers(port.host, port.interface)
    assert re.search(r"LINKS.*\n\s+Link Status:\s+up", shown), shown
    content = eeprom(port.host, port.interface, 64)
    assert len(content) == 64
    assert len(set(content)) > 1, "it is blank"


@pytest.mark.nightly
@pytest.mark.about("self-test of a port")
@WITH_GUEST
def test_a_port_whose_vf_is_in_use_is_not_tested(
    staying_guest: MovingGuest, flow: MakeFlow
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
def test_a_vf_passes_its_drivers_tests(staying_guest: MovingGuest, flow: MakeFlow) -> None:
    """The driver in the guest writes patterns into its registers.  Ref: ixgbevf_diag_test."""
    interface = staying_guest.ends().guest_end.interface
    tested = staying_guest.machine.self_test(interface, offline=True)
    assert len(tested.results) == 2
    assert tested.passed, tested.failed
    assert staying_guest.stay(flow(9014)).receiver.received > 0


@pytest.mark.nightly
@pytest.mark.about("module and EEPROM of a VF")
@WITH_GUEST
@pytest.mark.parametrize("asked", ["--module-info", "--eeprom-dump"])
def test_a_vf_has_no_module_and_no_eeprom(staying_guest: MovingGuest, asked: str) -> None:
    """Both are the port's; ixgbevf_ethtool_ops has neither word."""
    interface = staying_guest.ends().guest_end.interface
    refused = staying_guest.machine.host.run("ethtool", asked, interface, check=False)
    assert refused.status != 0
    assert "Operation not supported" in refused.stderr


@pytest.mark.about("counters of port and VF")
@WITH_GUEST
def test_port_and_vf_count_the_frames_that_a_flow_sent(
    staying_guest: MovingGuest, flow: MakeFlow
) -> None:
    """What the guest says beside the flow, such as ARP, is a tenth of that at the most."""
    echo, before = flow(256), counted(staying_guest)
    sent = staying_guest.stay(echo).sender.sent
    grown = {
        name: [now - was for now, was in zip(counts, before[name], strict=True)]
        for name, counts in counted(staying_guest).items()
    }
    assert grown["frames"] == pytest.approx([sent * 1.05] * 6, rel=0.05)
    whole = echo.frame_bytes + ETH_FCS_LEN
    stripped = echo.frame_bytes  # GORC counts no checksum; DPDK, ixgbe_read_stats_registers
    octets = [sent * each * 1.05 for each in (stripped, whole, whole, whole)]
    assert grown["bytes"] == pytest.approx(octets, rel=0.05)
    assert grown["frames of the port's own queues"][0] < sent / 10


def counted(guest: MovingGuest) -> dict[str, list[int]]:
    """Read what the port counted at its MAC and of the VF, and the VF's driver, in and out each."""
    vf, interface = guest.function_of_port, guest.ends().guest_end.interface
    port, of_vf = vf.port.statistics(), vf.traffic()
    driver = guest.machine.statistics(interface)
    return {
        "frames": [
            *(port["rx_pkts_nic"], port["tx_pkts_nic"], of_vf.received, of_vf.sent),
            *(driver["rx_packets"], driver["tx_packets"]),
        ],
        "bytes": [
            *(port["rx_bytes_nic"], port["tx_bytes_nic"]),
            *(of_vf.received_bytes, of_vf.sent_bytes),
        ],
        "frames of the port's own queues": [port["rx_packets"]],
    }
