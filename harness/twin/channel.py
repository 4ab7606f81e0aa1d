"""Messages of vfio-user over a stream socket, with the descriptors that come with them."""

from __future__ import annotations

import array
import contextlib
import os
import select
import socket
import time
from collections import deque
from dataclasses import dataclass, field
from typing import Callable

from harness.uapi import vfio_user
from harness.uapi.vfio_user import Command, Flag

LARGEST_MESSAGE = vfio_user.MAX_TRANSFER + 4096
"""What a message may be: the most data that were agreed on, and what goes before them."""

MAX_DESCRIPTORS = 16
"""That we take with one message, and say so (``max_msg_fds``)."""

PATIENCE_SECONDS = 10.0
"""We let a client go that neither takes nor answers anything for this long."""

DEEPEST = 16
"""With more of our own requests open than this, the client's further commands wait."""

DEEPEST_OF_ALL = 32
"""All clients of a process together may leave so many requests of ours open.

A command of one client can make us ask another client, whose command can make us ask a third.  The
client that we would ask next is let go, whoever left the others open: we would run out of stack.
"""

_READ_BYTES = 16 << 10
_ANCILLARY_BYTES = socket.CMSG_SPACE(4 * 253)  # SCM_MAX_FD: none may get lost, only refused


class ClientGone(Exception):
    """The client closed its end, or sent what cannot be a message: nothing more can be said."""


@dataclass
class Message:
    """One message; its descriptors are the receiver's to close, unless it takes one out."""

    number: int
    command: int
    flags: int
    error: int
    payload: memoryview
    descriptors: list[int] = field(default_factory=list)

    @property
    def is_command(self) -> bool:
        return self.flags & vfio_user.TYPE_MASK == 0

    @property
    def is_reply(self) -> bool:
        return self.flags & vfio_user.TYPE_MASK == Flag.REPLY

    def close(self) -> None:
        """Close what nobody took."""
        while self.descriptors:
            os.close(self.descriptors.pop())


