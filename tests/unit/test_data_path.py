"""The data path, on a wire of its own: what arrives, what is missing, and who is to blame."""

from __future__ import annotations

import os
import shutil
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest
from hand_clock import HandClock
from wire import Measured, Wire, datagram, laid, packet_socket_in, receiver_spec, sender_spec

from harness.agent import packet_socket, payload
from harness.agent.errors import AgentError
from harness.agent.records import RECEIVED
from harness.analysis.measured import Direction
from harness.errors import WaitError
from harness.remote.transport import HostGoneError
from harness.traffic.flow import Flow
from harness.traffic.running import RunningFlow, start
from harness.waiting import let_pass

pytestmark = pytest.mark.skipif(
    os.geteuid() != 0 or shutil.which("ip") is None,
    reason="needs root and iproute2: it makes network namespaces",
)

INTERVAL_NS = 2_000_000


@pytest.fixture
def wire(tmp_path: Path) -> Iterator[Wire]:
    with laid(tmp_path) as wire:
        yield wire


def flow(direction: Direction = "round-trip", frame_bytes: int = 64) -> Flow:
    return Flow(direction, direction, frame_bytes, 1e9 / INTERVAL_NS, number=7)


def run_flow(flow: Flow, wire: Wire, meanwhile: Callable[[RunningFlow], None]) -> Measured:
    """Let a flow run 100 ms before and 100 ms after *meanwhile*, which may wait for it to go on."""
    with start(flow, wire.peer, wire.guest, grace_ms=200) as running:
        let_pass(0.1)
        meanwhile(running)
        let_pass(0.1)
        return Measured(running.stop())


def nothing(_running: RunningFlow) -> None:
    """Do nothing while a flow runs."""


@pytest.mark.parametrize("frame_bytes", [60, 64, 1514, 9014, 9728])
def test_every_frame_comes_back_unharmed(wire: Wire, frame_bytes: int) -> None:
    """A harness that loses, doubles or damages frames by itself would show it here.

    The far kernel checks the ICMP checksum before it answers, so ours is right too; and
    the times would be far apart if a stamp were taken for another clock's.
    """
    measured = run_flow(flow(frame_bytes=frame_bytes), wire, nothing)

    assert measured.numbers == list(measured.sent) == list(range(len(measured.sent)))
    assert len(measured.sent) > 50
    assert {row["flags"] for row in measured.received} == {0}
    for row in measured.received:
        sent_ns = measured.sent[row["sequence"]]["sent_ns"]
        assert row["sent_ns"] == sent_ns - measured.sender.started_ns
        assert 0 < row["received_ns"] - sent_ns < 500_000_000


@pytest.mark.parametrize("direction", ["to-guest", "from-guest"])
def test_a_one_way_flow_arrives_and_provokes_no_answer(wire: Wire, direction: Direction) -> None:
    """Datagrams to a port that nobody holds are answered by ICMP, up to the kernel's limit.

    Such answers would be a second flow on the wire, and would end with the limit.
    """
    measured = run_flow(flow(direction, 1514), wire, nothing)

    end = wire.far if direction == "to-guest" else wire.near
    names, values = (
        line.split() for line in end.run("cat", "/proc/net/snmp").splitlines() if "Icmp:" in line
    )
    assert measured.lost == []
    assert dict(zip(names, values, strict=True))["OutDestUnreachs"] == "0"


def test_a_flow_is_served_while_frames_come_back(wire: Wire) -> None:
    """Whoever stops a flow in the middle of an outage never learns how long it would have been."""
    address = f"{wire.guest.address}/24"
    with start(flow(), wire.peer, wire.guest, grace_ms=200) as running:
        running.wait_until_served(2)
        wire.far.ip("address", "delete", address, "dev", "far")
        let_pass(0.3)
        with pytest.raises(WaitError, match="frames of flow round-trip to arrive"):
            running.wait_until_served(0.3)
        wire.far.ip("address", "add", address, "dev", "far")
        running.wait_until_served(2)
        assert running.stop().receiver.received > 0


def test_what_the_far_end_does_not_answer_is_lost_and_nothing_else(wire: Wire) -> None:
    """The frames that are missing must be those sent while the far end had no address.

    A reader that loses its place, or a number that slips, would name others.
    """
    moments = []

    def stay_silent(_running: RunningFlow) -> None:
        moments.append(time.monotonic_ns())
        wire.far.ip("address", "delete", f"{wire.guest.address}/24", "dev", "far")
        let_pass(0.2)
        wire.far.ip("address", "add", f"{wire.guest.address}/24", "dev", "far")
        moments.append(time.monotonic_ns())

    measured = run_flow(flow(), wire, stay_silent)

    lost, (began_ns, ended_ns) = measured.lost, moments
    assert len(lost) >= 200_000_000 // INTERVAL_NS - 1
    assert lost == list(range(lost[0], lost[-1] + 1)), "one outage, not several"
    assert measured.sent[lost[0]]["sent_ns"] > began_ns - INTERVAL_NS
    assert measured.sent[lost[-1]]["sent_ns"] < ended_ns + INTERVAL_NS
    assert measured.receiver.dropped == 0


