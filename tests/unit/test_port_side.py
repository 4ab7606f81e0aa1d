"""An administrator sets VFs by one set of words, on a twin's port and on a real one."""

from __future__ import annotations

import json
import socket
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from made_up_host import ENTRY, INTERFACE, Machine, made_up_host
from vf_driver import guest_with_vf

from harness.errors import WaitError
from harness.host import sriov_port_side
from harness.host.port import find_port
from harness.host.port_side import LinkState, PortSide, VfSettings, put_back
from harness.host.sriov import virtual_functions
from harness.host.twin import Twin
from harness.host.twin_control import TwinControl
from harness.remote import Host
from harness.topology import MacAddress
from harness.twin.control import Control, ControlConnection

OWN, OTHER = MacAddress("52:54:00:12:34:56"), MacAddress("02:00:00:00:00:09")
MADE = VfSettings(OWN, vlan=0, trusted=False, spoof_check=True, link_state=LinkState.AUTO)
"""As a VF is that was just made and given its address."""


class AskedAtOnce(TwinControl):
    """The same thread serves the other end of a twin's control socket."""

    def __init__(self, control: Control) -> None:
        near, far = socket.socketpair()
        super().__init__("alder: vf0", near)
        self._near, self._served = near, ControlConnection(far, control)

    def ask(self, word: str, **arguments: Any) -> Any:
        self._near.sendall(json.dumps({"do": word, **arguments}).encode() + b"\n")
        assert self._served.serve()
        return json.loads(self._near.recv(1 << 16))["ok"]

    def close(self) -> None:
        super().close()
        self._served.close()


class Administered:
    """The made-up host's ``ip`` shows the settings of VFs as the kernel does."""

    def __init__(self, machine: Machine) -> None:
        self._ip = machine.programs["ip"]
        self._changes = machine.changes
        self._link = machine.shown[INTERFACE]
        self._set: dict[int, dict[str, Any]] = {}

    def __call__(self, argv: Sequence[str]) -> tuple[int, str]:
        if argv[5:6] == ["vf"] and argv[7] != "mac":
            self._changes.append(" ".join(argv))
            number, what, value = argv[6:]
            key = {"state": "link-state"}.get(what, what)
            shown: Any = {"on": True, "off": False}.get(value, value)
            if what == "vlan":
                key, shown = "vlan_list", [{"vlan": int(value)}] if value != "0" else [{}]
            self._set.setdefault(int(number), {})[key] = shown
            return 0, ""
        for vf in self._link.get("vfinfo_list", ()):
            made = {"vlan_list": [{}], "spoofchk": True, "link-state": "auto", "trust": False}
            vf |= made | self._set.get(vf["vf"], {})
        return self._ip(argv)


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    machine = Machine(tmp_path / "state")
    machine.programs["ip"] = Administered(machine)

    def ethtool(argv: Sequence[str]) -> tuple[int, str]:
        machine.changes.append(" ".join(argv))
        return 0, ""

    machine.programs["ethtool"] = ethtool
    machine.programs["bridge"] = lambda _: (0, "")
    machine.shown[INTERFACE] |= {"flags": ["UP", "LOWER_UP"], "operstate": "UP"}
    return machine


@pytest.fixture
def port_side(host: Host) -> Iterator[PortSide]:
    """Yield the side of the second VF, since a setting for it must not reach the first."""
    with virtual_functions(find_port(host, "p0", ENTRY.ports["p0"]), 2) as (_, vf):
        vf.set_filter(OWN)
        yield vf.port_side


@pytest.fixture
def twin_side(host: Host, tmp_path: Path) -> Iterator[PortSide]:
    with guest_with_vf(tmp_path / "dma.log") as guest:
        guest.start()
        with closing(AskedAtOnce(Control(guest.device, lambda: True))) as control:
            twin = Twin(host, "vf0", str(tmp_path), "vfh0-vf0", control)
            twin.set_filter(OWN)
            yield twin.port_side


@pytest.fixture(params=["port_side", "twin_side"])
def side(request: pytest.FixtureRequest) -> PortSide:
    side: PortSide = request.getfixturevalue(request.param)
    return side


