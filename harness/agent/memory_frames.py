"""Which of our numbered frames are in a guest's memory: what got there got there by DMA.

A frame that the guest sends on, or copies, is there more than once.  One whose page was used for
something else since is not there any more: it is the newest that says until when frames came in.
"""

from __future__ import annotations

import struct
from typing import Any

from harness.agent.payload import HEADER_BYTES, MAGIC, NO_SEQUENCE, Place, Reader
from harness.agent.process_memory import CHUNK, memory_of

MOST_BYTES = 64 << 10
"""Of one `read`: it comes back in a line of text."""


def newest(pid: int, flow: int, name: str = "", address: int = 0, size: int = 0) -> dict[str, Any]:
    """Look for frames of *flow* in a process's memory, which is as `memory_of` has it.

    Returns how many headers were found that are whole (*frames*), and the highest sequence number
    among them (*newest*, None without any).
    """
    needle, reader = struct.pack(">HH", MAGIC, flow), Reader(flow)
    found, highest = 0, -1
    buffer = bytearray(CHUNK + HEADER_BYTES)  # what begins at the end of a chunk ends in the next
    with memory_of(pid, name, address, size) as memory:
        for begin in range(0, memory.size, CHUNK):
            length = min(len(buffer), memory.size - begin)
            if memory.untouched(begin, min(CHUNK, length)):
                continue
            memory.read(begin, memoryview(buffer)[:length])
            at = buffer.find(needle, 0, length)
            while 0 <= at < CHUNK:
                end = min(at + HEADER_BYTES, length)
                sequence = reader.read(buffer, Place("datagram", at, end, end)).sequence
                if sequence != NO_SEQUENCE:
                    found, highest = found + 1, max(highest, sequence)
                at = buffer.find(needle, at + 1, length)
    return {"frames": found, "newest": highest if found else None}


def read(pid: int, address: int, size: int) -> str:
    """Bytes of a process's memory, as hexadecimal digits; at most MOST_BYTES."""
    data = bytearray(min(size, MOST_BYTES))
    with memory_of(pid, address=address, size=len(data)) as memory:
        memory.read(0, memoryview(data))
    return data.hex()
