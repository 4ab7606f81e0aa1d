"""What a twin does wrong when it is told to: that fault and no other, and none once it is over."""

from __future__ import annotations

import json
import os
import signal
import socket
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from descriptors import eventfds, signals
from scapy.layers.inet import IP, UDP
from scapy.layers.l2 import Ether
from vf_driver import Guest, guest_with_vf
from vf_rings import MAC, PEER, frame_of

from harness.twin.control import Control, ControlConnection
from harness.twin.dma_log import HEAD, MISBEHAVED, Kind
from harness.uapi.ixgbe_vf import (
    CLEAR_TO_SEND,
    SUCCESS,
    Mailbox,
    Message,
    QueueRegister,
    Register,
    RxStatus,
    VfControl,
)
from harness.waiting import wait_for

OUT = frame_of(60, head=PEER + MAC)
LPE_DONE = Message.SET_LPE | SUCCESS | CLEAR_TO_SEND
HOUR_MS = 3_600_000

Tell = Callable[..., Any]


@pytest.fixture
def guest(tmp_path: Path) -> Iterator[Guest]:
    with guest_with_vf(tmp_path / "dma.log", port_mtu=9000) as guest:
        guest.start(mtu=9000)
        yield guest


@pytest.fixture
def tell(guest: Guest) -> Iterator[Tell]:
    """Say a word to the twin over its control socket, as those who run it do; its reply."""
    near, far = socket.socketpair()
    connection = ControlConnection(far, Control(guest.device, lambda: True))

    def tell(word: str, **arguments: Any) -> Any:
        near.sendall(json.dumps({"do": word, **arguments}).encode() + b"\n")
        assert connection.serve()
        return json.loads(near.recv(1 << 16))

    yield tell
    connection.close()
    near.close()


def take(guest: Guest, *frames: bytes) -> None:
    """Frames from the wire, before the program's loop does anything else."""
    for frame in frames:
        guest.device.receive(memoryview(frame))


def until_nothing_is_late(guest: Guest) -> None:
    def look() -> bool:
        guest.turn()
        return not guest.device.has_late_work

    wait_for("what is late", look, within=5, every_s=0)


# --- ignores_bme ----------------------------------------------------------------------------


def test_it_goes_on_without_bus_master_enable(guest: Guest, tell: Tell) -> None:
    """Frames come and go; the log says of each write that it was none of the device's."""
    tell("misbehave", ignores_bme=True)
    tell("set_bus_master", on=False)
    before = len(guest.records())
    guest.hear(frame_of(60))
    guest.tx[0].send(OUT)
    assert [got.data for got in guest.rx[0].took()] == [frame_of(60)]
    assert (guest.sent, guest.tx[0].done()) == ([OUT], [0])
    kinds = [each.kind for each in guest.records()[before:]]
    assert kinds == [
        Kind.RX_DESCRIPTOR, Kind.RX_DATA | MISBEHAVED, Kind.RX_WRITEBACK | MISBEHAVED,
        Kind.TX_DESCRIPTOR, Kind.TX_DATA, Kind.TX_WRITEBACK | MISBEHAVED,
    ]  # fmt: skip


def test_what_it_may_do_is_no_misbehaviour(guest: Guest, tell: Tell) -> None:
    """With Bus Master Enable set a twin that would ignore it writes as it should."""
    tell("misbehave", ignores_bme=True)
    guest.hear(frame_of(60))
    assert not any(each.kind & MISBEHAVED for each in guest.records())


def test_it_stops_once_it_is_good_again(guest: Guest, tell: Tell) -> None:
    tell("misbehave", ignores_bme=True)
    tell("set_bus_master", on=False)
    guest.hear(frame_of(60))
    tell("misbehave")
    before, records = guest.memory[:], guest.records()
    guest.hear(frame_of(60))
    guest.tx[0].write(QueueRegister.TAIL, 1)
    assert (guest.memory[:], guest.records(), guest.sent) == (before, records, [])


# --- late_ms --------------------------------------------------------------------------------


