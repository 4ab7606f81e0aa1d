"""The wire: a tap, an interface of the host whose other end is the port's."""

from __future__ import annotations

import errno
import fcntl
import os
import struct
from pathlib import Path
from typing import Union

from harness.uapi import if_tun, ixgbe_vf

_GONE = {errno.EBADFD, errno.EPIPE, errno.ECONNRESET}
"""The tap was deleted, or the other end of the pair of sockets that stands for it was closed."""

_LOSSES = {errno.EIO, errno.EAGAIN, errno.ENOBUFS, errno.ENETDOWN, *_GONE}
"""The interface is down or gone, or its queue is full: a wire loses frames as well."""

Part = Union[bytes, bytearray, memoryview]


class WireGoneError(Exception):
    """No frame can come any more."""


class Tap:
    """A tap is reached by *descriptor*, which is ours; closing the descriptor leaves the tap."""

    def __init__(self, descriptor: int) -> None:
        os.set_blocking(descriptor, False)
        self._descriptor = descriptor
        largest = ixgbe_vf.MAX_FRAME_BYTES - ixgbe_vf.CHECKSUM_BYTES + ixgbe_vf.TAG_BYTES
        self._buffer = bytearray(largest + 1)  # one more shows that a frame is too long
        self._view = memoryview(self._buffer)

    @classmethod
    def named(cls, name: str) -> Tap:
        """Open the tap *name*, which is there already.

        Raises OSError: ENODEV for one that is not there, EBUSY for one that somebody has.
        """
        if not Path("/sys/class/net", name, "tun_flags").exists():
            raise OSError(errno.ENODEV, f"{name}: there is no such tap")  # it would be made
        descriptor = os.open("/dev/net/tun", os.O_RDWR | os.O_CLOEXEC)
        try:
            flags = if_tun.Flag.TAP | if_tun.Flag.NO_PI
            fcntl.ioctl(
                descriptor, if_tun.Ioctl.SETIFF, struct.pack("16sH22x", name.encode(), flags)
            )
        except OSError:
            os.close(descriptor)
            raise
        return cls(descriptor)

    def fileno(self) -> int:
        return self._descriptor

    def read(self) -> memoryview | None:
        """Return the next frame, which is good until the next call; None if there is none.

        Raises WireGoneError if the tap was deleted, or nobody has its other end any more.
        """
        try:
            length = os.readv(self._descriptor, [self._buffer])
        except BlockingIOError:
            return None
        except OSError as gone:
            if gone.errno not in _GONE:
                raise
            length = 0
        if not length:
            raise WireGoneError("its wire is gone; it has no link from now on")
        return self._view[:length]

    def write(self, parts: list[Part]) -> bool:
        """Send one frame, given in parts; whether the host took it."""
        try:
            os.writev(self._descriptor, parts)
        except OSError as lost:
            if lost.errno not in _LOSSES:
                raise
            return False
        return True

    def close(self) -> None:
        os.close(self._descriptor)
