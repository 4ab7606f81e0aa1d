"""<linux/netlink.h>, <linux/rtnetlink.h>, <linux/if_link.h> and <linux/if.h>, v6.1: links, VFs."""

from __future__ import annotations

import ctypes
from enum import IntEnum, IntFlag

from harness.uapi.mirror import mirrors, numbers

NLA_TYPE_MASK = 0x3FFF
"""The two bits above are flags (NLA_F_NESTED, NLA_F_NET_BYTEORDER) and not part of a type."""


@numbers("linux/netlink.h", "NLMSG_{}")
class Control(IntEnum):
    """``nlmsg_type`` of messages that every netlink family has."""

    ERROR = 0x2
    """Nlmsgerr follows; with ``error`` 0 it is an acknowledgement."""

    DONE = 0x3
    """The end of a dump."""


@numbers("linux/rtnetlink.h", "RTM_{}")
class RouteMessage(IntEnum):
    """``nlmsg_type`` of messages about links; Ifinfomsg follows."""

    NEWLINK = 16
    DELLINK = 17
    GETLINK = 18
    SETLINK = 19


@numbers("linux/netlink.h", "NLM_F_{}")
class MessageFlag(IntFlag):
    """``nlmsg_flags``."""

    REQUEST = 0x1
    ACK = 0x4
    DUMP = 0x300


@numbers("linux/rtnetlink.h", "RTMGRP_{}")
class Group(IntFlag):
    """What a socket that is bound to it is told unasked."""

    LINK = 1


@numbers("linux/if.h", "IFF_{}")
class InterfaceFlag(IntFlag):
    """``ifi_flags``."""

    RUNNING = 1 << 6


@numbers("linux/if_link.h", "IFLA_{}")
class LinkAttribute(IntEnum):
    """``rta_type`` after Ifinfomsg."""

    ADDRESS = 1
    IFNAME = 3
    MTU = 4
    MASTER = 10
    OPERSTATE = 16
    VFINFO_LIST = 22
    EXT_MASK = 29
    CARRIER = 33


@numbers("linux/if_link.h", "IFLA_VF_{}")
class VfListAttribute(IntEnum):
    """``rta_type`` within VFINFO_LIST, once for each VF."""

    INFO = 1


@numbers("linux/if_link.h", "IFLA_VF_{}")
class VfAttribute(IntEnum):
    """``rta_type`` within INFO."""

    MAC = 1


@numbers("linux/rtnetlink.h", "RTEXT_FILTER_{}")
class ExtendedFilter(IntFlag):
    """The 32-bit value of EXT_MASK: what a reply is to hold beyond the usual."""

    VF = 1 << 0
    SKIP_STATS = 1 << 3


@mirrors("linux/netlink.h", "struct nlmsghdr", size=16)
class Nlmsghdr(ctypes.Structure):
    """The start of every netlink message."""

    _fields_ = [
        ("nlmsg_len", ctypes.c_uint32),  # bytes, this header included
        ("nlmsg_type", ctypes.c_uint16),
        ("nlmsg_flags", ctypes.c_uint16),
        ("nlmsg_seq", ctypes.c_uint32),
        ("nlmsg_pid", ctypes.c_uint32),
    ]


@mirrors("linux/netlink.h", "struct nlmsgerr", size=20)
class Nlmsgerr(ctypes.Structure):
    """An answer: ``error`` is 0 or a negative errno."""

    _fields_ = [
        ("error", ctypes.c_int),
        ("msg", Nlmsghdr),  # what is answered
    ]


@mirrors("linux/rtnetlink.h", "struct ifinfomsg", size=16)
class Ifinfomsg(ctypes.Structure):
    """Which link is meant."""

    _fields_ = [
        ("ifi_family", ctypes.c_uint8),
        ("ifi_type", ctypes.c_ushort),
        ("ifi_index", ctypes.c_int),
        ("ifi_flags", ctypes.c_uint),
        ("ifi_change", ctypes.c_uint),
    ]


@mirrors("linux/rtnetlink.h", "struct rtattr", size=4)
class Rtattr(ctypes.Structure):
    """The start of an attribute; attributes begin at multiples of 4 bytes."""

    _fields_ = [
        ("rta_len", ctypes.c_ushort),  # bytes, this header included, padding not
        ("rta_type", ctypes.c_ushort),
    ]


@mirrors("linux/if_link.h", "struct ifla_vf_mac", size=36)
class IflaVfMac(ctypes.Structure):
    """The MAC address that a port's filter holds for one of its VFs."""

    _fields_ = [
        ("vf", ctypes.c_uint32),
        ("mac", ctypes.c_uint8 * 32),  # an Ethernet address is the first 6
    ]
