"""<linux/filter.h>, v6.1: classic BPF programs, by which a socket chooses what it gets."""

from __future__ import annotations

import ctypes
from enum import IntEnum

from harness.uapi.mirror import mirrors, numbers


@numbers("asm/socket.h", "SO_{}")
class FilterOption(IntEnum):
    """Options at SOL_SOCKET."""

    ATTACH_FILTER = 26
    """Takes a SockFprog; frames already queued are not looked at again."""


@numbers("linux/filter.h", "BPF_{}")
class Bpf(IntEnum):
    """The parts that an instruction's code is the sum of."""

    LD = 0x00  # into A
    LDX = 0x01  # into X
    JMP = 0x05
    RET = 0x06

    W = 0x00  # 32 bits, network order
    B = 0x10

    ABS = 0x20  # at k
    IND = 0x40  # at X + k
    MSH = 0xA0  # 4 * (byte at k & 15): the length of an IPv4 header

    JEQ = 0x10  # A == k
    JSET = 0x40  # A & k
    K = 0x00


@mirrors("linux/filter.h", "struct sock_filter", size=8)
class SockFilter(ctypes.Structure):
    """One instruction."""

    _fields_ = [
        ("code", ctypes.c_uint16),
        ("jt", ctypes.c_uint8),  # instructions to skip if true
        ("jf", ctypes.c_uint8),  # ... if false
        ("k", ctypes.c_uint32),
    ]


@mirrors("linux/filter.h", "struct sock_fprog", size=16)
class SockFprog(ctypes.Structure):
    """A program; a RET's k is how many bytes of the frame are kept, 0 drops it."""

    _fields_ = [
        ("len", ctypes.c_ushort),  # instructions
        ("filter", ctypes.POINTER(SockFilter)),
    ]
