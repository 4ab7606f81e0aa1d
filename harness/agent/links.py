"""Recorder ``links``: each change of a network interface of this machine, as the kernel tells it.

Spec ``{"path": FILE}``.  FILE gets a JSON line per change, and first one ``was`` per interface::

    {"t_ns": 123, "event": "was|new|del", "index": 3, "ifname": "eth1", "address": "52:54:..",
     "operstate": "up", "carrier": true, "running": true, "master": 2, "mtu": 9000}

``t_ns`` is CLOCK_MONOTONIC when we read it.  ``carrier`` is null where the driver does not say,
``master`` (an index) where there is none.  Summary: ``changes``, and ``lost``, how often the
kernel's queue to us ran over.

Ref: rtnetlink(7).
"""

from __future__ import annotations

import errno
import json
import select
import socket
import sys
import time
from collections.abc import Iterator
from typing import IO, Any

from harness.agent.channel import Channel
from harness.agent.netlink import link_message, link_of, messages
from harness.uapi.rtnetlink import (
    Control,
    Group,
    InterfaceFlag,
    LinkAttribute,
    MessageFlag,
    RouteMessage,
)

AF_BRIDGE = 7  # a bridge tells of its ports with messages of its own, under the same number
OPERSTATES = ("unknown", "notpresent", "down", "lowerlayerdown", "testing", "dormant", "up")

_QUEUE_BYTES = 4 << 20


def parse(datagram: bytes) -> Iterator[tuple[int, dict[str, Any] | None]]:
    """Read the messages of one datagram: (type, the link it is about, or None for other types)."""
    for kind, body in messages(datagram):
        if kind not in (RouteMessage.NEWLINK, RouteMessage.DELLINK):
            yield kind, None
        elif body[0] != AF_BRIDGE:
            yield kind, _link(body)


def main(spec: dict[str, Any], channel: Channel) -> dict[str, Any]:
    """Record until the channel ends; the summary."""
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, socket.NETLINK_ROUTE) as kernel:
        kernel.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _QUEUE_BYTES)
        kernel.bind((0, Group.LINK))
        with open(spec["path"], "w") as file:
            recording = _Recording(file)
            flags = MessageFlag.REQUEST | MessageFlag.DUMP
            kernel.send(link_message(RouteMessage.GETLINK, flags, sequence=1, index=0))
            while not recording.dumped:
                recording.take(kernel.recv(1 << 16))
            channel.ready(links=recording.names)
            return _record(kernel, recording, channel)


def _record(kernel: socket.socket, recording: _Recording, channel: Channel) -> dict[str, Any]:
    lost = 0
    kernel.setblocking(False)
    while True:
        ending = channel.ended()  # asked first, so that what came before the end is still read
        if not ending:
            select.select([kernel.fileno(), channel.fileno()], [], [])
        while True:
            try:
                recording.take(kernel.recv(1 << 16))
            except BlockingIOError:
                break
            except OSError as error:
                if error.errno != errno.ENOBUFS:
                    raise
                lost += 1
        if ending:
            return {"changes": recording.changes, "lost": lost}


class _Recording:
    """Writes what changed; repetitions, of which rtnetlink sends many, are left out."""

    def __init__(self, file: IO[str]) -> None:
        self._file = file
        self._last: dict[int, dict[str, Any]] = {}
        self.dumped = False
        self.changes = 0

    @property
    def names(self) -> list[str]:
        return sorted(link["ifname"] for link in self._last.values())

    def take(self, datagram: bytes) -> None:
        now_ns = time.monotonic_ns()
        for kind, link in parse(datagram):
            if kind == Control.DONE:
                self.dumped = True
            elif link and kind == RouteMessage.DELLINK:
                self._last.pop(link["index"], None)
                self._write(now_ns, "del", link)
            elif link and self._last.get(link["index"]) != link:
                self._last[link["index"]] = link
                self._write(now_ns, "new" if self.dumped else "was", link)

    def _write(self, now_ns: int, event: str, link: dict[str, Any]) -> None:
        self.changes += event != "was"
        self._file.write(json.dumps({"t_ns": now_ns, "event": event, **link}) + "\n")


def _link(body: bytes) -> dict[str, Any]:
    link, told = link_of(body)
    found = dict(told)
    operstate = found.get(LinkAttribute.OPERSTATE, b"\0")[0]
    carrier = found.get(LinkAttribute.CARRIER)
    master = found.get(LinkAttribute.MASTER)
    return {
        "index": link.ifi_index,
        "ifname": found.get(LinkAttribute.IFNAME, b"").rstrip(b"\0").decode(),
        "address": found.get(LinkAttribute.ADDRESS, b"").hex(":"),
        "operstate": OPERSTATES[operstate],
        "carrier": None if carrier is None else carrier[0] == 1,
        "running": bool(link.ifi_flags & InterfaceFlag.RUNNING),
        "master": None if master is None else int.from_bytes(master, sys.byteorder),
        "mtu": int.from_bytes(found.get(LinkAttribute.MTU, b""), sys.byteorder),
    }
