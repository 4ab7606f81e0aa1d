"""<asm-generic/unistd.h>, v5.6: pidfd_open(2) and pidfd_getfd(2), which Python lacks in part.

Both numbers are the same on x86-64 and AArch64: system calls since v5.1 share one table.
"""

from __future__ import annotations

import ctypes
import os
from enum import IntEnum

from harness.uapi.mirror import numbers


@numbers("sys/syscall.h", "__NR_{}")
class Syscall(IntEnum):
    """Numbers for syscall(2)."""

    pidfd_open = 434
    pidfd_getfd = 438


_libc = ctypes.CDLL(None, use_errno=True)
_libc.syscall.restype = ctypes.c_long


def pidfd_open(pid: int) -> int:
    """Open a descriptor that stands for process *pid* until closed; the caller owns it.

    Raises OSError: ESRCH if there is no such process.
    """
    return _call(Syscall.pidfd_open, pid, 0)


def pidfd_getfd(pidfd: int, number: int) -> int:
    """Copy descriptor *number* of another process; the caller owns the copy, close-on-exec.

    Raises OSError: ESRCH if the process is gone, EBADF if it has no such descriptor, EPERM
    without the right to trace it (PTRACE_MODE_ATTACH_REALCREDS).
    """
    return _call(Syscall.pidfd_getfd, pidfd, number, 0)


def _call(number: Syscall, *arguments: int) -> int:
    descriptor: int = _libc.syscall(
        ctypes.c_long(number), *(ctypes.c_long(argument) for argument in arguments)
    )
    if descriptor < 0:
        error = ctypes.get_errno()
        raise OSError(error, os.strerror(error), number.name)
    return descriptor
