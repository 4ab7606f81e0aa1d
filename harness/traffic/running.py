"""Starting a flow, ending it, fetching its records."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Self

from harness import frames
from harness.agent.records import RECEIVED
from harness.errors import HarnessError
from harness.traffic.flow import (
    Endpoint,
    Flow,
    FlowRecords,
    Machine,
    ReceiverSummary,
    Recorder,
    SenderSummary,
)
from harness.waiting import wait_for

_SENDER_ENDS_IN_S = 10.0
_RECEIVER_ENDS_IN_S = 20.0  # beyond the grace: it empties its buffer first


def start(
    flow: Flow,
    peer: Endpoint,
    guest: Endpoint,
    *,
    grace_ms: int = 1000,
    realtime: bool = True,
) -> RunningFlow:
    """Start *flow* between *peer* and *guest*; frames are on their way when this returns.

    grace_ms    how long the receiver goes on for late frames after the sender ended
    realtime    whether the sender asks for SCHED_FIFO

    Raises UsageError if such frames cannot be sent, and what the machines raise.
    """
    source, destination = (guest, peer) if flow.direction == "from-guest" else (peer, guest)
    template = _template(flow, source, destination)
    receiving = _receive(
        flow,
        source if flow.direction == "round-trip" else destination,
        payload_bytes=flow.frame_bytes - template["payload_at"],
        grace_ms=grace_ms,
    )
    try:  # the receiver is there before the first frame, and goes after the last
        sending = _send(flow, source, template, realtime)
    except BaseException:
        receiving.stop()
        raise
    return RunningFlow(flow, sending, receiving)


@dataclass(frozen=True, slots=True)
class _Recording:
    """One recorder of a flow, and the file that it writes."""

    machine: Machine
    recorder: Recorder
    path: str
    ends_in_s: float

    def stop(self) -> Mapping[str, Any]:
        return self.recorder.stop(self.ends_in_s)

    def fetch(self) -> bytes:
        return self.machine.fetch(self.path)


class RunningFlow:
    """A flow that runs until `stop`; as a context manager it is stopped in any case."""

    def __init__(self, flow: Flow, sending: _Recording, receiving: _Recording) -> None:
        self.flow = flow
        self._sending = sending
        self._receiving = receiving
        self._running = True

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if not self._running:
            return
        try:
            self._stop_recorders()
        except HarnessError as failed:
            if error is None:
                raise
            error.add_note(f"flow {self.flow.name} could not be stopped: {failed.what}")

    @property
    def arrived(self) -> int:
        """How many frames have arrived, some 0.1 s ago; for flows that the peer receives."""
        return len(self._receiving.fetch()) // RECEIVED.size

    def wait_until_served(self, seconds: float) -> None:
        """Return once frames arrive; a record that ends in an outage does not tell how long it is.

        For flows that the peer receives: it is asked again and again.  Raises WaitError if none
        arrives within *seconds*.
        """
        before = self.arrived
        wait_for(
            f"frames of flow {self.flow.name} to arrive",
            lambda: self.arrived - before,
            within=seconds,
            every_s=0.2,
            fix="see the timeline and the guest's console for what cut it off",
        )

    def stop(self) -> FlowRecords:
        """End the sender, then, after the grace, the receiver; fetch what they wrote.  Once only.

        Raises what made a recorder fail; the other one is ended all the same.
        """
        sender, receiver = self._stop_recorders()
        return FlowRecords(
            flow=self.flow,
            sent=self._sending.fetch(),
            received=self._receiving.fetch(),
            sender=SenderSummary.of(sender),
            receiver=ReceiverSummary.of(receiver),
        )

    def _stop_recorders(self) -> tuple[Mapping[str, Any], Mapping[str, Any]]:
        self._running = False
        try:
            sender = self._sending.stop()
        finally:
            receiver = self._receiving.stop()
        return sender, receiver


def _send(flow: Flow, source: Endpoint, template: Mapping[str, Any], realtime: bool) -> _Recording:
    path = source.machine.scratch(f"{flow.name}.sent")
    spec = {
        "interface": source.interface,
        "template": template,
        "rate_pps": flow.rate_pps,
        "path": path,
        "realtime": realtime,
    }
    recorder = source.machine.start("sender", spec)
    return _Recording(source.machine, recorder, path, _SENDER_ENDS_IN_S)


def _receive(flow: Flow, end: Endpoint, *, payload_bytes: int, grace_ms: int) -> _Recording:
    round_trip = flow.direction == "round-trip"
    path = end.machine.scratch(f"{flow.name}.received")
    expected = {
        "flow": flow.number,
        "kind": "echo-reply" if round_trip else "datagram",
        "payload_bytes": payload_bytes,
        "path": path,
    }
    spec = {
        "interface": end.interface,
        "flows": [expected],
        "absorb": [] if round_trip else [flow.port],
        "linger_ms": grace_ms,
        "drop_every": flow.drop_every,
    }
    recorder = end.machine.start("receiver", spec)
    return _Recording(end.machine, recorder, path, grace_ms / 1000 + _RECEIVER_ENDS_IN_S)


def _template(flow: Flow, source: Endpoint, destination: Endpoint) -> dict[str, Any]:
    if flow.direction == "round-trip":
        return frames.echo_template(
            source_mac=source.mac,
            destination_mac=destination.mac,
            source=source.address,
            destination=destination.address,
            frame_bytes=flow.frame_bytes,
            flow=flow.number,
        )
    return frames.datagram_template(
        source_mac=source.mac,
        destination_mac=destination.mac,
        source=source.address,
        destination=destination.address,
        port=flow.port,
        frame_bytes=flow.frame_bytes,
        flow=flow.number,
    )