def test_a_link_of_ours_that_is_down_is_counted_as_unsent(wire: Wire) -> None:
    """Frames that never left us must not be blamed on the wire, nor vanish from the count.

    The sender is held up first, so that it finds the link down with several frames to send
    at once: each of them counts.  Sender and receiver must both go on once the link is back.
    """

    def cut(running: RunningFlow) -> None:
        sender = wire.near.started[-1].running
        sender.send_signal(signal.SIGSTOP)
        let_pass(0.05)
        wire.near.ip("link", "set", "near", "down")
        sender.send_signal(signal.SIGCONT)
        let_pass(0.1)
        wire.near.ip("link", "set", "near", "up")
        moments.append(time.monotonic_ns())
        let_pass(0.3)  # what arrived before is counted by then
        running.wait_until_served(5)

    moments: list[int] = []

    measured = run_flow(flow(), wire, cut)

    unsent = set(range(max(measured.sent))) - set(measured.sent)
    assert measured.sender.unsent_because == {"ENETDOWN": len(unsent)}
    assert measured.sender.unsent >= 100_000_000 // INTERVAL_NS - 1
    assert measured.receiver.interface_downs == 1
    assert_goes_on(measured, moments[0])


def test_a_flow_follows_an_interface_that_is_replaced(wire: Wire) -> None:
    """A VF that is plugged in again is a new interface of the old name.

    A socket bound to the old one would neither send nor receive ever again.
    """

    def replace(running: RunningFlow) -> None:
        wire.near.ip("link", "delete", "near")
        wire.connect()
        moments.append(time.monotonic_ns())
        let_pass(0.3)  # what arrived before is counted by then
        running.wait_until_served(5)

    moments: list[int] = []
    measured = run_flow(flow(), wire, replace)

    assert measured.sender.unsent > 0
    assert_goes_on(measured, moments[0])


def test_frames_larger_than_the_mtu_are_unsent(wire: Wire) -> None:
    """An MTU that is too small anywhere must show as what it is, not as loss."""
    wire.near.ip("link", "set", "near", "mtu", "1500")

    measured = run_flow(flow(frame_bytes=9014), wire, nothing)

    assert list(measured.sender.unsent_because) == ["EMSGSIZE"]
    assert measured.sender.sent == measured.receiver.received == 0


def test_a_sender_held_up_catches_up_without_a_burst(wire: Wire) -> None:
    """After 200 ms in which it did not run it owes 100 frames, and must not send them at once.

    A burst would overrun a queue on the way, and the loss would look like the migration's.
    Its lateness must show, for that is what makes such a run invalid.
    """

    def hold_up(_running: RunningFlow) -> None:
        sender = wire.near.started[-1].running
        sender.send_signal(signal.SIGSTOP)
        let_pass(0.2)
        sender.send_signal(signal.SIGCONT)
        let_pass(0.3)

    measured = run_flow(flow(), wire, hold_up)

    times = [row["sent_ns"] for row in measured.sent.values()]
    assert list(measured.sent) == list(range(len(times)))
    assert measured.lost == []
    late_ns = [row["sent_ns"] - row["scheduled_ns"] for row in measured.sent.values()]
    assert max(late_ns) > 190_000_000
    assert min(b - a for a, b in zip(times, times[8:], strict=False)) > INTERVAL_NS // 4
    assert min(b - a for a, b in zip(times, times[50:], strict=False)) > 40 * INTERVAL_NS // 2
    assert min(b - a for a, b in zip(times, times[7:], strict=False)) < INTERVAL_NS // 4, (
        "eight at once are allowed, so that fast flows can catch up at all"
    )


def test_frames_that_go_out_are_not_taken_for_frames_that_came(wire: Wire) -> None:
    """A receiver on the sender's own interface would count as arrived what only left."""
    receiver = wire.near.start("receiver", receiver_spec(wire, "datagram", 9014))
    sent = wire.near.start("sender", sender_spec(wire, 500, count=20)).summary(10)["sent"]

    assert (sent, receiver.stop(10)["flows"][0]["received"]) == (20, 0)


