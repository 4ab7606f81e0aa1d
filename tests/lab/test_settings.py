"""What ``ethtool`` and ``ip`` set on an 82599 port and its VF is taken, or refused, as told."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import pytest

from harness.analysis.packets import arrivals
from harness.host.changes import changed_back
from harness.host.port import find_port, port_up, wait_for_link
from harness.host.sriov import VirtualFunction
from harness.migration.conductor import measured_flow
from harness.remote import Host
from harness.run.lab import Lab
from harness.run.moving import MovingGuest
from harness.traffic.flow import Flow

pytestmark = [pytest.mark.nightly, pytest.mark.needs("82599", "sriov")]

WITH_GUEST = pytest.mark.needs("two-hosts", "peer", "iommu")


@dataclass(frozen=True)
class Setting:
    """``ethtool OPTION`` sets a value by the words *name* and shows it where *shown* matches."""

    option: str
    name: tuple[str, ...]
    shown: str
    value: str
    refused: str

    def now(self, host: Host, interface: str) -> str:
        found = re.search(self.shown, told(host, self.option.lower(), interface))
        assert found, self
        return found[1]

    def set(self, host: Host, interface: str, value: str, *, check: bool = True) -> bool:
        argv = ["ethtool", self.option, interface, *self.name, value]
        return host.run(*argv, check=check).status == 0


RX_RING = Setting("-G", ("rx",), r"(?s)Current hardware.*?RX:\s+(\d+)", "256", "1000000")
TX_RING = Setting("-G", ("tx",), r"(?s)Current hardware.*?TX:\s+(\d+)", "128", "1000000")
INTERVAL = Setting("-C", ("rx-usecs",), r"rx-usecs:\s+(\d+)", "100", "100000000")
CHECKSUM = Setting("-K", ("rx",), r"rx-checksumming: (\w+)", "off", "")
SETTINGS = pytest.mark.parametrize(
    "setting",
    [
        pytest.param(RX_RING, id="receive ring"), pytest.param(TX_RING, id="transmit ring"),
        pytest.param(INTERVAL, id="interval"), pytest.param(CHECKSUM, id="checksums"),
    ],
)  # fmt: skip


def takes(setting: Setting, host: Host, interface: str) -> None:
    """Set another value, and see it; one that is out of range is refused and changes nothing."""
    assert setting.set(host, interface, setting.value)
    assert setting.now(host, interface) == setting.value
    if setting.refused:
        assert not setting.set(host, interface, setting.refused, check=False)
        assert setting.now(host, interface) == setting.value


@pytest.mark.usefixtures("no_guest")
@pytest.mark.about("settings of a port")
@SETTINGS
def test_a_port_takes_a_setting_and_refuses_what_is_out_of_range(
    lab: Lab, hosts: list[Host], setting: Setting
) -> None:
    """The port has its link again afterwards: a new ring is a new start of the port."""
    host = hosts[0]
    name, entry = next(iter(lab.topology.hosts[host.name].ports.items()))
    port = find_port(host, name, entry)
    with port_up(port, mtu=lab.topology.guest.mtu), changed_back(host):
        before = setting.now(host, port.interface)
        way_back = ["ethtool", setting.option, port.interface, *setting.name, before]
        host.change(
            f"{setting.option} of {port.interface}",
            do={"kind": "run", "argv": ["true"]}, undo={"kind": "run", "argv": way_back},
        )  # fmt: skip
        takes(setting, host, port.interface)
        wait_for_link(port)


@pytest.mark.about("settings of a VF")
@WITH_GUEST
@SETTINGS
def test_a_vf_takes_a_setting_and_works_on(
    staying_guest: MovingGuest, flow: Callable[..., Flow], setting: Setting
) -> None:
    host, interface = staying_guest.machine.host, staying_guest.ends().guest_end.interface
    before = setting.now(host, interface)
    try:
        takes(setting, host, interface)
        assert staying_guest.stay(flow(9014)).receiver.received > 0
    finally:
        setting.set(host, interface, before)


@pytest.mark.about("rate limit of a VF")
@WITH_GUEST
def test_a_vf_sends_no_faster_than_its_port_lets_it(
    staying_guest: MovingGuest, flow: Callable[..., Flow]
) -> None:
    """11 Mbit/s, the least that the driver takes, is half of what the flow sends.

    What waits for its turn meanwhile arrives when the flow is over.  Ref: ixgbe_ndo_set_vf_bw.
    """
    sending = flow(1514, "from-guest", rate_pps=2000)

    def arrived_mbit() -> float:
        times_ns = arrivals(measured_flow(staying_guest.stay(sending, seconds=2)))
        return len(times_ns) * 1518 * 8 / float(times_ns[-1] - times_ns[0]) * 1e3

    with limited(staying_guest.function_of_port, mbit=11):
        assert arrived_mbit() == pytest.approx(11, rel=0.1)
    assert arrived_mbit() > 1.2 * 11


@contextmanager
def limited(vf: VirtualFunction, *, mbit: int) -> Iterator[None]:
    """Have the port limit what *vf* sends; the limit ends with the body."""
    limit = ["ip", "link", "set", vf.port.interface, "vf", str(vf.index), "max_tx_rate"]
    vf.host.run(*limit, str(mbit))
    try:
        yield
    finally:
        vf.host.run(*limit, "0")


def told(host: Host, *asked: str) -> str:
    return host.run("ethtool", *asked).stdout
