"""The files that sender and receiver write: fixed-size records, little-endian, no padding.

::

    sent       sequence u32 | scheduled_ns u64 | sent_ns u64
    received   sequence u32 | flags u32 | sent_ns u64 | received_ns u64

sent      one record per frame that the kernel took, in the order of sending; both times are the
          sender's monotonic clock
received  one record per frame of the flow, in the order of arrival.  ``flags`` and the number
          that stands for a damaged one are those of ``payload``.  ``sent_ns`` is what the frame
          says: since the flow's start (``started_ns`` of the sender's summary).  ``received_ns``
          is the receiver's monotonic clock
"""

from __future__ import annotations

import os
import struct

SENT = struct.Struct("<IQQ")
SENT_FIELDS = ("sequence", "scheduled_ns", "sent_ns")
RECEIVED = struct.Struct("<IIQQ")
RECEIVED_FIELDS = ("sequence", "flags", "sent_ns", "received_ns")

_CHUNK_RECORDS = 2048


class RecordWriter:
    """A new file of records, readable by its owner only, written in chunks and on request."""

    def __init__(self, path: str, layout: struct.Struct) -> None:
        self._file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
        self._layout = layout
        self._chunk = bytearray(layout.size * _CHUNK_RECORDS)
        self._filled = 0

    def close(self) -> None:
        try:
            self.flush()
        finally:
            os.close(self._file)

    def add(self, *fields: int) -> None:
        self._layout.pack_into(self._chunk, self._filled, *fields)
        self._filled += self._layout.size
        if self._filled == len(self._chunk):
            self.flush()

    def flush(self) -> None:
        """Write what has been added."""
        rest = memoryview(self._chunk)[: self._filled]
        while rest:
            rest = rest[os.write(self._file, rest) :]
        self._filled = 0
