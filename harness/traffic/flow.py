"""What a flow is, between which ends it runs, and what is left of it."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from harness.analysis.measured import DIRECTIONS, Direction
from harness.errors import UsageError

LARGEST_NUMBER = 9_999
_FIRST_PORT = 20_000  # below the ports that Linux gives out by itself (32768 and up)
_NAME = re.compile(r"[a-z0-9][a-z0-9-]*")


@dataclass(frozen=True, slots=True)
class Flow:
    """One stream of numbered frames.

    name         lower-case letters, digits and dashes; files are named after it
    direction    round-trip: ICMP echo, the guest's kernel answers; to-guest, from-guest: UDP
    frame_bytes  the whole Ethernet frame without its checksum
    number       1 to 9999, one per flow of a run
    drop_every   the receiver throws away each n-th frame and says so, as an overrun receiver does;
                 0: none

    Raises UsageError if it cannot be.
    """

    name: str
    direction: Direction
    frame_bytes: int
    rate_pps: float
    number: int
    drop_every: int = 0

    def __post_init__(self) -> None:
        if not _NAME.fullmatch(self.name):
            raise UsageError(
                f"{self.name!r} is no name for a flow",
                because="files are named after it",
                fix="use lower-case letters, digits and dashes",
            )
        if self.direction not in DIRECTIONS:
            raise UsageError(
                f"flow {self.name}: there is no direction {self.direction!r}",
                because="a flow goes to the guest, comes from it, or both",
                fix=f"use one of {', '.join(DIRECTIONS)}",
            )
        if not 1 <= self.number <= LARGEST_NUMBER:
            raise UsageError(
                f"flow {self.name}: its number is {self.number}",
                because="frames and UDP ports are told apart by it",
                fix=f"give each flow of a run its own number, from 1 to {LARGEST_NUMBER}",
            )

    @property
    def at_peer(self) -> bool:
        """Whether both its sender and its receiver are on the peer."""
        return self.direction == "round-trip"

    @property
    def port(self) -> int:
        """The UDP port at both ends of a one-way flow."""
        return _FIRST_PORT + self.number


class Recorder(Protocol):
    """A program of the agent that runs on a machine."""

    @property
    def ready(self) -> Mapping[str, Any]:
        """What it said when it really recorded."""

    def stop(self, seconds: float) -> Mapping[str, Any]:
        """End it and return its summary.  Raises HarnessError if it failed or took longer."""


class Machine(Protocol):
    """Where recorders run: the peer, or a guest."""

    def start(self, program: str, spec: Mapping[str, Any]) -> Recorder:
        """Start a recorder; returns when it is ready."""

    def fetch(self, path: str) -> bytes:
        """Read a whole file."""

    def scratch(self, name: str) -> str:
        """Give the absolute path of a file of ours on that machine; it need not exist."""


@dataclass(frozen=True, slots=True)
class Endpoint:
    """One end of a flow: an interface of a machine, with its MAC and IPv4 address."""

    machine: Machine
    interface: str
    mac: str
    address: str


@dataclass(frozen=True, slots=True)
class SenderSummary:
    """The sender's account of a flow; sent + unsent is the number of frames that were due."""

    sent: int
    unsent: int
    unsent_because: Mapping[str, int]  # name of the errno -> frames
    started_ns: int  # base of the times in the frames; sender's clock
    ended_ns: int
    notes: tuple[str, ...]

    @classmethod
    def of(cls, summary: Mapping[str, Any]) -> SenderSummary:
        """Read what the program `sender` said at its end."""
        return cls(**{**summary, "notes": tuple(summary["notes"])})


@dataclass(frozen=True, slots=True)
class ReceiverSummary:
    """The receiver's account of a flow."""

    received: int  # copies counted each
    corrupted: int
    short: int
    wrong_at: Mapping[int, int]  # first wrong byte of a frame, from 0 -> frames
    dropped: int  # by our own socket, for want of room
    backlog_dropped: int  # packets of any kind, by the kernel before any socket
    clock_moved_ns: int
    interface_downs: int

    @classmethod
    def of(cls, summary: Mapping[str, Any]) -> ReceiverSummary:
        """Read what the program `receiver` said at its end, of its only flow."""
        (flow,) = summary["flows"]
        return cls(
            received=flow["received"],
            corrupted=flow["corrupted"],
            short=flow["short"],
            wrong_at={int(position): frames for position, frames in flow["wrong_at"].items()},
            dropped=summary["receiver_dropped"],
            backlog_dropped=summary["backlog_dropped"],
            clock_moved_ns=summary["clock_moved_ns"],
            interface_downs=summary["interface_downs"],
        )


@dataclass(frozen=True, slots=True)
class FlowRecords:
    """All that is left of a flow; the bytes are files of ``harness.agent.records``."""

    flow: Flow
    sent: bytes
    received: bytes
    sender: SenderSummary
    receiver: ReceiverSummary
