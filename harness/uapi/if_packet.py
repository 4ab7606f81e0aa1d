"""<linux/if_packet.h>, v6.1, and what <sys/socket.h> says that Python's socket module does not."""

from __future__ import annotations

import ctypes
from enum import IntEnum

from harness.uapi.mirror import mirrors, numbers

ETH_P_ALL = 0x0003
"""<linux/if_ether.h>: every protocol; to be given in network byte order."""

SOL_PACKET = 263
"""<bits/socket.h>: the level of PacketOption."""


@numbers("linux/if_packet.h", "PACKET_{}")
class PacketOption(IntEnum):
    """Options at SOL_PACKET."""

    ADD_MEMBERSHIP = 1
    DROP_MEMBERSHIP = 2
    STATISTICS = 6
    """Reading it gives TpacketStats and sets the counts back to zero."""

    AUXDATA = 8
    TIMESTAMP = 17
    QDISC_BYPASS = 20
    IGNORE_OUTGOING = 23


@numbers("sys/socket.h", "SO_{}")
class SocketOption(IntEnum):
    """Options at SOL_SOCKET; also the type of the control message that the first one brings."""

    TIMESTAMPNS = 35
    """CLOCK_REALTIME of arrival in the kernel, as two 64-bit numbers: s, ns."""

    SNDBUFFORCE = 32
    RCVBUFFORCE = 33
    """As SO_RCVBUF, without the limit net.core.rmem_max; needs CAP_NET_ADMIN."""

    RXQ_OVFL = 40


@mirrors("linux/if_packet.h", "struct sockaddr_ll", size=20)
class SockaddrLl(ctypes.Structure):
    """The address of a packet socket."""

    _fields_ = [
        ("sll_family", ctypes.c_ushort),
        ("sll_protocol", ctypes.c_uint16),  # network byte order
        ("sll_ifindex", ctypes.c_int),
        ("sll_hatype", ctypes.c_ushort),
        ("sll_pkttype", ctypes.c_uint8),
        ("sll_halen", ctypes.c_uint8),
        ("sll_addr", ctypes.c_uint8 * 8),
    ]


@mirrors("linux/if_packet.h", "struct tpacket_stats", size=8)
class TpacketStats(ctypes.Structure):
    """What a packet socket saw since it was last asked."""

    _fields_ = [
        ("tp_packets", ctypes.c_uint),  # those dropped included
        ("tp_drops", ctypes.c_uint),  # no room in the receive buffer
    ]


@mirrors("sys/uio.h", "struct iovec", size=16)
class Iovec(ctypes.Structure):
    """A piece of memory."""

    _fields_ = [
        ("iov_base", ctypes.c_void_p),
        ("iov_len", ctypes.c_size_t),  # bytes
    ]


@mirrors("sys/socket.h", "struct msghdr", size=56)
class Msghdr(ctypes.Structure):
    """One message."""

    _fields_ = [
        ("msg_name", ctypes.c_void_p),
        ("msg_namelen", ctypes.c_uint32),
        ("msg_iov", ctypes.POINTER(Iovec)),
        ("msg_iovlen", ctypes.c_size_t),  # how many pieces
        ("msg_control", ctypes.c_void_p),
        ("msg_controllen", ctypes.c_size_t),  # bytes
        ("msg_flags", ctypes.c_int),
    ]


@mirrors("sys/socket.h", "struct mmsghdr", size=64)
class Mmsghdr(ctypes.Structure):
    """One of the messages that sendmmsg and recvmmsg take."""

    _fields_ = [
        ("msg_hdr", Msghdr),
        ("msg_len", ctypes.c_uint),  # bytes moved, set by the kernel
    ]
