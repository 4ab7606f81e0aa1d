"""A lab in use: all hosts or none, given back as it was, and what ran there."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import pytest
from made_up_host import ENTRY, INTERFACE, PORT, Machine, made_up_host

from harness.errors import LabBusy, LabError, RestoreError, UsageError
from harness.guest.spec import GuestImage
from harness.remote import Host
from harness.run import lab as module
from harness.run.lab import LEASE_SECONDS, Lab, taken
from harness.run.provenance import provenance
from harness.topology import PEER, Connection, Topology, find, load

IMAGE = GuestImage(Path("k"), Path("i"), "digest", Path("id"), Path("known"))


class Machines:
    """The machines of a lab with two hosts and a peer, by name."""

    def __init__(self, folder: Path) -> None:
        self.by_name = {name: Machine(folder / name) for name in ("alder", "birch", PEER)}
        described = load(find("x520-pair"))
        self.by_name[PEER].shown[INTERFACE] |= {
            "flags": ["UP", "LOWER_UP"], "mtu": 9000, "addr_info": [{"local": "198.18.0.1"}]
        }  # fmt: skip
        self.by_name[PEER].folders.add(f"/sys/class/net/{INTERFACE}")
        self.topology = described.model_copy(update={"hosts": {"alder": ENTRY, "birch": ENTRY}})

    def connect(self, name: str, way: Connection) -> Host:
        assert way.name == name
        return made_up_host(self.by_name[name], name)

    @property
    def holders(self) -> list[bool]:
        """Whether each is lent: alder, birch, the peer."""
        return [bool(machine.holder) for machine in self.by_name.values()]


@pytest.fixture
def machines(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Machines:
    machines = Machines(tmp_path)
    monkeypatch.setattr(module, "connect", machines.connect)
    return machines


def says(text: str, _: Sequence[str]) -> tuple[int, str]:
    """Answer any command with *text*."""
    return 0, text


@contextmanager
def in_use(topology: Topology) -> Iterator[Lab]:
    with taken(topology, IMAGE, lambda _: None) as lab:
        yield lab


def test_a_lab_is_lent_whole_and_given_back(machines: Machines) -> None:
    """A lease that stays keeps everybody else out until its deadline."""
    with in_use(machines.topology) as lab:
        assert list(lab.hosts) == ["alder", "birch"]
        assert lab.peer.name == PEER
        assert machines.holders == [True, True, True]
        assert module.holder() == machines.by_name["birch"].holder
    assert machines.holders == [False, False, False]


@pytest.mark.parametrize("name", ["birch", PEER])
def test_a_machine_that_is_lent_to_someone_else_is_not_used(machines: Machines, name: str) -> None:
    """Nor is another one changed: half a lab can measure nothing.

    Two runs that send from one peer would each find the other's frames in their way.
    """
    machines.by_name[name].holder = "ann@bench (pid 7)"
    with (
        pytest.raises(LabBusy, match=r"lent to ann@bench \(pid 7\)"),
        in_use(machines.topology),
    ):
        pytest.fail("it was lent")
    assert machines.by_name[name].holder == "ann@bench (pid 7)"
    assert machines.by_name["alder"].changes == []


def test_faults_of_hosts_and_peer_are_told_before_anything_is_changed(machines: Machines) -> None:
    """Found one by one, each costs a walk to the rack."""
    machines.by_name["alder"].files[f"{PORT}/sriov_numvfs"] = "4\n"
    machines.by_name["birch"].euid = 1000
    machines.by_name[PEER].shown[INTERFACE]["mtu"] = 1500
    with pytest.raises(LabError) as unhealthy, in_use(machines.topology):
        pytest.fail("it was lent")
    first, second, third = unhealthy.value.what.splitlines()
    assert first.startswith("alder: ")
    assert "already has 4 VFs" in first
    assert second.startswith("birch: the agent is not root there")
    assert third == "peer: ens1f0 has MTU 1500, the guests 9000: raise it"
    assert [machine.changes for machine in machines.by_name.values()] == [[], [], []]


def test_a_host_that_is_not_as_it_was_is_an_error_and_stays_lent(machines: Machines) -> None:
    """The next one must not measure on it; its own agent puts it back, or a person does."""
    with (
        pytest.raises(RestoreError, match="birch: not as it was before"),
        in_use(machines.topology),
    ):
        machines.by_name["birch"].shown[INTERFACE]["mtu"] = 9000
    assert machines.holders == [True, True, True]


def test_a_lab_without_a_peer_cannot_be_used(machines: Machines) -> None:
    """Nobody would send or receive: nothing is touched to find that out."""
    with (
        pytest.raises(UsageError, match="has no peer"),
        in_use(machines.topology.model_copy(update={"peer": None})),
    ):
        pytest.fail("it was lent")
    assert machines.holders == [False, False, False]


def test_leases_of_all_machines_are_renewed(machines: Machines) -> None:
    """One that runs out in the middle of a migration puts that host back under it."""
    with in_use(machines.topology) as lab:
        lab.renew(longer_s=60)
    for machine in machines.by_name.values():
        assert machine.changes == [f"lease for {LEASE_SECONDS + 60} s"]


def test_a_guest_moves_between_the_first_two_hosts(machines: Machines) -> None:
    """In the order of the topology, so that source and destination are the same each time."""
    one = machines.topology.model_copy(update={"hosts": {"alder": ENTRY}})
    with in_use(machines.topology) as lab:
        assert lab.pair() == ("alder", "birch")
    with in_use(one) as lab, pytest.raises(UsageError, match="has one host"):
        lab.pair()


def test_what_ran_is_told_of_each_host(machines: Machines) -> None:
    """A figure without kernel, QEMU, driver and firmware cannot be compared with any other."""
    told = "driver: ixgbe\nversion: 6.12.1\nfirmware-version: 0x8000 1.2\nbus-info: x\n"
    for name, version in (("alder", "10.0.1"), ("birch", "10.0.2")):
        programs = machines.by_name[name].programs
        programs["qemu-system-x86_64"] = partial(
            says, f"QEMU emulator version {version} (Debian)\nCopyright\n"
        )
        programs["ethtool"] = partial(says, told)
    with in_use(machines.topology) as lab:
        hosts = provenance(lab).hosts
    assert hosts["birch"].qemu == "QEMU emulator version 10.0.2 (Debian)"
    alder = hosts["alder"]
    assert json.loads(alder.model_dump_json()) == {
        "kernel": "6.12",
        "qemu": "QEMU emulator version 10.0.1 (Debian)",
        "pf_driver": "ixgbe 6.12.1",
        "pf_device": "8086:10fb",
        "firmware": "0x8000 1.2",
    }