def test_a_damaged_frame_is_told_and_located(wire: Wire) -> None:
    """Each kind of damage has its flag and its place; frames of other flows are not ours.

    A check of the checksum only would miss the place; one of the pattern only, the header.
    """
    receiver = wire.near.start("receiver", receiver_spec(wire, "datagram", 9014))
    template = payload.Template(datagram(wire, flow_number=7))
    other = payload.Template(datagram(wire, flow_number=8))

    with packet_socket_in(wire.far, "far") as link:
        for sequence, damage in enumerate((intact, flip(5000), flip(46), cut(4000), intact)):
            frame = template.blank()
            template.fill(frame, sequence, 1000 + sequence)
            link.send(damage(frame))
        other.fill(frame, 5, 0)
        link.send(frame)
    summary = receiver.stop(10)

    rows = list(RECEIVED.iter_unpack(wire.near.fetch(wire.near.scratch("received"))))
    damaged_header = payload.CORRUPTED | payload.HEADER_DAMAGED
    assert [row[:3] for row in rows] == [
        (0, 0, 1000),
        (1, payload.CORRUPTED, 1001),
        (payload.NO_SEQUENCE, damaged_header, 0),
        (3, payload.SHORT, 1003),
        (4, 0, 1004),
    ]
    assert summary["flows"] == [
        {"flow": 7, "received": 5, "corrupted": 2, "short": 1,
         "wrong_at": {"42": 1, "4000": 1, "5000": 1}},
    ]  # fmt: skip


def test_frames_that_the_recorder_throws_away_are_its_own_loss(wire: Wire) -> None:
    """The negative control: a later verdict must be able to tell such a run from a lossy wire."""
    measured = run_flow(replace(flow(), drop_every=10), wire, nothing)

    assert measured.receiver.dropped == len(measured.sent) // 10
    assert measured.lost == list(range(9, len(measured.sent), 10))


def test_frames_that_found_no_room_are_counted_one_by_one(wire: Wire) -> None:
    """A receiver that does not run while its buffer overflows loses frames, and says how many."""
    receiver = wire.far.start("receiver", receiver_spec(wire, "datagram", 9014, "far"))
    receiver.running.send_signal(signal.SIGSTOP)
    sent = wire.near.start("sender", sender_spec(wire, 30_000, count=12_000)).summary(20)["sent"]
    receiver.running.send_signal(signal.SIGCONT)
    summary = receiver.stop(20)

    assert summary["receiver_dropped"] > 0
    assert summary["flows"][0]["received"] + summary["receiver_dropped"] == sent == 12_000


@pytest.mark.parametrize("broken", [True, False], ids=["in an error", "by itself"])
def test_a_flow_that_cannot_be_stopped_never_hides_what_broke_before(
    wire: Wire, monkeypatch: pytest.MonkeyPatch, broken: bool
) -> None:
    """The guest that it ends in is gone: that is told beside the error, or is the error."""

    def break_off() -> None:
        with start(flow(), wire.peer, wire.guest, grace_ms=0) as running:
            stop = running._stop_recorders

            def stop_and_fail() -> None:
                stop()
                raise HostGoneError("guest", "went away")

            monkeypatch.setattr(running, "_stop_recorders", stop_and_fail)
            if broken:
                raise ValueError("what broke the test")

    with pytest.raises(ValueError if broken else HostGoneError) as failed:
        break_off()
    told = getattr(failed.value, "__notes__", [])
    assert told == ["flow round-trip could not be stopped: guest: went away"] * broken


def test_a_missing_interface_is_an_error_that_names_it() -> None:
    link = packet_socket.ReceivingSocket("no-such-link", [7])
    with closing(link), pytest.raises(AgentError, match="no interface no-such-link"):
        link.bind()


def test_a_wall_clock_that_is_set_shows_in_the_summary(monkeypatch: pytest.MonkeyPatch) -> None:
    """The kernel stamps by the wall clock: one that jumped makes times of arrival wrong."""
    moment = HandClock.of(monkeypatch, packet_socket)
    clock = packet_socket.StampClock()
    moment.go_on(1)
    moment.wall_ahead_ns += 5_000_000
    clock.sample()
    assert clock.moved_ns == 5_000_000
    assert clock.to_monotonic(moment.time_ns()) == moment.monotonic_ns()


def assert_goes_on(measured: Measured, since_ns: int) -> None:
    """Frames were sent after *since_ns*, and the last that was sent arrived."""
    last = max(measured.sent)
    assert measured.sent[last]["sent_ns"] > since_ns
    assert measured.numbers[-1] == last


Damage = Callable[[bytearray], bytearray]


def intact(frame: bytearray) -> bytearray:
    return frame


def flip(position: int) -> Damage:
    def damage(frame: bytearray) -> bytearray:
        frame[position] ^= 0x10
        return frame

    return damage


def cut(length: int) -> Damage:
    def damage(frame: bytearray) -> bytearray:
        return frame[:length]

    return damage
