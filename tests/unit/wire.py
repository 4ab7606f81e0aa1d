"""A wire of its own for a test: a veth pair between two network namespaces.

The far namespace stands for the guest: its kernel answers echoes.  Programs run as the agent runs
them, each a process of its own.
"""

from __future__ import annotations

import ctypes
import json
import os
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from harness import frames
from harness.agent.records import RECEIVED, RECEIVED_FIELDS, SENT, SENT_FIELDS
from harness.traffic.flow import Endpoint, FlowRecords

ROOT = Path(__file__).parents[2]
_CLONE_NEWNET = 0x40000000  # <linux/sched.h>


class Process:
    """A recorder, run as the agent would."""

    def __init__(self, namespace: str, program: str, spec: Mapping[str, Any]) -> None:
        self.running = subprocess.Popen(
            ["ip", "netns", "exec", namespace, sys.executable, "-m", "harness.agent", program],
            cwd=ROOT,
            text=True,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )
        assert self.running.stdin is not None
        self.running.stdin.write(json.dumps(spec) + "\n")
        self.running.stdin.flush()
        self.ready = self._line()["ready"]

    def stop(self, seconds: float) -> Mapping[str, Any]:
        assert self.running.stdin is not None
        self.running.stdin.close()
        return self.summary(seconds)

    def summary(self, seconds: float) -> Mapping[str, Any]:
        """Wait for it to end by itself."""
        summary: Mapping[str, Any] = self._line()["summary"]
        assert self.running.wait(seconds) == 0
        self.discard()
        return summary

    def discard(self) -> None:
        """Leave neither a process nor a pipe behind."""
        if self.running.poll() is None:
            self.running.kill()
        self.running.wait()
        for pipe in (self.running.stdin, self.running.stdout):
            if pipe is not None and not pipe.closed:
                pipe.close()

    def _line(self) -> dict[str, Any]:
        assert self.running.stdout is not None
        said: dict[str, Any] = json.loads(self.running.stdout.readline())
        return said


@dataclass
class Namespace:
    """A machine of its own, as far as its network goes."""

    name: str
    folder: Path
    started: list[Process]

    def start(self, program: str, spec: Mapping[str, Any]) -> Process:
        process = Process(self.name, program, spec)
        self.started.append(process)
        return process

    def fetch(self, path: str) -> bytes:
        return Path(path).read_bytes()

    def scratch(self, name: str) -> str:
        return str(self.folder / name)

    def ip(self, *arguments: str) -> None:
        ip("-n", self.name, *arguments)

    def run(self, *argv: str) -> str:
        command = ["ip", "netns", "exec", self.name, *argv]
        return subprocess.run(command, check=True, text=True, capture_output=True).stdout


def ip(*arguments: str) -> None:
    subprocess.run(["ip", *arguments], check=True)


@dataclass
class Wire:
    peer: Endpoint
    guest: Endpoint
    near: Namespace
    far: Namespace

    def connect(self) -> None:
        """Put the veth pair between the two; the near end is the peer's."""
        self.near.ip("link", "add", "near", "type", "veth", "peer", "far", "netns", self.far.name)
        for namespace, end in ((self.near, self.peer), (self.far, self.guest)):
            link = end.interface
            namespace.ip("link", "set", link, "address", end.mac, "mtu", "9714")
            namespace.ip("link", "set", link, "addrgenmode", "none", "up")
            namespace.ip("address", "add", f"{end.address}/24", "dev", link)


@contextmanager
def laid(folder: Path) -> Iterator[Wire]:
    """Lend two namespaces and the wire between them; whatever runs in them is ended.

    *folder* is the scratch folder of both.
    """
    near, far = (
        Namespace(f"vfh-traffic-{os.getpid()}-{end}", folder, []) for end in ("near", "far")
    )
    peer = Endpoint(near, "near", "02:00:00:00:00:01", "198.18.0.1")
    guest = Endpoint(far, "far", "02:00:00:00:00:02", "198.18.0.2")
    wire = Wire(peer, guest, near, far)
    try:
        for namespace in (near, far):
            ip("netns", "add", namespace.name)
        wire.connect()
        yield wire
    finally:
        for process in near.started + far.started:
            process.discard()
        for namespace in (near, far):
            subprocess.run(["ip", "netns", "delete", namespace.name], check=False)


def packet_socket_in(namespace: Namespace, interface: str) -> socket.socket:
    """Open a packet socket in another namespace: a thread goes there, the socket stays there."""
    made: list[socket.socket] = []

    def make() -> None:
        libc = ctypes.CDLL(None, use_errno=True)
        with open(f"/run/netns/{namespace.name}", "rb") as there:
            assert libc.setns(there.fileno(), _CLONE_NEWNET) == 0
        made.append(socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0))
        made[0].bind((interface, 0))

    thread = threading.Thread(target=make)
    thread.start()
    thread.join()
    return made[0]


class Measured:
    """A flow's records as rows, with the names of their fields."""

    def __init__(self, records: FlowRecords) -> None:
        self.sender = records.sender
        self.receiver = records.receiver
        self.sent = {
            row[0]: dict(zip(SENT_FIELDS, row, strict=True))
            for row in SENT.iter_unpack(records.sent)
        }
        self.received = [
            dict(zip(RECEIVED_FIELDS, row, strict=True))
            for row in RECEIVED.iter_unpack(records.received)
        ]

    @property
    def numbers(self) -> list[int]:
        return [row["sequence"] for row in self.received]

    @property
    def lost(self) -> list[int]:
        return sorted(set(self.sent) - set(self.numbers))


def receiver_spec(
    wire: Wire, kind: str, frame_bytes: int, interface: str = "near"
) -> dict[str, Any]:
    expected = {
        "flow": 7,
        "kind": kind,
        "payload_bytes": frame_bytes - 42,
        "path": wire.near.scratch("received"),
    }
    return {"interface": interface, "flows": [expected], "linger_ms": 200}


def sender_spec(wire: Wire, rate_pps: int, count: int) -> dict[str, Any]:
    return {
        "interface": "near",
        "template": datagram(wire, flow_number=7),
        "rate_pps": rate_pps,
        "count": count,
        "path": wire.near.scratch("sent"),
    }


def datagram(wire: Wire, flow_number: int) -> dict[str, Any]:
    return frames.datagram_template(
        source_mac=wire.guest.mac,
        destination_mac=wire.peer.mac,
        source=wire.guest.address,
        destination=wire.peer.address,
        port=20_000,
        frame_bytes=9014,
        flow=flow_number,
    )


def echo(frame_bytes: int, flow_number: int = 7) -> dict[str, Any]:
    """Make the template of an echo from the near to the far end."""
    return frames.echo_template(
        source_mac="02:00:00:00:00:01",
        destination_mac="02:00:00:00:00:02",
        source="198.18.0.1",
        destination="198.18.0.2",
        frame_bytes=frame_bytes,
        flow=flow_number,
    )
