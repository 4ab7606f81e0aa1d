"""Packet sockets of one interface: many frames out at once, frames in with the kernel's stamp."""

from __future__ import annotations

import ctypes
import errno
import os
import socket
import struct
import time
from collections.abc import Iterable

from harness.agent import payload
from harness.agent.errors import AgentError
from harness.uapi import if_packet
from harness.uapi.filter import Bpf, FilterOption, SockFilter, SockFprog

ROOM_BYTES = 16384  # more than any frame: what does not fit in here is not ours

_ETH_P_IP = 0x0800
_SEND_BUFFER_BYTES = 1 << 20
_RECEIVE_BUFFER_BYTES = 64 << 20  # half a second of 9000-byte frames at 10 Gbit/s
_TIMESPEC = struct.Struct("qq")
_STAMP_ROOM = socket.CMSG_SPACE(_TIMESPEC.size)

_libc = ctypes.CDLL(None, use_errno=True)
_libc.sendmmsg.argtypes = [
    ctypes.c_int,
    ctypes.POINTER(if_packet.Mmsghdr),
    ctypes.c_uint,
    ctypes.c_int,
]


class PacketSocket:
    """A packet socket that is bound to an interface by name.

    An interface may go and another of its name come, as a hot-plugged VF does: `follow`.
    """

    def __init__(self, interface: str, protocol: int, option: int, buffer_bytes: int) -> None:
        self._interface = interface
        self._protocol = protocol
        self._index = 0
        try:  # protocol 0 receives nothing, so nothing that is not ours comes before the filter
            self._socket = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0)
            self._socket.setsockopt(socket.SOL_SOCKET, option, buffer_bytes)
        except PermissionError as error:
            raise AgentError(
                f"cannot open a packet socket: {error.strerror}",
                because="frames are sent and received below the kernel's IP stack",
                fix="run the agent as root (CAP_NET_RAW and CAP_NET_ADMIN)",
            ) from error
        self._socket.setblocking(False)

    def close(self) -> None:
        self._socket.close()

    def fileno(self) -> int:
        return self._socket.fileno()

    def bind(self) -> None:
        """Begin.  Raises AgentError unless the interface is there."""
        if not self.follow():
            raise AgentError(
                f"there is no interface {self._interface}",
                because="a flow begins on an interface that is there, and then follows it",
                fix="name one that `ip link` shows on this machine",
            )

    def follow(self) -> bool:
        """Bind to the interface that has the name now; whether there is one."""
        try:
            index = socket.if_nametoindex(self._interface)
        except OSError:  # Python says no more than that there is none
            return False
        if index != self._index:
            try:
                self._socket.bind((self._interface, self._protocol))
            except OSError as error:
                if error.errno not in (errno.ENODEV, errno.ENXIO):  # gone since
                    raise
                return False
            self._index = index
        return True


class SendingSocket(PacketSocket):
    """Sends frames out of buffers that are its own.

    buffers   one per frame that can be sent at once; fill them, then `send`
    """

    def __init__(self, interface: str, template: payload.Template, burst: int) -> None:
        super().__init__(
            interface,
            0,
            if_packet.SocketOption.SNDBUFFORCE,
            burst * ROOM_BYTES + _SEND_BUFFER_BYTES,
        )
        blanks = [template.blank() for _ in range(burst)]
        self.buffers = [memoryview(blank) for blank in blanks]
        self._pieces = (if_packet.Iovec * burst)()
        self._messages = (if_packet.Mmsghdr * burst)()
        for blank, piece, message in zip(blanks, self._pieces, self._messages):
            piece.iov_base = ctypes.addressof(ctypes.c_char.from_buffer(blank))
            piece.iov_len = len(blank)
            message.msg_hdr.msg_iov = ctypes.pointer(piece)
            message.msg_hdr.msg_iovlen = 1

    def send(self, first: int, count: int) -> int:
        """Send buffers *first* to *first* + *count* - 1; how many the kernel took, at least one.

        Never blocks.  Raises OSError if the kernel refused the first of them.
        """
        taken: int = _libc.sendmmsg(
            self.fileno(), self._messages[first], count, socket.MSG_DONTWAIT
        )
        if taken < 0:
            error = ctypes.get_errno()
            raise OSError(error, os.strerror(error), self._interface)
        return taken


