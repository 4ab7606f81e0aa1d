"""Recorder ``links``: each change of a network interface of this machine, as the kernel tells it.

Spec ``{"path": FILE}``.  FILE gets a JSON line per change, and first one ``was`` per interface::

    {"t_ns": 123, "event": "was|new|del", "index": 3, "ifname": "eth1", "address": "52:54:..",
     "operstate": "up", "carrier": true, "running": true, "master": 2, "mtu": 9000}

``t_ns`` is CLOCK_MONOTONIC when we read it.  ``carrier`` is null where the driver does not say,
``master`` (an index) where there is none.  Summary: ``changes``, and ``lost``, how often the
kernel's queue to us ran over.

Ref: <linux/rtnetlink.h>, <linux/if_link.h>, <linux/if.h>; rtnetlink(7).
"""

from __future__ import annotations

import errno
import json
import select
import socket
import struct
import sys
import time
from collections.abc import Iterator
from typing import IO, Any

from harness.agent.channel import Channel

RTMGRP_LINK = 1
NLMSG_DONE = 3
RTM_NEWLINK, RTM_DELLINK, RTM_GETLINK = 16, 17, 18
NLM_F_REQUEST, NLM_F_DUMP = 0x001, 0x300
IFLA_ADDRESS, IFLA_IFNAME, IFLA_MTU, IFLA_MASTER = 1, 3, 4, 10
IFLA_OPERSTATE, IFLA_CARRIER = 16, 33
IFF_RUNNING = 0x40
AF_BRIDGE = 7  # a bridge tells of its ports with messages of its own, under the same number
OPERSTATES = ("unknown", "notpresent", "down", "lowerlayerdown", "testing", "dormant", "up")

_HEADER = struct.Struct("=IHHII")  # struct nlmsghdr: len, type, flags, seq, pid
_LINK = struct.Struct("=BxHiII")  # struct ifinfomsg: family, type, index, flags, change
_ATTRIBUTE = struct.Struct("=HH")  # struct rtattr: len, type
_TYPE_MASK = 0x3FFF  # NLA_TYPE_MASK
_QUEUE_BYTES = 4 << 20


def parse(datagram: bytes) -> Iterator[tuple[int, dict[str, Any] | None]]:
    """Read the messages of one datagram: (type, the link it is about, or None for other types)."""
    while len(datagram) >= _HEADER.size:
        length, kind, _, _, _ = _HEADER.unpack_from(datagram)
        body = datagram[_HEADER.size : length]
        if kind not in (RTM_NEWLINK, RTM_DELLINK):
            yield kind, None
        elif body[0] != AF_BRIDGE:
            yield kind, _link(body)
        datagram = datagram[_aligned(length) :]


def main(spec: dict[str, Any], channel: Channel) -> dict[str, Any]:
    """Record until the channel ends; the summary."""
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, socket.NETLINK_ROUTE) as kernel:
        kernel.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _QUEUE_BYTES)
        kernel.bind((0, RTMGRP_LINK))
        with open(spec["path"], "w") as file:
            recording = _Recording(file)
            request = _LINK.pack(socket.AF_UNSPEC, 0, 0, 0, 0)
            kernel.send(
                _HEADER.pack(
                    _HEADER.size + len(request), RTM_GETLINK, NLM_F_REQUEST | NLM_F_DUMP, 1, 0
                )
                + request
            )
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
            if kind == NLMSG_DONE:
                self.dumped = True
            elif link and kind == RTM_DELLINK:
                self._last.pop(link["index"], None)
                self._write(now_ns, "del", link)
            elif link and self._last.get(link["index"]) != link:
                self._last[link["index"]] = link
                self._write(now_ns, "new" if self.dumped else "was", link)

    def _write(self, now_ns: int, event: str, link: dict[str, Any]) -> None:
        self.changes += event != "was"
        self._file.write(json.dumps({"t_ns": now_ns, "event": event, **link}) + "\n")


def _link(body: bytes) -> dict[str, Any]:
    _, _, index, flags, _ = _LINK.unpack_from(body)
    found = dict(_attributes(body[_LINK.size :]))
    operstate = found.get(IFLA_OPERSTATE, b"\0")[0]
    carrier = found.get(IFLA_CARRIER)
    master = found.get(IFLA_MASTER)
    return {
        "index": index,
        "ifname": found.get(IFLA_IFNAME, b"").rstrip(b"\0").decode(),
        "address": found.get(IFLA_ADDRESS, b"").hex(":"),
        "operstate": OPERSTATES[operstate],
        "carrier": None if carrier is None else carrier[0] == 1,
        "running": bool(flags & IFF_RUNNING),
        "master": None if master is None else int.from_bytes(master, sys.byteorder),
        "mtu": int.from_bytes(found.get(IFLA_MTU, b""), sys.byteorder),
    }


def _attributes(data: bytes) -> Iterator[tuple[int, bytes]]:
    while len(data) >= _ATTRIBUTE.size:
        length, kind = _ATTRIBUTE.unpack_from(data)
        if length < _ATTRIBUTE.size:
            return
        yield kind & _TYPE_MASK, data[_ATTRIBUTE.size : length]
        data = data[_aligned(length) :]


def _aligned(length: int) -> int:
    return (length + 3) & ~3
