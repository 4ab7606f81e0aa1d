"""Model-specific registers of this machine's processors."""

from __future__ import annotations

import errno
import os
from pathlib import Path
from typing import Any

_FOLDER = Path("/dev/cpu")


def read(register: int) -> list[Any]:
    """Read *register* on each processor: its number, or None where it has no such register.

    Empty where the kernel does not give them away: without its module ``msr``.  Ref: msr(4).
    """
    values: list[Any] = []
    for device in sorted(_FOLDER.glob("*/msr"), key=lambda path: int(path.parent.name)):
        descriptor = os.open(device, os.O_RDONLY | os.O_CLOEXEC)
        try:
            values.append(int.from_bytes(os.pread(descriptor, 8, register), "little"))
        except OSError as error:
            if error.errno != errno.EIO:
                raise
            values.append(None)
        finally:
            os.close(descriptor)
    return values
