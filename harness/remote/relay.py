"""A socket here that is a unix socket over there, such as a QEMU's QMP."""

from __future__ import annotations

import contextlib
import json
import socket
import threading

from harness.errors import RemoteError
from harness.remote.transport import DeadlineError, HostGoneError, Stream

_ENDING_SECONDS = 5


class Relay:
    """Carries bytes between `near`, which is the caller's to close, and a relay program."""

    def __init__(self, host: str, stream: Stream, seconds: float) -> None:
        """Wait until the program is connected, then carry on from threads.

        It owns *stream*.  Raises RemoteError if the program cannot connect in time.
        """
        self._stream = stream
        first = connected(host, stream, seconds)
        self.near, self._far = socket.socketpair()
        self._threads = [
            threading.Thread(target=self._outwards, name=f"relay-to-{host}", daemon=True),
            threading.Thread(
                target=self._inwards, args=(first,), name=f"relay-from-{host}", daemon=True
            ),
        ]
        for thread in self._threads:
            thread.start()

    def close(self) -> None:
        """End the program and both threads; a reader of `near` sees the end."""
        with contextlib.suppress(OSError):  # it is shut down already
            self._far.shutdown(socket.SHUT_RDWR)
        self._stream.close()
        for thread in self._threads:
            thread.join(_ENDING_SECONDS)
        self._far.close()

    def _outwards(self) -> None:
        with contextlib.suppress(OSError, RemoteError):  # the other side ended; `_inwards` sees it
            while data := self._far.recv(1 << 16):
                self._stream.send(data)
        self._stream.end()

    def _inwards(self, data: bytes) -> None:
        with contextlib.suppress(OSError):  # nobody reads `near` any more
            self._far.sendall(data)
            while data := self._stream.receive():
                self._far.sendall(data)
            self._far.shutdown(socket.SHUT_WR)
        while self._stream.receive():  # to its end, or the pipe would stay open
            pass


def connected(host: str, stream: Stream, seconds: float) -> bytes:
    """Read a relay program's first line; what came after it.

    Raises DeadlineError if none comes within *seconds*, RemoteError if the program has nobody to
    connect to; *stream* is closed then.
    """
    late = threading.Event()

    def give_up() -> None:
        late.set()
        stream.close()  # which ends the reading

    timer = threading.Timer(seconds, give_up)
    timer.daemon = True
    timer.start()
    try:
        return _first(host, stream)
    except RemoteError:
        stream.close()
        if late.is_set():
            raise DeadlineError(host, "starting a relay", seconds, stream.last_words()) from None
        raise
    finally:
        timer.cancel()


def _first(host: str, stream: Stream) -> bytes:
    data = b""
    while b"\n" not in data:
        more = stream.receive()
        if not more:
            raise HostGoneError(host, "the relay ended before it began", stream.last_words())
        data += more
    line, _, rest = data.partition(b"\n")
    message = json.loads(line)
    if "error" in message:
        error = message["error"]
        raise RemoteError(f"{host}: {error['what']}", because=error["because"], fix=error["fix"])
    return rest
