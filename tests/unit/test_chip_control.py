"""A chip answers and obeys while it runs, and a check sees each fault that it is told of."""

from __future__ import annotations

import json
import select
import socket
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from port_driver import PEER_MAC, PORT_MAC, Port
from vf_of_port import PortVf, mac_of
from vf_rings import frame_of

from harness.chip.control import Control
from harness.twin.control import ControlConnection
from harness.twin.dma_log import HEAD, MISBEHAVED, RECORD, DmaLog
from harness.uapi.ixgbe_pf import VFLRE, Links, Register, Row
from harness.uapi.ixgbe_vf import Link, Mailbox
from harness.uapi.ixgbe_vf import Register as VfRegister
from harness.uapi.pci_regs import Command

Say = Callable[..., Any]


@pytest.fixture
def say(port: Port) -> Iterator[Say]:
    """Yield what says a word to the chip and returns its reply, or raises LookupError."""
    near, far = socket.socketpair()
    connection = ControlConnection(far, Control([port.chip], lambda name: name == "port0"))

    def say(word: str, **arguments: object) -> Any:
        near.sendall(json.dumps({"do": word, **arguments}).encode() + b"\n")
        assert connection.serve()
        reply = json.loads(near.recv(1 << 16))
        if "error" in reply:
            raise LookupError(reply["error"])
        return reply["ok"]

    yield say
    near.close()
    assert not connection.serve()
    connection.close()


def frame(to: bytes, source: bytes = PEER_MAC) -> bytes:
    return frame_of(100, head=to + source)


# --- asked ----------------------------------------------------------------------------------


def test_the_status_tells_of_port_filters_and_vfs(say: Say, port: Port, vfs: list[PortVf]) -> None:
    vfs[0].add_vlan(7)
    vfs[1].enable(False)
    port.hear(frame(mac_of(0)), frame(mac_of(9)))
    vfs[0].tx.send(frame(PEER_MAC, mac_of(3)))
    (told,) = say("status")["ports"]
    assert (told["client"], told["link_up"], told["link_mbit"]) == (True, True, 10_000)
    assert (told["drops"], told["queues"], told["largest_frame"]) == ({"address": 1}, 1, 1518)
    assert told["filters"]["addresses"] == {
        PORT_MAC.hex(":"): [4], mac_of(0).hex(":"): [0], mac_of(1).hex(":"): [1],
    }  # fmt: skip
    assert told["filters"]["vlans"] == {"0": [0, 1, 4], "7": [0]}
    assert [each["receives"] for each in told["vfs"]] == [True, False, False, False]
    first = told["vfs"][0]
    assert (first["command"], first["queues"], first["sends"]) == (Command.MEMORY | 4, 1, True)
    assert (first["statistics"]["received"], first["statistics"]["spoofed"]) == (1, 1)
    assert first["dma"] == {"records": None, "dropped": 0, "faults": 0, "maps": 1, "refusals": 0}
    assert not first["client"]


def test_a_status_changes_nothing(say: Say, port: Port, vfs: list[PortVf]) -> None:
    """Status leaves counters that a read clears, and mailboxes, as they are."""
    port.hear(frame(mac_of(0)))
    vfs[0].function.write(VfRegister.VFMAILBOX, Mailbox.REQ)
    for _ in range(2):
        say("status")
    assert port.read(Register.GPRC) == 1
    assert port.read(Row.MBVFICR.at(0)) == 1


def test_the_cable_can_be_pulled_and_plugged_in(say: Say, port: Port, vfs: list[PortVf]) -> None:
    """Port and VFs see it, and the wire gets nothing and gives nothing meanwhile."""
    say("set_link", port=0, up=False)
    vfs[0].tx.send(frame(PEER_MAC, mac_of(0)))
    port.hear(frame(mac_of(0)))
    assert (port.sent, vfs[0].got(), port.read(Register.LINKS)) == ([], [], 0)
    assert vfs[0].function.read(VfRegister.VFLINKS) == 0
    say("set_link", port=0, up=True, mbit=1000)
    assert not port.chip.link.is_up, "it trains"
    begin = time.monotonic()
    while not port.chip.link.is_up:
        select.select([], [], [], port.turn())
        assert time.monotonic() - begin < 5
    assert port.read(Register.LINKS) == Links.UP | Links.SPEED_1G
    assert vfs[0].function.read(VfRegister.VFLINKS) == Link.UP | Link.SPEED_1G


@pytest.mark.parametrize(
    ("word", "arguments", "said"),
    [
        ("set_link", {"port": 1, "up": True}, "there is no port 1"),
        ("set_link", {"port": 0, "up": True, "mbit": 7}, "no link of 7 Mbit/s"),
        ("set_link", {"port": "0", "up": True}, "port is '0'"),
        ("misbehave", {"port": 0, "vf": 4}, "port 0 has no VF 4: 4 are enabled"),
        ("misbehave", {"port": 0, "ignores_bme": True}, "no such fault: ignores_bme"),
        ("misbehave", {"port": 0, "vf": 0, "silent_mailbox": True}, "no such fault"),
        ("misbehave", {"port": 0, "loses": -1}, "a fault is a number"),
        ("explode", {}, "there is no 'explode'"),
        ("_port", {"number": 0}, "there is no '_port'"),
    ],
)
def test_nonsense_is_refused_in_words(
    say: Say, word: str, arguments: dict[str, object], said: str
) -> None:
    with pytest.raises(LookupError, match=said):
        say(word, **arguments)


