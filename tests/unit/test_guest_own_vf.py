"""The VF that a guest makes for itself: its COMMAND as QEMU's monitor tells it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import closing
from types import SimpleNamespace
from typing import Any, cast

import pytest
from qmp_server import Monitor

from harness.errors import GuestError, MigrationError
from harness.guest.command_line import PORT_MAC
from harness.guest.instance import Instance
from harness.guest.own_vf import OwnVf, ecam_address, make_own_vf, register_in
from harness.guest.qmp import Qmp
from harness.remote import Host
from harness.topology import PciAddress
from harness.uapi.pci_regs import NO_ANSWER

VF = OwnVf(PciAddress("0000:02:10.0"), "eth2")
ANSWERS = {
    "b0280004: 0x0406\r\n": 0x0406,
    "00000000b0280004: 0x0000\r\n": 0,
    "b0280004: 0xffff\r\n": NO_ANSWER,
    "b0280004: Cannot access memory\r\n": NO_ANSWER,
}


@pytest.fixture
def qemu() -> Iterator[Monitor]:
    with closing(Monitor()) as qemu:
        qemu.reacts["human-monitor-command"] = lambda _: "b0280004: 0x0406\r\n"
        yield qemu


@pytest.fixture
def instance(qemu: Monitor) -> Iterator[Instance]:
    """An instance on a host whose clock is 7 ns further each time."""
    clock = iter(range(100, 1000, 7))
    host = SimpleNamespace(name="alder", ask=lambda _: {"monotonic_ns": next(clock)})
    with closing(Qmp("alder", qemu.near)) as monitor:
        nothing = cast(Any, None)
        yield Instance(nothing, None, nothing, cast("Host", host), 1, monitor)


@pytest.mark.parametrize(
    ("pci", "address"),
    [("0000:00:00.0", 0xB0000000), ("0000:02:10.0", 0xB0280000), ("0000:01:1f.7", 0xB01FF000)],
)
def test_a_function_has_its_place_in_memory(pci: str, address: int) -> None:
    """4 KiB each: another function's COMMAND would say that all is well."""
    assert ecam_address(PciAddress(pci)) == address


@pytest.mark.parametrize("answer", ANSWERS)
def test_the_monitors_answer_is_read(answer: str) -> None:
    """The last is of a QEMU in which neither firmware nor a migration has mapped the space yet."""
    assert register_in(answer) == ANSWERS[answer]


@pytest.mark.parametrize("answer", ["", "unknown command: 'xp'\r\n", "b0280004: 0x00100406\r\n"])
def test_what_is_no_register_is_not_taken_for_one(answer: str) -> None:
    """0 is a finding.  Words that were not understood must not become it."""
    with pytest.raises(MigrationError, match="which is no register of 16 bits"):
        register_in(answer)


def test_command_is_asked_of_qemu_and_not_of_the_guest(qemu: Monitor, instance: Instance) -> None:
    assert VF.command(instance) == 0x0406
    (asked,) = [said for command, said in qemu.asked if command == "human-monitor-command"]
    assert asked == {"command-line": "xp /1hx 0xb0280004"}


def test_a_vf_whose_qemu_has_ended_does_not_answer(qemu: Monitor, instance: Instance) -> None:
    """The guest took it with it; that is measured, and is no error of ours."""
    qemu.end()
    assert VF.command(instance) == NO_ANSWER


def test_a_vf_that_does_not_answer_masters_nothing(qemu: Monitor, instance: Instance) -> None:
    """All ones has every bit set, this one too."""
    qemu.reacts["human-monitor-command"] = lambda _: "b0280004: 0xffff\r\n"
    observed = VF.observe(instance).stop()
    assert {(each["command"], each["bme"]) for each in observed.lines} == {(NO_ANSWER, False)}


def test_it_is_read_when_watching_begins_and_when_it_ends(
    qemu: Monitor, instance: Instance
) -> None:
    """A change in between may have come at any time of it: the second sample's gap says so."""
    observing = VF.observe(instance)
    qemu.reacts["human-monitor-command"] = lambda _: "b0280004: 0x0000\r\n"
    observed = observing.stop()
    told = [(each["command"], each["bme"], each["via"], each["gap_ns"]) for each in observed.lines]
    assert told == [(0x0406, True, "monitor", 7), (0, False, "monitor", 7)]
    assert {each["host"] for each in observed.lines} == {"alder"}
    assert observed.summary["events"] == []


@pytest.mark.parametrize("missing", ["port", "interface"])
def test_a_port_or_vf_without_an_interface_is_a_guest_error(missing: str) -> None:
    """A driver that did not load is a reason to boot the guest again, and no traceback."""
    links = [{"address": PORT_MAC, "ifname": "eth1"}] if missing == "interface" else []
    host = SimpleNamespace(
        run=lambda *_: SimpleNamespace(stdout=json.dumps(links)),
        read_text=lambda _: "up",
        write_text=lambda *_: None,
        readlink=lambda _: "../0000:02:10.0",
        exists=lambda _: False,
    )
    spec = SimpleNamespace(mtu=9000, mac="52:54:00:12:34:56", address="198.18.0.2/24")
    machine = SimpleNamespace(name="guest", host=host, instance=SimpleNamespace(spec=spec))
    with pytest.raises(GuestError, match=r"guest: .* interface"):
        make_own_vf(cast("Any", machine))