class Channel:
    """Both directions of one connection; it owns the socket.

    *answer* deals with a command of the client's, and replies to it.
    """

    _open = 0  # requests of all channels of this process

    def __init__(self, connection: socket.socket, answer: Callable[[Channel, Message], None]):
        connection.setblocking(False)
        self._socket = connection
        self._answer = answer
        self._buffer = bytearray()
        self._received = 0  # bytes in all, of which the buffer is the end
        self._descriptors: deque[tuple[int, int]] = deque()  # each: bytes in all then, descriptor
        self._whole: deque[Message] = deque()
        self._replies: dict[int, Message] = {}
        self._awaited: set[int] = set()
        self._told: dict[int, Callable[[int], None]] = {}
        self._next_number = 0
        self._gone: str | None = None  # why; an exception would keep all that was under way alive

    def fileno(self) -> int:
        return self._socket.fileno()

    def serve(self) -> None:
        """Answer every command that is there.  Raises ClientGone."""
        if self._gone:
            raise ClientGone(self._gone)
        self._receive()
        self._dispatch()

    def reply(self, message: Message, *payload: bytes) -> None:
        """Answer *message*, unless it wants no answer."""
        if not message.flags & Flag.NO_REPLY:
            self._send(message.number, message.command, Flag.REPLY, 0, *payload)

    def refuse(self, message: Message, error: int) -> None:
        """Answer *message* with an errno, unless it wants no answer."""
        if not message.flags & Flag.NO_REPLY:
            self._send(message.number, message.command, Flag.REPLY | Flag.ERROR, error)

    def request(self, command: Command, *payload: bytes) -> Message:
        """Ask the client and return its reply.

        Its own commands are answered meanwhile, those first that came before we asked: the thread
        that would reply to us may be waiting for one of them.  Raises ClientGone; the socket is
        shut down then, so that whoever waits for it calls `serve`, and learns of it too.
        """
        number = self._next_number
        self._next_number = (number + 1) & 0xFFFF
        self._awaited.add(number)
        Channel._open += 1
        try:
            if Channel._open > DEEPEST_OF_ALL:
                raise ClientGone(f"{DEEPEST_OF_ALL} requests to clients were open already")
            self._send(number, command, 0, 0, *payload)
            due = time.monotonic() + PATIENCE_SECONDS
            self._dispatch()
            while number not in self._replies:
                self._wait(select.POLLIN, due)
                self._receive()
                self._dispatch()
            return self._replies[number]
        except ClientGone as gone:
            self._gone = self._gone or str(gone)
            with contextlib.suppress(OSError):  # it is not connected any more
                self._socket.shutdown(socket.SHUT_RDWR)
            raise
        finally:
            Channel._open -= 1
            self._awaited.discard(number)
            self._replies.pop(number, None)

    def tell(
        self, command: Command, *payload: bytes, refused: Callable[[int], None]
    ) -> None:  # fmt: skip
        """Ask the client for something, and do not wait for its reply.  Raises ClientGone.

        *refused* is called with the errno of the reply if the client refuses, once `serve` or
        `request` reads that reply.
        """
        number = self._next_number
        self._next_number = (number + 1) & 0xFFFF
        self._told[number] = refused
        self._send(number, command, 0, 0, *payload)

    def close(self) -> None:
        """Close the socket, and the descriptors that nobody took."""
        for message in self._whole:
            message.close()
        while self._descriptors:
            os.close(self._descriptors.pop()[1])
        self._socket.close()

    def _dispatch(self) -> None:
        while self._whole and len(self._awaited) <= DEEPEST:
            message = self._whole.popleft()
            try:
                self._answer(self, message)
            finally:
                message.close()

    def _receive(self) -> None:
        """Take what has come.

        A read never goes past the bytes that descriptors were sent with.  So a descriptor belongs
        to the message in which the bytes of its read end.  Ref: Linux, unix_stream_read_generic.
        """
        while True:
            try:
                data, ancillary, flags, _ = self._socket.recvmsg(
                    _READ_BYTES, _ANCILLARY_BYTES, socket.MSG_CMSG_CLOEXEC
                )
            except BlockingIOError:
                return
            except ConnectionResetError:
                raise ClientGone(self._gone or "the client reset the connection") from None
            self._received += len(data)
            for _, _, packed in ancillary:
                descriptors = array.array("i", packed[: len(packed) - len(packed) % 4])
                self._descriptors.extend((self._received, each) for each in descriptors)
            if flags & socket.MSG_CTRUNC:
                raise ClientGone("descriptors of the client's got lost: we have too many")
            if not data:
                raise ClientGone(self._gone or "the client closed the connection")
            self._buffer += data
            self._cut()
            if len(data) < _READ_BYTES and not ancillary:
                return

    def _cut(self) -> None:
        """Cut the whole messages out of the buffer."""
        start = 0
        while len(self._buffer) - start >= vfio_user.HEADER.size:
            head = vfio_user.HEADER.unpack_from(self._buffer, start)
            number, command, size, flags, error = head
            if not vfio_user.HEADER.size <= size <= LARGEST_MESSAGE:
                raise ClientGone(f"a message says that it has {size} bytes")
            if len(self._buffer) - start < size:
                break
            payload = memoryview(bytes(self._buffer[start + vfio_user.HEADER.size : start + size]))
            start += size
            message = Message(number, command, flags, error, payload)
            end = self._received - len(self._buffer) + start
            while self._descriptors and self._descriptors[0][0] <= end:
                message.descriptors.append(self._descriptors.popleft()[1])
            if not message.is_reply:
                self._whole.append(message)
                continue
            message.close()  # no reply has descriptors
            if number in self._awaited:
                self._replies[number] = message
                continue
            refused = self._told.pop(number, None)
            if refused and flags & Flag.ERROR:
                refused(error)
        del self._buffer[:start]

    def _send(self, number: int, command: int, flags: int, error: int, *payload: bytes) -> None:
        size = vfio_user.HEADER.size + sum(map(len, payload))
        data = b"".join((vfio_user.HEADER.pack(number, command, size, flags, error), *payload))
        due = time.monotonic() + PATIENCE_SECONDS
        while data:
            try:
                data = data[self._socket.send(data, socket.MSG_NOSIGNAL) :]
            except BlockingIOError:
                self._wait(select.POLLOUT, due)
            except (BrokenPipeError, ConnectionResetError):
                raise ClientGone(self._gone or "the client closed the connection") from None

    def _wait(self, event: int, due: float) -> None:
        """Return once the socket is ready for *event*.  Raises ClientGone when *due* is past."""
        ready = select.poll()
        ready.register(self._socket, event)
        if not ready.poll(max(0.0, due - time.monotonic()) * 1000):
            raise ClientGone(f"the client did nothing for {PATIENCE_SECONDS:g} s")
