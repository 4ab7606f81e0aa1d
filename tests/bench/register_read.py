"""One register read of a function costs this much, over a socket and without a machine."""

from __future__ import annotations

import resource
import socket
import time

from bench.rows import Row
from harness.twin.channel import Channel
from harness.twin.function import Function
from harness.twin.server import Server
from harness.uapi import vfio_user
from harness.uapi.vfio import PciRegion
from harness.uapi.vfio_user import Command

ACCESSES = 20_000


def register_read(function: Function, register: int, what: str) -> Row:
    """Time reads of *register* over a socket, and the share of the time that Python takes."""
    ours, theirs = socket.socketpair()
    channel = Channel(theirs, Server(function).answer)
    ours.send(vfio_user.HEADER.pack(0, Command.VERSION, 20, 0, 0) + bytes([0, 0, 1, 0]))
    channel.serve()
    ours.recv(4096)
    read = vfio_user.REGION_ACCESS.pack(register, PciRegion.BAR0, 4)
    message = vfio_user.HEADER.pack(1, Command.REGION_READ, 32, 0, 0) + read
    before, began = resource.getrusage(resource.RUSAGE_SELF), time.perf_counter()
    for _ in range(ACCESSES):
        ours.send(message)
        channel.serve()
        ours.recv(4096)
    seconds, after = time.perf_counter() - began, resource.getrusage(resource.RUSAGE_SELF)
    share = (after.ru_utime - before.ru_utime) / seconds
    ours.close()
    channel.close()
    return Row(
        what,
        f"{seconds / ACCESSES * 1e6:.0f} µs, {share:.0%} of it in Python",
        "100 µs or less",
        f"mean of {ACCESSES}; Python's share is user time against wall time, client included",
    )
