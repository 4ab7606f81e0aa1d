"""The fields of a vfio-user command are unpacked and checked here."""

from __future__ import annotations

import ctypes
import errno
import struct
from pathlib import Path
from typing import TypeVar

from harness.twin.channel import Message
from harness.twin.memory import Refused

S = TypeVar("S", bound=ctypes.Structure)


def expect(right: bool) -> None:
    """Refuse the command, as an invalid one, unless it is *right*."""
    if not right:
        raise Refused(errno.EINVAL)


def is_one(flag: int) -> bool:
    """Whether *flag* has exactly one bit."""
    return bool(flag) and not flag & (flag - 1)


def is_eventfd(descriptor: int) -> bool:
    """Whether *descriptor* is an eventfd; a write to anything else may fail, or block."""
    return str(Path(f"/proc/self/fd/{descriptor}").readlink()) == "anon_inode:[eventfd]"


def unpack(layout: struct.Struct, message: Message) -> tuple[int, ...]:
    """Return the fields of a payload that is exactly one *layout*."""
    expect(len(message.payload) == layout.size)
    return layout.unpack(message.payload)


def unpack_head(layout: struct.Struct, message: Message) -> tuple[tuple[int, ...], memoryview]:
    """Return the fields that a payload begins with, and the rest of the payload."""
    expect(len(message.payload) >= layout.size)
    return layout.unpack_from(message.payload), message.payload[layout.size :]


def structure(kind: type[S], message: Message) -> S:
    """Return the payload as a *kind* of its own size, which came with no descriptor."""
    size = ctypes.sizeof(kind)
    expect(len(message.payload) == size and not message.descriptors)
    expect(int.from_bytes(message.payload[:4], "little") >= size)
    return kind.from_buffer_copy(message.payload)
