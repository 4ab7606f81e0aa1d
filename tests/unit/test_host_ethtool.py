"""Self-tests, counters and the module of a port are read out of ``ethtool`` and ``ip``.

The texts are those of ethtool 6.14.2 and of ``ixgbe`` in Linux 6.12.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from made_up_host import ENTRY, INTERFACE, Machine, made_up_host

from harness.errors import LabError, RemoteError
from harness.host import ethtool
from harness.host.changes import changed_back
from harness.host.port import Port, VfTraffic, find_port

OFFLINE = """\
The test result is {verdict}
The test extra info:
Register test  (offline)\t {register}
Eeprom test    (offline)\t 0
Interrupt test (offline)\t 0
Loopback test  (offline)\t {loopback}
Link test   (on/offline)\t 0

"""
STATISTICS = """\
NIC statistics:
     rx_packets: 0
     tx_packets: 2
     rx_pkts_nic: 4294967296
     tx_queue_0_packets: 2
"""
MODULE = """\
\tIdentifier                                : 0x03 (SFP)
\tTransceiver type                          : 10G Ethernet: 10G Base-SR
\tVendor name                               : Intel Corp
\tVendor OUI                                : 00:1b:21
"""
VFS = [
    {"vf": number, "stats": {
        "rx": {"bytes": 1000 + number, "packets": 10 + number, "multicast": 3, "broadcast": 0},
        "tx": {"tx_bytes": 2000 + number, "tx_packets": 20 + number, "dropped": 0},
    }}
    for number in range(2)
]  # fmt: skip


class Ethtool:
    """The made-up host's ethtool prints *said* and ends with *status*."""

    def __init__(self, said: str, status: int = 0) -> None:
        self.said, self.status = said, status
        self.asked: list[str] = []

    def __call__(self, argv: Sequence[str]) -> tuple[int, str]:
        self.asked.append(" ".join(argv))
        return self.status, self.said


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    machine = Machine(tmp_path / "state")
    machine.shown[INTERFACE] |= {"flags": ["UP", "LOWER_UP"], "operstate": "UP"}
    return machine


@pytest.fixture
def port(machine: Machine) -> Port:
    return find_port(made_up_host(machine), "p0", ENTRY.ports["p0"])


def test_a_test_that_found_no_fault_passed(machine: Machine, port: Port) -> None:
    machine.programs["ethtool"] = program = Ethtool(
        OFFLINE.format(verdict="PASS", register=0, loopback=0)
    )
    tested = port.self_test(offline=True)
    assert program.asked == [f"ethtool --test {INTERFACE} offline"]
    assert (tested.passed, tested.failed, len(tested.results)) == (True, [], 5)


def test_each_test_that_found_a_fault_is_named(machine: Machine, port: Port) -> None:
    """The register test's result is the register's offset, the loopback test's its step."""
    machine.programs["ethtool"] = program = Ethtool(
        OFFLINE.format(verdict="FAIL", register=21508, loopback=13)
    )
    tested = port.self_test(offline=False)
    assert program.asked == [f"ethtool --test {INTERFACE} online"]
    assert not tested.passed
    assert tested.failed == ["Register test (offline)", "Loopback test (offline)"]
    assert tested.results["Register test (offline)"] == 21508


def test_a_test_that_did_not_run_is_no_verdict(machine: Machine, port: Port) -> None:
    machine.programs["ethtool"] = Ethtool("Cannot test: Operation not supported", status=74)
    with pytest.raises(RemoteError, match=f"the driver of {INTERFACE} did not test") as error:
        port.self_test(offline=True)
    assert "Operation not supported" in error.value.because


