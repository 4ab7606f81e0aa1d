"""When QEMU copied each page of a guest's memory: its own trace of it.

Ref: QEMU, migration/trace-events, ``ram_save_page``, which a page of zeroes has not; with
``-msg timestamp=on`` each line begins with the wall clock's time in UTC.
"""

from __future__ import annotations

import numpy as np
import pandas as pd

PAGE = 4096

IN_ONE_GO = 64
"""Pages that may wait before they are sent, and are read only then.

Ref: QEMU, migration/qemu-file.c, ``MAX_IOV_SIZE``; each takes at least one entry.
"""


def read_copies(trace: bytes, block: str, *, end_ns: int) -> pd.DataFrame:
    """The copies of *block*, in the order in which they were made: ``page``, ``t_ns``, ``done_ns``.

    *page* is the page's number in the block; it was read at some time from *t_ns* to *done_ns*
    (int64, wall clock).  The last copy was made by *end_ns*.
    """
    whole = trace.split(b"\n")[:-1]
    saved = [line.split() for line in whole if b" ram_save_page " in line]
    stamps = pd.to_datetime([line[0].decode() for line in saved], utc=True, format="ISO8601")
    t_ns = stamps.as_unit("ns").asi8
    last_ns = np.full(min(IN_ONE_GO, len(saved)), end_ns, dtype="int64")
    done_ns = np.concatenate([t_ns[IN_ONE_GO:], last_ns])
    ours = np.array([line[2] == f"{block}:".encode() for line in saved], dtype=bool)
    pages = np.array([int(line[4], 16) // PAGE for line in saved], dtype="int64")
    return pd.DataFrame({"page": pages[ours], "t_ns": t_ns[ours], "done_ns": done_ns[ours]})
