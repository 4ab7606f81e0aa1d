"""The harness measures a guest that has its VF, and else says what the guest lacks."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
from made_up_host import ENTRY, Machine, made_up_host, vf_address
from two_ends import MAC, PLACE, SPEC

from harness.errors import GuestError
from harness.guest.instance import Instance
from harness.guest.lent_vf import wait_for_lent_vf
from harness.guest.machine import GuestMachine
from harness.host.port import find_port
from harness.host.virtual_function import VirtualFunction
from harness.topology import PciAddress

Link = dict[str, Any]


@dataclass
class Guest:
    """A test sets what ``ip``, the logs of kernel and QEMU, and BME show of this guest."""

    links: list[Link]
    host: Machine
    inside: Machine
    machine: GuestMachine

    @property
    def vf(self) -> Link:
        return self.links[2]

    def set_bme(self, on: bool) -> None:
        self.host.programs["od"] = lambda _: (0, " 0406\n" if on else " 0402\n")


@pytest.fixture
def guest(tmp_path: Path) -> Guest:
    """Return a guest that has its VF: master, standby and VF have one address.

    As Debian 13's ``ip`` shows them of a guest with virtio-net failover.
    """
    alder, inside = Machine(tmp_path / "alder"), Machine(tmp_path / "guest")
    host = made_up_host(alder)
    vf = VirtualFunction(find_port(host, "p0", ENTRY.ports["p0"]), 0, PciAddress(vf_address(0)))
    place = replace(PLACE, folder=str(tmp_path))
    (tmp_path / "qemu.log").write_text("warning: vfio: group 41 is not viable\n")
    instance = Instance(SPEC, vf, place, host, 1, cast("Any", None))
    flags = ["BROADCAST", "UP", "LOWER_UP"]
    links: list[Link] = [
        {"ifname": "eth1", "address": MAC, "flags": flags, "parentbus": "virtio"},
        {"ifname": "eth2", "address": MAC, "flags": flags, "parentbus": "virtio", "master": "eth1"},
        {"ifname": "eth3", "address": MAC, "flags": flags, "parentbus": "pci", "master": "eth1"},
    ]
    inside.programs["/usr/bin/ip"] = lambda _: (0, json.dumps(links))
    inside.programs["dmesg"] = lambda _: (0, "[ 1.0] clock\n[ 2.0] ixgbevf: Reset failed\n")
    machine = SimpleNamespace(instance=instance, host=made_up_host(inside, "guest"))
    made = Guest(links, alder, inside, cast("GuestMachine", machine))
    made.set_bme(True)
    return made


def test_a_guest_that_has_its_vf_is_measured(guest: Guest) -> None:
    """The harness does not wait for a VF that is there."""
    wait_for_lent_vf(guest.machine, seconds=0)


LACKS: dict[str, tuple[Callable[[Guest], object], str]] = {
    "function": (
        lambda guest: guest.links.remove(guest.vf),
        f"no PCI function of the guest has the address {MAC}; it has no interface of a PCI",
    ),
    "address": (
        lambda guest: guest.vf.update(address="9a:00:00:00:00:01"),
        f"no PCI function of the guest has the address {MAC}; eth3 has 9a:00:00:00:00:01",
    ),
    "master": (lambda guest: guest.vf.pop("master"), "eth3 is in no failover pair"),
    "carrier": (
        lambda guest: guest.vf.update(flags=["BROADCAST", "UP", "NO-CARRIER"]),
        "eth3 has no carrier",
    ),
    "BME": (lambda guest: guest.set_bme(False), f"Bus Master Enable of {vf_address(0)} is clear"),
}


@pytest.mark.parametrize("what", LACKS)
def test_what_a_guest_lacks_is_told_with_qemus_and_its_kernels_words(
    guest: Guest, what: str
) -> None:
    """The standby device serves such a guest, and a test would blame the scheme."""
    take, told = LACKS[what]
    take(guest)
    with pytest.raises(GuestError, match="alder: the guest does not have its VF") as bare:
        wait_for_lent_vf(guest.machine, seconds=0)
    assert bare.value.because.startswith(told)
    assert "QEMU said: warning: vfio: group 41 is not viable; " in bare.value.because
    assert bare.value.because.endswith("kernel said: [ 2.0] ixgbevf: Reset failed")


def test_without_a_standby_the_vf_needs_no_master(guest: Guest) -> None:
    """Nothing enslaves a VF without a standby, so a wait for a master would never end."""
    guest.vf.pop("master")
    instance = guest.machine.instance
    instance.spec = replace(SPEC, standby=False)
    wait_for_lent_vf(guest.machine, seconds=0)


def test_what_comes_in_time_is_waited_for(guest: Guest) -> None:
    """Ixgbevf takes two seconds to see its link."""
    looks = iter([False, False, True])

    def shown(_: object) -> tuple[int, str]:
        flags = ["UP", "LOWER_UP"] if next(looks) else ["UP"]
        return 0, json.dumps([guest.vf | {"flags": flags}])

    guest.inside.programs["/usr/bin/ip"] = shown
    wait_for_lent_vf(guest.machine, seconds=5)


def test_a_guest_that_is_lent_no_vf_lacks_none(guest: Guest) -> None:
    """The baseline has no VF, and some guests make a VF for themselves."""
    guest.machine.instance.vf = None
    guest.links.clear()
    wait_for_lent_vf(guest.machine, seconds=0)
