"""<linux/sched.h>, v6.1: setns(2), by which a thread enters another namespace."""

from __future__ import annotations

import ctypes
import os
from enum import IntFlag

from harness.uapi.mirror import numbers


@numbers("linux/sched.h", "CLONE_{}")
class Clone(IntFlag):
    """Kinds of namespaces."""

    NEWNET = 0x40000000


_libc = ctypes.CDLL(None, use_errno=True)


def enter_network(descriptor: int) -> None:
    """Move this thread, and no other, into the network namespace that *descriptor* stands for.

    Raises OSError: EINVAL if it stands for another kind, EPERM without CAP_SYS_ADMIN.
    """
    if _libc.setns(descriptor, Clone.NEWNET) != 0:
        error = ctypes.get_errno()
        raise OSError(error, os.strerror(error), "setns")