def test_a_frame_gets_into_memory_so_much_later(guest: Guest, tell: Tell) -> None:
    """Whole, in its order, and with its interrupt, which is not earlier than the frame."""
    tell("misbehave", late_ms=20)
    before, began_ns = guest.memory[:], time.monotonic_ns()
    with eventfds(1) as (end,):
        guest.device.interrupts.connect(0, os.dup(end))
        take(guest, frame_of(9014), frame_of(60, 1))
        guest.device.receiver.settle()
        assert (guest.memory[:], signals(end)) == (before, [0])
        until_nothing_is_late(guest)
        assert signals(end)[0] in (1, 2)  # both frames are due at once only if we were quick
        guest.device.interrupts.disconnect()
    assert [got.data for got in guest.rx[0].took()] == [frame_of(9014), frame_of(60, 1)]
    writes = [each for each in guest.records() if each.kind >= Kind.RX_DATA]
    assert min(each.time_ns for each in writes) - began_ns >= 20_000_000
    assert [each.kind for each in writes] == [
        *[Kind.RX_DATA] * 5, *[Kind.RX_WRITEBACK] * 5, Kind.RX_DATA, Kind.RX_WRITEBACK,
    ]  # fmt: skip


@pytest.mark.parametrize("how", ["BME", "off", "reset"])
def test_a_late_frame_is_written_whatever_has_become_of_the_ring(
    guest: Guest, tell: Tell, how: str
) -> None:
    """The log says that it had no right to; that is over when the write is."""
    tell("misbehave", late_ms=1)
    take(guest, frame_of(60))
    {
        "BME": lambda: guest.set_master(False),
        "off": lambda: guest.rx[0].write(QueueRegister.DCTL, 0),
        "reset": lambda: guest.device.write(Register.VFCTRL, VfControl.RST),
    }[how]()
    until_nothing_is_late(guest)
    assert [got.data for got in guest.rx[0].took()] == [frame_of(60)]
    wrong = [each.kind for each in guest.records() if each.kind & MISBEHAVED]
    assert wrong == [Kind.RX_DATA | MISBEHAVED, Kind.RX_WRITEBACK | MISBEHAVED]
    assert not guest.device.misbehaviour.misbehaved or how == "BME"
    assert guest.device.misbehaviour.is_open == (how != "BME")


def test_later_frames_are_in_time_once_it_is_good_again(guest: Guest, tell: Tell) -> None:
    """The one that is late already still is: it is on its way."""
    tell("misbehave", late_ms=HOUR_MS)
    guest.hear(frame_of(60))
    tell("misbehave")
    guest.hear(frame_of(60, 1))
    second = guest.rx[0].buffer(1)
    assert guest.memory[second : second + 60] == frame_of(60, 1)
    assert guest.rx[0].took() == []
    assert guest.device.has_late_work


# --- loses, corrupts ------------------------------------------------------------------------


@pytest.mark.parametrize(("again", "lost"), [(False, 2), (True, 0)])
def test_so_many_of_the_next_interrupts_get_lost(
    guest: Guest, tell: Tell, again: bool, lost: int
) -> None:
    """Nothing but the message: the frame is there, and the next interrupt comes."""
    with eventfds(1) as (end,):
        guest.device.interrupts.connect(0, os.dup(end))
        tell("misbehave", loses=2)
        if again:
            tell("misbehave")
        came = []
        for number in range(4):
            guest.hear(frame_of(60, number))
            came += signals(end)
        guest.device.interrupts.disconnect()
    assert came == [0] * lost + [1] * (4 - lost)
    assert len(guest.rx[0].took()) == 4


@pytest.mark.parametrize("size", [60, 9014])
def test_so_many_of_the_next_frames_have_a_wrong_byte(guest: Guest, tell: Tell, size: int) -> None:
    """One each, in memory alone; as long as before, and with the others as they were."""
    tell("misbehave", corrupts=2)
    guest.hear(*(frame_of(size, number) for number in range(3)))
    wrong = []
    for number, got in enumerate(guest.rx[0].took()):
        pairs = zip(got.data, frame_of(size, number), strict=True)
        wrong.append(sum(one != another for one, another in pairs))
    assert wrong == [1, 1, 0]


