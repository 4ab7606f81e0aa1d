"""Recorder `receiver`: takes in the numbered frames of some flows and checks every byte.

The spec::

    interface   by name
    flows       [{flow, kind (echo-reply or datagram), payload_bytes, path}], path being that of
                a file of `received` records, see records
    absorb      UDP ports to hold open and never read: else the kernel answers datagrams with
                ICMP "port unreachable" ([])
    linger_ms   how long to go on for late frames once told to end (1000)
    drop_every  throw away each n-th frame and say so, as an overrun receiver does: tests use it
                to show that such a run is not judged (none)
"""

from __future__ import annotations

import select
import socket
import time
from collections import Counter
from contextlib import ExitStack, closing
from typing import Any

from harness.agent import payload
from harness.agent.channel import Channel
from harness.agent.packet_socket import ROOM_BYTES, ReceivingSocket, StampClock
from harness.agent.records import RECEIVED, RecordWriter

_HOUSEKEEPING_NS = 100_000_000
_HURRY_NS = 1_000_000  # between looks for an interface that went down and may come back anew
_FRAMES_AT_ONCE = 512  # then look at the channel and the clocks
_LONGEST_DRAIN_NS = 5_000_000_000
_POSITIONS = 64


def main(spec: dict[str, Any], channel: Channel) -> dict[str, Any]:
    """Receive until the channel ended, then until late frames had their time.

    The summary::

        flows               [{flow, received, corrupted, short, wrong_at}]; wrong_at says how often
                            which byte of a frame (from 0) was the first wrong one: {"5042": 3}
        receiver_dropped    frames for which the socket had no room: our own loss, not the wire's
        backlog_dropped     packets of any kind that this machine's kernel dropped between
                            interface and socket (/proc/net/softnet_stat)
        clock_moved_ns      how far the wall clock, by which the kernel stamps, moved meanwhile
        interface_downs     how often the interface went down; one that comes back as a new one
                            of the same name is bound to anew within a millisecond or so
        started_ns, ended_ns   monotonic
    """
    with ExitStack() as stack:
        for port in spec.get("absorb", []):
            stack.enter_context(_absorber(port))
        link = ReceivingSocket(spec["interface"], [flow["flow"] for flow in spec["flows"]])
        stack.enter_context(closing(link))
        accounts = [
            Account(flow, stack.enter_context(closing(RecordWriter(flow["path"], RECEIVED))))
            for flow in spec["flows"]
        ]
        receiving = Receiving(link, accounts, spec.get("drop_every", 0))
        link.bind()
        channel.ready(started_ns=receiving.started_ns, buffer_bytes=link.buffer_bytes)
        receiving.run(channel, spec.get("linger_ms", 1000) * 1_000_000)
        return receiving.summary()


class Account:
    """What came of one flow."""

    def __init__(self, flow: dict[str, Any], records: RecordWriter) -> None:
        self.flow: int = flow["flow"]
        self.kind: str = flow["kind"]
        self._reader = payload.Reader(self.flow, flow["payload_bytes"])
        self._records = records
        self._received = 0
        self._corrupted = 0
        self._short = 0
        self._wrong_at: Counter[int] = Counter()

    def add(self, frame: bytearray, place: payload.Place, received_ns: int) -> None:
        """Check one frame of the flow and write its record."""
        sequence, sent_ns, flags, wrong_at = self._reader.read(frame, place)
        self._records.add(sequence, flags, sent_ns, received_ns)
        self._received += 1
        if flags and wrong_at is not None:
            self._corrupted += bool(flags & payload.CORRUPTED)
            self._short += bool(flags & payload.SHORT)
            if wrong_at in self._wrong_at or len(self._wrong_at) < _POSITIONS:
                self._wrong_at[wrong_at] += 1

    def flush(self) -> None:
        """Write the records of what has come so far."""
        self._records.flush()

    def summary(self) -> dict[str, Any]:
        return {
            "flow": self.flow,
            "received": self._received,
            "corrupted": self._corrupted,
            "short": self._short,
            "wrong_at": {str(position): n for position, n in sorted(self._wrong_at.items())},
        }


class Receiving:
    """The receiving of all flows of one interface."""

    def __init__(self, link: ReceivingSocket, accounts: list[Account], drop_every: int) -> None:
        self._link = link
        self._accounts: dict[tuple[str, int | None], Account] = {
            (account.kind, account.flow): account for account in accounts
        }
        self._drop_every = drop_every
        self._ours = 0
        self._thrown_away = 0
        self._downs_seen = 0
        self._clock = StampClock()
        self._backlog_before = _backlog_dropped()
        self._buffer = bytearray(ROOM_BYTES)
        self.started_ns = time.monotonic_ns()

    def run(self, channel: Channel, linger_ns: int) -> None:
        """Take frames in until the channel ended, *linger_ns* passed and none is left."""
        poll = select.poll()
        poll.register(self._link, select.POLLIN)
        poll.register(channel, select.POLLIN)
        last_ns: int | None = None
        looked_ns = time.monotonic_ns()
        while True:
            pause_ns = _HOUSEKEEPING_NS if self._link.downs == self._downs_seen else _HURRY_NS
            poll.poll(pause_ns // 1_000_000)
            emptied = self._take_in()
            now_ns = time.monotonic_ns()
            if now_ns >= looked_ns + pause_ns:
                looked_ns = now_ns
                self._look_around()
            if last_ns is None and channel.ended():
                last_ns = now_ns + linger_ns
                poll.unregister(channel)
            if last_ns is not None and (
                (now_ns >= last_ns and emptied) or now_ns >= last_ns + _LONGEST_DRAIN_NS
            ):
                return

    def _take_in(self) -> bool:
        """Take in what has come, up to _FRAMES_AT_ONCE; whether that was all."""
        for _ in range(_FRAMES_AT_ONCE):
            received = self._link.receive_into(self._buffer)
            if received is None:
                return True
            self._take(*received)
        return False

    def _take(self, length: int, stamp_ns: int) -> None:
        place = payload.locate(self._buffer, length)
        if place is None:
            return
        account = self._accounts.get((place.kind, payload.peek(self._buffer, place)))
        if account is None:
            return
        self._ours += 1
        self._downs_seen = self._link.downs
        if self._drop_every and self._ours % self._drop_every == 0:
            self._thrown_away += 1
            return
        account.add(self._buffer, place, self._clock.to_monotonic(stamp_ns))

    def _look_around(self) -> None:
        for account in self._accounts.values():
            account.flush()  # whoever waits for a flow to be served sees its file grow
        self._link.count_drops()
        self._link.follow()
        self._clock.sample()

    def summary(self) -> dict[str, Any]:
        self._look_around()
        return {
            "flows": [account.summary() for account in self._accounts.values()],
            "receiver_dropped": self._link.dropped + self._thrown_away,
            "backlog_dropped": _backlog_dropped() - self._backlog_before,
            "clock_moved_ns": self._clock.moved_ns,
            "interface_downs": self._link.downs,
            "started_ns": self.started_ns,
            "ended_ns": time.monotonic_ns(),
        }


def _absorber(port: int) -> socket.socket:
    """Open a UDP port that swallows what comes; the kernel drops what finds no room."""
    absorber = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    absorber.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # two flows may share a port
    absorber.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1)
    absorber.bind(("", port))
    return absorber


def _backlog_dropped() -> int:
    """Sum of the second column of softnet_stat, one line per CPU, in hex."""
    with open("/proc/net/softnet_stat", encoding="ascii") as lines:
        return sum(int(line.split()[1], 16) for line in lines)
