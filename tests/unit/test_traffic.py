"""Which recorder of a flow runs where, in which order, and what becomes of it on a failure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import pytest

from harness.analysis.measured import Direction
from harness.errors import RemoteError, UsageError
from harness.traffic.flow import Endpoint, Flow
from harness.traffic.running import start

SENDER = {
    "sent": 3, "unsent": 1, "unsent_because": {"ENETDOWN": 1},
    "started_ns": 10, "ended_ns": 20, "notes": ["a note"],
}  # fmt: skip
RECEIVER = {
    "flows": [{"flow": 7, "received": 2, "corrupted": 1, "short": 0, "wrong_at": {"5000": 1}}],
    "receiver_dropped": 4, "backlog_dropped": 5, "clock_moved_ns": 6, "interface_downs": 0,
    "started_ns": 9, "ended_ns": 30,
}  # fmt: skip


def failure(what: str) -> RemoteError:
    return RemoteError(what, because="a test says so", fix="nothing")


@dataclass
class Machine:
    """A machine that writes down what is asked of it; *refuses* names what it fails at."""

    name: str
    log: list[str]
    refuses: str = ""
    specs: dict[str, Mapping[str, Any]] = field(default_factory=dict)

    def start(self, program: str, spec: Mapping[str, Any]) -> Recording:
        self._note(f"start {program}")
        self.specs[program] = spec
        return Recording(self, program)

    def fetch(self, path: str) -> bytes:
        return f"{self.name}:{path}".encode()

    def scratch(self, name: str) -> str:
        return f"/run/{name}"

    def _note(self, what: str) -> None:
        self.log.append(f"{self.name} {what}")
        if what == self.refuses:
            raise failure(what)


@dataclass
class Recording:
    machine: Machine
    program: str

    @property
    def ready(self) -> Mapping[str, Any]:
        return {}

    def stop(self, seconds: float) -> Mapping[str, Any]:
        assert seconds > 0
        self.machine._note(f"stop {self.program}")
        return SENDER if self.program == "sender" else RECEIVER


class Lab:
    def __init__(self, refuses: str = "") -> None:
        self.log: list[str] = []
        self.machines = [Machine(name, self.log, refuses) for name in ("peer", "guest")]
        self.ends = [
            Endpoint(machine, "eth0", f"02:00:00:00:00:0{n}", f"198.18.0.{n}")
            for n, machine in enumerate(self.machines, start=1)
        ]


def flow(direction: Direction) -> Flow:
    return Flow("users", direction, 9014, 500, number=7)


@pytest.mark.parametrize(
    ("direction", "sender", "receiver"),
    [
        ("round-trip", "peer", "peer"),
        ("to-guest", "peer", "guest"),
        ("from-guest", "guest", "peer"),
    ],
)
def test_the_receiver_is_there_first_and_goes_last(
    direction: Direction, sender: str, receiver: str
) -> None:
    """Otherwise the first or the last frames of every flow would be counted as lost."""
    lab = Lab()

    records = start(flow(direction), *lab.ends).stop()

    assert lab.log == [
        f"{receiver} start receiver",
        f"{sender} start sender",
        f"{sender} stop sender",
        f"{receiver} stop receiver",
    ]
    assert records.sent == f"{sender}:/run/users.sent".encode()
    assert records.received == f"{receiver}:/run/users.received".encode()
    assert records.sender.unsent_because == {"ENETDOWN": 1}
    assert records.receiver.wrong_at == {5000: 1}
    assert records.receiver.dropped == 4


def test_one_way_receivers_hold_the_port_that_frames_go_to() -> None:
    lab = Lab()
    start(flow("to-guest"), *lab.ends).stop()
    start(flow("round-trip"), *lab.ends).stop()
    peer, guest = (machine.specs["receiver"] for machine in lab.machines)

    assert (guest["absorb"], guest["flows"][0]["kind"]) == ([20_007], "datagram")
    assert (peer["absorb"], peer["flows"][0]["kind"]) == ([], "echo-reply")


def test_a_receiver_does_not_outlive_a_sender_that_would_not_start() -> None:
    """It would hold its socket and 64 MiB on the machine until the agent ends."""
    lab = Lab(refuses="start sender")

    with pytest.raises(RemoteError, match="start sender"):
        start(flow("to-guest"), *lab.ends)

    assert lab.log[-1] == "guest stop receiver"


def test_a_receiver_does_not_outlive_a_sender_that_failed() -> None:
    lab = Lab(refuses="stop sender")
    running = start(flow("to-guest"), *lab.ends)

    with pytest.raises(RemoteError, match="stop sender"):
        running.stop()

    assert lab.log[-1] == "guest stop receiver"


def test_a_flow_is_ended_by_an_error_around_it_and_only_once() -> None:
    """A failing migration must not leave senders behind that load the next test's wire."""
    lab = Lab()

    with pytest.raises(RemoteError), start(flow("to-guest"), *lab.ends):
        raise failure("the migration")
    assert lab.log[-2:] == ["peer stop sender", "guest stop receiver"]

    with start(flow("to-guest"), *lab.ends) as running:
        running.stop()
    assert lab.log.count("peer stop sender") == 2


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"name": "../users"}, "no name for a flow"),
        ({"direction": "sideways"}, "no direction 'sideways'"),
        ({"number": 0}, "its number is 0"),
        ({"number": 10_000}, "its number is 10000"),
    ],
)
def test_a_flow_that_cannot_be_is_refused(changes: dict[str, Any], told: str) -> None:
    values = {
        "name": "users", "direction": "to-guest", "frame_bytes": 64, "rate_pps": 1, "number": 1,
    }  # fmt: skip
    with pytest.raises(UsageError, match=told):
        Flow(**{**values, **changes})


def test_a_frame_size_that_cannot_be_starts_nothing() -> None:
    lab = Lab()

    with pytest.raises(UsageError, match="frames of 20 bytes"):
        start(Flow("users", "to-guest", 20, 1, number=1), *lab.ends)

    assert lab.log == []