def test_a_wrong_byte_is_hidden_from_the_driver(guest: Guest, tell: Tell) -> None:
    """Its checksum was right on the wire, so the stack hands it on: only a payload tells."""
    tell("misbehave", corrupts=1)
    frame = bytes(Ether(dst=MAC.hex(":")) / IP(dst="192.0.2.1") / UDP() / bytes(100))
    guest.hear(frame)
    (got,) = guest.rx[0].took()
    assert got.data != frame
    assert got.status & (RxStatus.L4CS | RxStatus.TCPE) == RxStatus.L4CS


def test_no_frame_is_wrong_any_more_once_it_is_good_again(guest: Guest, tell: Tell) -> None:
    tell("misbehave", corrupts=5)
    tell("misbehave")
    guest.hear(frame_of(60))
    assert [got.data for got in guest.rx[0].took()] == [frame_of(60)]


# --- the mailbox ----------------------------------------------------------------------------


def test_the_mailbox_answers_so_much_later(guest: Guest, tell: Tell) -> None:
    """What was asked for is done; a driver that waits no longer than it does takes it for no."""
    tell("misbehave", late_mailbox_ms=20)
    began_ns = time.monotonic_ns()
    guest.post(Message.SET_LPE, 9018)
    reply = wait_for("the reply", guest.reply, within=5, every_s=0)
    assert time.monotonic_ns() - began_ns >= 20_000_000
    assert reply == LPE_DONE
    tell("misbehave", late_mailbox_ms=HOUR_MS)
    guest.post(Message.SET_LPE, 9018)
    assert (guest.reply(), guest.device.has_late_work) == (None, True)


def test_the_mailbox_never_answers(guest: Guest, tell: Tell) -> None:
    """Nor does it take the message, or tell of a change of the link; waiting is of no use."""
    tell("misbehave", silent_mailbox=True)
    guest.device.read(Register.VFMAILBOX)
    guest.post(Message.SET_LPE, 9018)
    tell("set_link", up=False)
    assert not guest.device.read(Register.VFMAILBOX) & (Mailbox.PFACK | Mailbox.PFSTS)
    assert not guest.device.has_late_work


@pytest.mark.parametrize("fault", [{"late_mailbox_ms": HOUR_MS}, {"silent_mailbox": True}], ids=str)
def test_the_mailbox_answers_at_once_when_it_is_good_again(
    guest: Guest, tell: Tell, fault: dict[str, int]
) -> None:
    """A reply that is late still neither holds the new one back nor comes after it."""
    tell("misbehave", **fault)
    guest.post(Message.SET_MAC_ADDR, 0, 0)
    tell("misbehave")
    assert guest.ask(Message.SET_LPE, 9018) == LPE_DONE
    assert not guest.device.has_late_work


# --- the end, and what is none of these -----------------------------------------------------


def test_it_dies_and_leaves_its_log(guest: Guest, tell: Tell, tmp_path: Path) -> None:
    """At once, without a chance to tidy up: what it wrote until then can still be known."""
    child = os.fork()
    if not child:
        guest.hear(frame_of(60))
        tell("misbehave", dies=True)
        os._exit(1)  # it lives: this is no second run of the tests
    _, status = os.waitpid(child, 0)
    assert os.waitstatus_to_exitcode(status) == -signal.SIGKILL
    assert [got.data for got in guest.rx[0].took()] == [frame_of(60)]
    assert HEAD.unpack_from((tmp_path / "dma.log").read_bytes())[0] == 3


def test_one_fault_takes_anothers_place(guest: Guest, tell: Tell) -> None:
    """A check is of one fault; what is left of the one before would be found instead of it."""
    tell("misbehave", corrupts=9, ignores_bme=True, late_ms=HOUR_MS, loses=9, silent_mailbox=True)
    tell("misbehave", corrupts=1)
    guest.hear(frame_of(60), frame_of(60, 1))
    assert [got.data[-1] ^ 0xFF for got in guest.rx[0].took()][:1] == [frame_of(60)[-1]]
    assert guest.ask(Message.SET_LPE, 9018) == LPE_DONE
    assert guest.device.interrupts.lost == 0
    guest.set_master(False)
    guest.hear(frame_of(60))
    assert guest.device.statistics.missed == 1


def test_a_fault_that_there_is_not_is_refused(tell: Tell) -> None:
    """Misspelt, a check would pass because nothing was wrong."""
    assert tell("misbehave", corrupt=1) == {"error": "no such fault: corrupt"}