class ReceivingSocket(PacketSocket):
    """Receives the numbered frames of some flows; frames that go out are never among them.

    dropped   frames that found no room in the buffer so far; `count_drops` brings it up to date
    downs     how often the interface went down
    """

    def __init__(self, interface: str, flows: Iterable[int]) -> None:
        super().__init__(
            interface,
            _ETH_P_IP,  # one protocol, not ETH_P_ALL: such a socket sees only what comes in
            if_packet.SocketOption.RCVBUFFORCE,
            _RECEIVE_BUFFER_BYTES,
        )
        self._socket.setsockopt(socket.SOL_SOCKET, if_packet.SocketOption.TIMESTAMPNS, 1)
        _attach(self._socket, _only(flows))
        self.dropped = 0
        self.downs = 0

    @property
    def buffer_bytes(self) -> int:
        return self._socket.getsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF)

    def receive_into(self, buffer: bytearray) -> tuple[int, int] | None:
        """Put one frame into *buffer*: (its bytes, when it came), or None if there is none.

        The time is the kernel's CLOCK_REALTIME in ns.
        """
        while True:
            try:
                length, control, _, _ = self._socket.recvmsg_into([buffer], _STAMP_ROOM)
            except BlockingIOError:
                return None
            except OSError as error:
                if error.errno != errno.ENETDOWN:
                    raise
                self.downs += 1  # said once each time; frames that came before are still there
                continue
            seconds, ns = _TIMESPEC.unpack(control[0][2])
            return length, seconds * 1_000_000_000 + ns

    def count_drops(self) -> None:
        """Add what the kernel dropped since the last call."""
        stats = if_packet.TpacketStats.from_buffer_copy(
            self._socket.getsockopt(
                if_packet.SOL_PACKET,
                if_packet.PacketOption.STATISTICS,
                ctypes.sizeof(if_packet.TpacketStats),
            )
        )
        self.dropped += stats.tp_drops


def _only(flows: Iterable[int]) -> list[SockFilter]:
    """Let pass what is ICMP or UDP over IPv4 and begins with our magic and one of *flows*.

    What the filter stops takes no room in the buffer, so it cannot make us lose frames.
    """
    starts = [payload.MAGIC << 16 | flow for flow in flows]
    left = len(starts)
    return [
        SockFilter(Bpf.LD + Bpf.B + Bpf.ABS, 0, 0, 14 + 9),  # protocol
        SockFilter(Bpf.JMP + Bpf.JEQ + Bpf.K, 1, 0, socket.IPPROTO_ICMP),
        SockFilter(Bpf.JMP + Bpf.JEQ + Bpf.K, 0, 2 + left, socket.IPPROTO_UDP),
        SockFilter(Bpf.LDX + Bpf.B + Bpf.MSH, 0, 0, 14),
        SockFilter(Bpf.LD + Bpf.W + Bpf.IND, 0, 0, 14 + 8),  # behind the ICMP or UDP header
        *(
            SockFilter(Bpf.JMP + Bpf.JEQ + Bpf.K, left - number, 0, start)
            for number, start in enumerate(starts)
        ),
        SockFilter(Bpf.RET + Bpf.K, 0, 0, 0),
        SockFilter(Bpf.RET + Bpf.K, 0, 0, ROOM_BYTES),
    ]


def _attach(receiving: socket.socket, program: list[SockFilter]) -> None:
    instructions = (SockFilter * len(program))(*program)
    whole = SockFprog(len(program), instructions)
    receiving.setsockopt(socket.SOL_SOCKET, FilterOption.ATTACH_FILTER, bytes(whole))


class StampClock:
    """Turns CLOCK_REALTIME, which the kernel stamps frames with, into the monotonic clock.

    moved_ns   how far the two were seen to move against each other since the first sample
    """

    def __init__(self) -> None:
        self._offset_ns = _realtime_ahead_ns()
        self._lowest_ns = self._highest_ns = self._offset_ns

    @property
    def moved_ns(self) -> int:
        return self._highest_ns - self._lowest_ns

    def sample(self) -> None:
        """Relate the clocks anew; frames that came before are best converted before."""
        self._offset_ns = _realtime_ahead_ns()
        self._lowest_ns = min(self._lowest_ns, self._offset_ns)
        self._highest_ns = max(self._highest_ns, self._offset_ns)

    def to_monotonic(self, stamp_ns: int) -> int:
        return stamp_ns - self._offset_ns


def _realtime_ahead_ns() -> int:
    """Realtime minus monotonic; the narrowest of five readings, lest we were interrupted."""
    readings = []
    for _ in range(5):
        before = time.monotonic_ns()
        real = time.time_ns()
        after = time.monotonic_ns()
        readings.append((after - before, real - (before + after) // 2))
    return min(readings)[1]
