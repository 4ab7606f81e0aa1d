"""What is set of an 82599 port and its VF by ``ethtool`` and ``ip`` is so, or it is refused."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from harness.analysis.packets import arrivals
from harness.errors import RemoteError
from harness.host.changes import changed_back
from harness.host.ethtool import RX_CHECKSUMS, RX_INTERVAL, RX_RING, TX_RING, Setting
from harness.host.port import Port, find_port, port_up
from harness.migration.experiment import measured_flow
from harness.remote import Host
from harness.run.lab import Lab
from harness.run.moving import MovingGuest
from harness.run.verbs import MakeFlow

pytestmark = [pytest.mark.nightly, pytest.mark.needs("82599", "sriov")]

WITH_GUEST = pytest.mark.needs("two-hosts", "peer", "iommu")
VALUES = pytest.mark.parametrize(
    ("setting", "value"),
    [
        pytest.param(RX_RING, "256", id="receive ring"),
        pytest.param(TX_RING, "128", id="transmit ring"),
        pytest.param(RX_INTERVAL, "100", id="interval"),
        pytest.param(RX_CHECKSUMS, "off", id="checksums"),
    ],
)
TOO_MUCH = pytest.mark.parametrize(
    ("setting", "value"),
    [
        pytest.param(RX_RING, "1000000", id="receive ring"),
        pytest.param(TX_RING, "1000000", id="transmit ring"),
        pytest.param(RX_INTERVAL, "100000000", id="interval"),
    ],
)


@pytest.fixture
def port(lab: Lab, hosts: list[Host]) -> Iterator[Port]:
    """The first port of the first host, up, with the settings that it had."""
    host = hosts[0]
    name, entry = next(iter(lab.topology.hosts[host.name].ports.items()))
    found = find_port(host, name, entry)
    with port_up(found, mtu=lab.topology.guest.mtu), changed_back(host):
        yield found


@pytest.mark.usefixtures("no_guest")
@pytest.mark.about("settings of a port")
@VALUES
def test_a_port_takes_a_setting_and_has_its_link_again(
    port: Port, setting: Setting, value: str
) -> None:
    assert setting.value(port.host, port.interface) != value
    port.set(setting, value)
    assert setting.value(port.host, port.interface) == value


@pytest.mark.usefixtures("no_guest")
@pytest.mark.about("settings of a port")
@TOO_MUCH
def test_a_port_refuses_a_setting_that_is_out_of_range(
    port: Port, setting: Setting, value: str
) -> None:
    before = setting.value(port.host, port.interface)
    with pytest.raises(RemoteError):
        setting.set(port.host, port.interface, value, leased=True)
    assert setting.value(port.host, port.interface) == before


@pytest.mark.about("settings of a VF")
@WITH_GUEST
@VALUES
def test_a_vf_takes_a_setting_and_works_on(
    staying_guest: MovingGuest, flow: MakeFlow, setting: Setting, value: str
) -> None:
    host, interface = staying_guest.machine.host, staying_guest.ends().guest_end.interface
    before = setting.value(host, interface)
    assert before != value
    setting.set(host, interface, value, leased=False)
    try:
        assert setting.value(host, interface) == value
        assert staying_guest.stay(flow(9014)).receiver.received > 0
    finally:
        setting.set(host, interface, before, leased=False)


@pytest.mark.about("rate limit of a VF")
@WITH_GUEST
def test_a_vf_sends_no_faster_than_its_port_lets_it(
    staying_guest: MovingGuest, flow: MakeFlow
) -> None:
    """11 Mbit/s, the least that the driver takes, is half of what the flow would send.

    Frames that wait for their turn in the guest arrive after the flow is over.
    """
    port_side = staying_guest.function_of_port.port_side

    def arrived_mbit() -> float:
        sent = staying_guest.stay(flow(1514, "from-guest", rate_pps=2000), seconds=2)
        times_ns = arrivals(measured_flow(sent))
        assert len(times_ns) > 100
        return len(times_ns) * 1518 * 8 / float(times_ns[-1] - times_ns[0]) * 1e3

    port_side.set_rate(11)
    try:
        limited = arrived_mbit()
    finally:
        port_side.set_rate(0)
    with pytest.raises(RemoteError, match="11 to 10000 Mbit/s"):
        port_side.set_rate(10)
    assert limited < 11 * 1.1
    assert arrived_mbit() > limited * 1.2