# --- faults, each with a check that sees it -------------------------------------------------


def misbehaved(path: Path) -> list[int]:
    """Return the addresses that the DMA log says were written without the right to."""
    content = path.read_bytes()
    count, *_ = HEAD.unpack_from(content)
    records = RECORD.iter_unpack(content[HEAD.size : HEAD.size + count * RECORD.size])
    return [address for _, address, _, kind, _ in records if kind & MISBEHAVED]


def test_a_vf_that_writes_without_bus_master_enable_is_seen_in_its_log(
    say: Say, port: Port, vfs: list[PortVf], tmp_path: Path
) -> None:
    """Only the log shows the fault; the guest's driver finds a frame like any other."""
    log = DmaLog(str(tmp_path / "dma"), 1000)
    vfs[0].function.memory.log = log
    for ignores in (False, True):
        say("misbehave", port=0, vf=0, ignores_bme=ignores)
        vfs[0].set_master(False)
        port.hear(frame(mac_of(0)))
        log.settle()
        assert bool(misbehaved(tmp_path / "dma")) == ignores
        assert [each.data for each in vfs[0].rx.took()] == ([frame(mac_of(0))] if ignores else [])
    vfs[0].function.memory.log = None
    log.close()


def test_a_filter_that_leaks_gives_a_vf_anothers_frames(
    say: Say, port: Port, vfs: list[PortVf]
) -> None:
    """A test of isolation looks at the addresses of what a VF gets; from the wire and the port."""

    def strange() -> list[bytes]:
        port.hear(frame(mac_of(0)))
        port.tx[0].send(frame(mac_of(0), PORT_MAC))
        return [each for each in vfs[1].got() if each[:6] != mac_of(1)]

    assert strange() == []
    say("misbehave", port=0, vf=1, hears_all=True)
    assert len(strange()) == 2
    say("misbehave", port=0, vf=0)
    assert len(strange()) == 2, "another VF is good, and this one is not"
    say("misbehave", port=0, vf=1)
    assert strange() == []


def test_a_port_that_never_answers_leaves_a_vf_without_an_acknowledgement(
    say: Say, port: Port, vfs: list[PortVf]
) -> None:
    """The driver of the VF polls for PFACK, and gives up ("PF still in reset state")."""
    function = vfs[0].function
    port.write(Row.MBVFICR.at(0), 0xFFFFFFFF)
    say("misbehave", port=0, silent_mailbox=True)
    function.write(VfRegister.VFMAILBOX, Mailbox.REQ)
    assert port.read(Row.MBVFICR.at(0)) == 0
    say("misbehave", port=0)
    function.write(VfRegister.VFMAILBOX, Mailbox.REQ)
    assert port.read(Row.MBVFICR.at(0)) == 1


def test_a_lost_reset_leaves_the_filter_of_a_vf_that_is_gone(
    say: Say, port: Port, vfs: list[PortVf]
) -> None:
    """The driver's interrupt never comes, so that nothing is taken out (ixgbe_vf_reset_event)."""
    port.write(Row.VFLREC.at(0), 0xF)
    say("misbehave", port=0, loses_resets=True)
    vfs[0].function.reset()
    assert port.read(VFLRE[0]) == 0
    assert say("status")["ports"][0]["filters"]["addresses"][mac_of(0).hex(":")] == [0]
    say("misbehave", port=0)
    vfs[1].function.reset()
    assert port.read(VFLRE[0]) == 0b10


def test_as_many_interrupts_are_lost_as_asked(say: Say, port: Port) -> None:
    say("misbehave", port=0, loses=3)
    say("misbehave", port=0, vf=2, loses=5)
    assert (port.chip.interrupts.lost, port.chip.vfs[2].interrupts.lost) == (3, 5)


def test_late_and_corrupted_frames_get_in_as_told(
    say: Say, port: Port, vfs: list[PortVf], tmp_path: Path
) -> None:
    """The loop writes late frames, when the ring may have another owner."""
    log = DmaLog(str(tmp_path / "dma"), 1000)
    vfs[0].function.memory.log = log
    say("misbehave", port=0, vf=0, corrupts=1)
    port.hear(frame(mac_of(0)))
    (wrong,) = vfs[0].rx.took()
    assert wrong.data[:-1] == frame(mac_of(0))[:-1]
    assert wrong.data != frame(mac_of(0))
    say("misbehave", port=0, vf=0, late_ms=5)
    port.hear(frame(mac_of(0)))
    assert vfs[0].rx.took() == []
    vfs[0].set_master(False)
    begin = time.monotonic()
    while not (late := vfs[0].rx.took()):
        select.select([], [], [], port.turn())
        assert time.monotonic() - begin < 5
    assert [each.data for each in late] == [frame(mac_of(0))]
    log.settle()
    assert misbehaved(tmp_path / "dma")
    vfs[0].function.memory.log = None
    log.close()
