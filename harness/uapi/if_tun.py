"""<linux/if_tun.h>, v6.1: a tap, an interface whose wire is a file descriptor."""

from __future__ import annotations

from enum import IntEnum, IntFlag

from harness.uapi.mirror import iow, numbers


@numbers("linux/if_tun.h", "TUN{}")
class Ioctl(IntEnum):
    """Requests to /dev/net/tun."""

    SETIFF = iow("T", 202, 4)
    """Takes a struct ifreq of <linux/if.h>, though its number says an int."""


@numbers("linux/if_tun.h", "IFF_{}")
class Flag(IntFlag):
    """``ifr_flags`` for SETIFF."""

    TAP = 0x0002
    NO_PI = 0x1000
    VNET_HDR = 0x4000