CHANGES: dict[str, tuple[Callable[[PortSide], None], dict[str, Any]]] = {
    "mac": (lambda side: side.set_mac(OTHER), {"mac": OTHER}),
    "vlan": (lambda side: side.set_vlan(7), {"vlan": 7}),
    "trust": (lambda side: side.set_trust(True), {"trusted": True}),
    "spoof check": (lambda side: side.set_spoof_check(False), {"spoof_check": False}),
    "state": (
        lambda side: side.set_link_state(LinkState.DISABLE), {"link_state": LinkState.DISABLE},
    ),
}  # fmt: skip


@pytest.mark.parametrize("what", CHANGES)
def test_what_is_set_is_what_is_read_back_and_is_put_back(side: PortSide, what: str) -> None:
    """Each word changes its own setting and no other, on either kind of port."""
    change, changed = CHANGES[what]
    assert side.settings == MADE
    with put_back(side):
        change(side)
        assert side.settings == replace(MADE, **changed)
    assert side.settings == MADE


def test_the_ports_own_changes_are_put_back_too(side: PortSide) -> None:
    """The next test's VF would be deaf on a port that another one left jumbo, or down."""
    before = side.mtu
    with put_back(side):
        side.set_up(False)
        side.set_up(True)
        side.set_mtu(9000)
        assert side.mtu == 9000
        side.set_up(False)
    assert side.mtu == before


def test_only_the_vf_that_is_meant_is_changed(port_side: PortSide, machine: Machine) -> None:
    """A VF's number is all that tells the guests of one port apart."""
    first = dict(machine.shown[INTERFACE]["vfinfo_list"][0])
    with put_back(port_side):
        for change, _ in CHANGES.values():
            change(port_side)
        assert machine.shown[INTERFACE]["vfinfo_list"][0] == first
        assert machine.changes[-1] == f"ip link set dev {INTERFACE} vf 1 state disable"


def test_the_way_back_of_a_port_is_journalled_once_and_leads_to_its_first_state(
    port_side: PortSide, machine: Machine
) -> None:
    """A host that puts itself back goes to the first MTU at once, since each MTU is a reset."""
    pending = len(machine.call("journal.pending"))
    for mtu in (9000, 1500, 9710):
        port_side.set_mtu(mtu)
    for up in (False, True, False):
        port_side.set_up(up)
    left = machine.call("journal.pending")[pending:]
    assert [entry["undo"].get("text") for entry in left] == ["1500"], "the VF's lead to up"
    made_up_host(machine).undo()
    assert (machine.shown[INTERFACE]["mtu"], machine.shown[INTERFACE]["operstate"]) == (1500, "UP")


def test_a_setting_that_is_so_already_is_not_written(port_side: PortSide, machine: Machine) -> None:
    """Each of these settings resets the port, and would cut off all its VFs."""
    machine.changes.clear()
    port_side.set_mtu(1500)
    port_side.set_up(True)
    assert machine.changes == []


def test_a_ports_reset_changes_nothing_that_is_set(port_side: PortSide, machine: Machine) -> None:
    port_side.set_vlan(7)
    before, pending = port_side.settings, machine.call("journal.pending")
    port_side.reset()
    assert machine.changes[-1] == f"ethtool --negotiate {INTERFACE}"
    assert (port_side.settings, machine.call("journal.pending")) == (before, pending)


@pytest.mark.parametrize(
    "without", [{"flags": ["UP"]}, {"operstate": "DOWN"}], ids=["no carrier", "state not yet"]
)
def test_a_port_is_waited_for_until_it_has_its_link_again(
    port_side: PortSide,
    machine: Machine,
    monkeypatch: pytest.MonkeyPatch,
    without: dict[str, Any],
) -> None:
    """A frame that is sent before that is lost, and would be blamed on the VF."""
    monkeypatch.setattr(sriov_port_side, "LINK_SECONDS", 0.05)
    machine.shown[INTERFACE] |= without
    machine.looks_without_link = 1000 if "flags" in without else 0
    with pytest.raises(WaitError, match=f"alder: a link on {INTERFACE} again"):
        port_side.set_mtu(9000)
