"""When QEMU copied each page of a guest's memory: its own trace of it.

Ref: QEMU, migration/trace-events, ``ram_save_page``, which a page of zeroes has not; with
``-msg timestamp=on`` each line begins with the wall clock's time in UTC.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pandas as pd

from harness.errors import MeasurementError

PAGE = 4096

IN_ONE_GO = 64
"""Pages that may wait before they are sent, and are read only then.

Ref: QEMU, migration/qemu-file.c, ``MAX_IOV_SIZE``; each takes at least one entry.
"""


def read_copies(trace: bytes, block: str, *, end_ns: int) -> pd.DataFrame:
    """The copies of *block*, in the order in which they were made: ``page``, ``t_ns``, ``done_ns``.

    *page* is the page's number in the block; it was read at some time from *t_ns* to *done_ns*
    (int64, wall clock).  The last copy was made by *end_ns*.  Raises MeasurementError for a line
    that is not as QEMU writes it.
    """
    whole = trace.split(b"\n")[:-1]
    saved = [line.split() for line in whole if b" ram_save_page " in line]
    try:
        _check_shape(saved)
        t_ns = _stamps_ns(saved)
        ours = np.array([line[2] == f"{block}:".encode() for line in saved], dtype=bool)
        pages = np.array([int(line[4], 16) // PAGE for line in saved], dtype="int64")
    except (ValueError, IndexError, OverflowError) as error:
        raise MeasurementError(
            f"QEMU's trace of the pages that it copied cannot be read: {error}",
            because="a line of it is cut, or this QEMU writes it in another way",
            fix="see that file in the guest's folder: this reads what QEMU 11.1 writes",
        ) from error
    last_ns = np.full(min(IN_ONE_GO, len(saved)), end_ns, dtype="int64")
    done_ns = np.concatenate([t_ns[IN_ONE_GO:], last_ns])
    return pd.DataFrame({"page": pages[ours], "t_ns": t_ns[ours], "done_ns": done_ns[ours]})


def _check_shape(saved: list[list[bytes]]) -> None:
    """Raise ValueError or IndexError for a line without offset and host address."""
    for line in saved:
        if line[5] != b"host:" or not line[6] or not line[4].startswith(b"0x"):
            raise ValueError(f"no offset and host address in {b' '.join(line).decode()!r}")


def _stamps_ns(saved: list[list[bytes]]) -> npt.NDArray[np.int64]:
    stamps = pd.to_datetime([line[0].decode() for line in saved], utc=True, format="ISO8601")
    return stamps.as_unit("ns").asi8