def test_a_port_has_its_link_again_when_it_was_tested(
    machine: Machine, port: Port, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("harness.host.port.LINK_SECONDS", 0.2)
    machine.programs["ethtool"] = Ethtool(OFFLINE.format(verdict="PASS", register=0, loopback=0))
    machine.shown[INTERFACE]["flags"] = ["UP"]
    with pytest.raises(LabError, match=f"a link on {INTERFACE}"):
        port.self_test(offline=True)


def test_the_offline_test_is_a_change_of_the_host(
    machine: Machine, port: Port, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The offline test resets the device; a host needs a lease for that, and a guest none."""
    asked: list[bool] = []
    machine.programs["ethtool"] = Ethtool(OFFLINE.format(verdict="PASS", register=0, loopback=0))
    call = machine.call

    def noted(verb: str, **args: Any) -> Any:
        asked.append("lease" in args)
        return call(verb, **args)

    monkeypatch.setattr(machine, "call", noted)
    for offline, leased in ((True, True), (False, True), (True, False)):
        ethtool.self_test(port.host, port.interface, offline=offline, leased=leased)
    assert asked == [True, False, False]


def test_counters_are_read_by_the_drivers_names(machine: Machine, port: Port) -> None:
    machine.programs["ethtool"] = Ethtool(STATISTICS)
    assert port.statistics() == {
        "rx_packets": 0, "tx_packets": 2, "rx_pkts_nic": 1 << 32, "tx_queue_0_packets": 2,
    }  # fmt: skip


def test_a_module_tells_its_vendor(machine: Machine, port: Port) -> None:
    machine.programs["ethtool"] = Ethtool(MODULE)
    assert port.module_vendor == "Intel Corp"
    shown = ethtool.module(port.host, port.interface)
    assert shown["Transceiver type"] == "10G Ethernet: 10G Base-SR"


def test_a_cage_without_a_module_is_an_error(machine: Machine, port: Port) -> None:
    machine.programs["ethtool"] = Ethtool("netlink error: Input/output error", status=1)
    with pytest.raises(RemoteError, match="ended with status 1"):
        _ = port.module_vendor


def test_what_the_port_counted_of_a_vf_is_fresh(machine: Machine, port: Port) -> None:
    """The driver reads its device for ``ethtool``, and shows what it read last for ``ip``."""
    asked: list[str] = []

    def ip(argv: Sequence[str]) -> tuple[int, str]:
        asked.append(argv[0])
        return 0, json.dumps([{"ifname": INTERFACE, "vfinfo_list": VFS}])

    def program(argv: Sequence[str]) -> tuple[int, str]:
        asked.append(argv[0])
        return 0, STATISTICS

    machine.programs |= {"ip": ip, "ethtool": program}
    assert port.vf_traffic(1) == VfTraffic(11, 1001, 21, 2001)
    assert asked == ["ethtool", "ip"]


RINGS = """\
Ring parameters for ens1f0:
Pre-set maximums:
RX:\t\t8192
RX Mini:\tn/a
TX:\t\t8192
Current hardware settings:
RX:\t\t512
RX Mini:\tn/a
TX:\t\t256
"""
COALESCE = (
    "Coalesce parameters for ens1f0:\nAdaptive RX: n/a  TX: n/a\n\nrx-usecs:\t1\nrx-frames:\tn/a\n"
)
FEATURES = "Features for ens1f0:\nrx-checksumming: on\ntx-checksumming: off\n"


@pytest.mark.parametrize(
    ("setting", "said", "value", "asked"),
    [
        (ethtool.RX_RING, RINGS, "512", "-g"),
        (ethtool.TX_RING, RINGS, "256", "-g"),
        (ethtool.RX_INTERVAL, COALESCE, "1", "-c"),
        (ethtool.RX_CHECKSUMS, FEATURES, "on", "-k"),
    ],
)
def test_a_setting_is_read_and_not_the_most_that_it_can_be(
    machine: Machine, port: Port, setting: ethtool.Setting, said: str, value: str, asked: str
) -> None:
    machine.programs["ethtool"] = program = Ethtool(said)
    assert setting.value(port.host, INTERFACE) == value
    assert program.asked == [f"ethtool {asked} {INTERFACE}"]


def test_a_driver_without_a_setting_is_told_with_what_ethtool_said(
    machine: Machine, port: Port
) -> None:
    machine.programs["ethtool"] = Ethtool("Coalesce parameters for ens1f0:\nrx-usecs:\tn/a\n")
    with pytest.raises(RemoteError, match="shows no rx-usecs") as error:
        ethtool.RX_INTERVAL.value(port.host, INTERFACE)
    assert "n/a" in error.value.because


def test_a_setting_of_a_port_is_put_back_to_its_first_value(machine: Machine, port: Port) -> None:
    machine.programs["ethtool"] = program = Ethtool(RINGS)
    with changed_back(port.host):
        port.set(ethtool.RX_RING, "256")
    assert program.asked == [
        f"ethtool -g {INTERFACE}",
        f"ethtool -G {INTERFACE} rx 256",
        f"ethtool -G {INTERFACE} rx 512",
    ]


def test_an_eeprom_is_read_row_by_row(machine: Machine, port: Port) -> None:
    machine.programs["ethtool"] = program = Ethtool(
        "Offset\t\tValues\n------\t\t------\n"
        "0x0000:\t\t00 01 02 03 04 05 06 07 08 09 0a 0b 0c 0d 0e 0f \n"
        "0x0010:\t\t10 11 \n"
    )
    assert ethtool.eeprom(port.host, INTERFACE, 18) == bytes(range(18))
    assert program.asked == [f"ethtool --eeprom-dump {INTERFACE} offset 0 length 18"]
