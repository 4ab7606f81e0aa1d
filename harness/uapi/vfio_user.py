"""vfio-user 0.1: a VFIO device served by another process over a UNIX socket.

Ref: QEMU 11.1, docs/interop/vfio-user.rst.  All numbers are in the host's own byte order, which
is little-endian here; offsets and sizes are in bytes.  Payloads that equal a structure of
<linux/vfio.h> (device, region and interrupt information) are in ``uapi.vfio``.
"""

from __future__ import annotations

import struct
from enum import IntEnum

VERSION = (0, 1)  # major, minor
MAX_TRANSFER = 1 << 20
"""``max_data_xfer_size`` where nothing else was agreed on."""

PAGE_SIZES = 4096
"""``pgsizes`` where nothing else was agreed on."""


class Command(IntEnum):
    """``VFIO_USER_*``: what a message asks for."""

    VERSION = 1
    DMA_MAP = 2
    DMA_UNMAP = 3
    DEVICE_GET_INFO = 4
    DEVICE_GET_REGION_INFO = 5
    DEVICE_GET_REGION_IO_FDS = 6
    DEVICE_GET_IRQ_INFO = 7
    DEVICE_SET_IRQS = 8
    REGION_READ = 9
    REGION_WRITE = 10
    DMA_READ = 11
    """From the server to the client, as is DMA_WRITE."""
    DMA_WRITE = 12
    DEVICE_RESET = 13
    REGION_WRITE_MULTI = 15


class Flag(IntEnum):
    """``Flags`` of a message's header; the type is a number in the low four bits."""

    REPLY = 0x1
    NO_REPLY = 0x10
    ERROR = 0x20


TYPE_MASK = 0xF


class MapFlag(IntEnum):
    """``flags`` of DMA_MAP: what the device may do there."""

    READABLE = 1 << 0
    WRITABLE = 1 << 1


class UnmapFlag(IntEnum):
    """``flags`` of DMA_UNMAP: none for a range, which may hold any number of regions."""

    ALL = 1 << 1
    """Everything; address and size are 0 then.

    The text of vfio-user has no flags here.  QEMU sends this one for an address space of 2^64 bytes
    that goes (hw/vfio-user/container.c): VFIO_DMA_UNMAP_FLAG_ALL of <linux/vfio.h>.
    """


HEADER = struct.Struct("<HHIII")
"""message id, command, size with this header, flags, error (an errno)."""

VERSION_HEAD = struct.Struct("<HH")
"""major, minor; JSON text with a NUL at its end may follow."""

DMA_MAP = struct.Struct("<IIQQQ")
"""argsz, flags, offset in the descriptor's file, address, size."""

DMA_UNMAP = struct.Struct("<IIQQ")
"""argsz, flags, address, size; the reply is the same again."""

REGION_ACCESS = struct.Struct("<QII")
"""offset, region, count; data follow in a write and in the reply to a read."""

WRITE_MULTI_HEAD = struct.Struct("<Q")
"""Number of writes; they follow."""

WRITE_MULTI_ENTRY = struct.Struct("<QII8s")
"""offset, region, count (8 at most), data."""

DMA_ACCESS = struct.Struct("<QQ")
"""address, count; data follow in a write and in the reply to a read."""
