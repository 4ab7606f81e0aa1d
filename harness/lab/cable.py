"""Cables connect the ports of a software chip with taps of this machine, or with each other."""

from __future__ import annotations

import socket
from collections.abc import Sequence
from contextlib import ExitStack

from harness.errors import LabError, UsageError
from harness.twin.tap import Tap
from harness.uapi.filter import Bpf, FilterOption, SockFilter, SockFprog

_QUEUE_BYTES = 1 << 22
"""A cable holds this many bytes of frames, or net.core.wmem_max if that is less."""


def cables(ports: int, taps: Sequence[str], stack: ExitStack) -> list[int]:
    """Return a descriptor for the wire of each port; *stack* closes the descriptors.

    *taps* names a tap for each port.  Without taps a cable connects two ports with each other,
    which needs no privileges.  The cable of a single port then leads nowhere: the port has a link,
    and every frame of the port is lost.  Raises UsageError for a wrong number of *taps*, and
    LabError for a tap that cannot be opened.
    """
    if taps:
        return _taps(ports, taps, stack)
    pair = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    for end in pair:
        stack.callback(end.close)
        end.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _QUEUE_BYTES)
    if ports == 1:
        _take_nothing(pair[1])
        return [pair[0].fileno()]
    return [end.fileno() for end in pair]


def _take_nothing(end: socket.socket) -> None:
    """Make the kernel drop all that is sent to *end*; the sender sees success (sk_filter)."""
    drop = (SockFilter * 1)(SockFilter(Bpf.RET | Bpf.K, 0, 0, 0))
    program = SockFprog(1, drop)
    end.setsockopt(socket.SOL_SOCKET, FilterOption.ATTACH_FILTER, bytes(program))


def _taps(ports: int, names: Sequence[str], stack: ExitStack) -> list[int]:
    if len(names) != ports:
        raise UsageError(
            f"--wire names {len(names)} taps, and the chip has {ports} ports",
            because="each port has one cable",
            fix=f"name {ports} taps, with a comma between two",
        )
    return [_tap(name, stack) for name in names]


def _tap(name: str, stack: ExitStack) -> int:
    try:
        tap = Tap.named(name)
    except OSError as refused:
        raise LabError(
            f"this machine: the tap {name!r} cannot be a port's wire: {refused.strerror}",
            because="the tap has to exist, belong to you, and be used by nobody else",
            fix=f"make the tap with `sudo ip tuntap add dev {name} mode tap user $USER` and "
            f"`sudo ip link set {name} mtu 9000 up`, or end the program that uses the tap",
        ) from None
    stack.callback(tap.close)
    return tap.fileno()
