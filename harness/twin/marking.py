"""Marking dirty what the device wrote straight into the guest's memory: the driver's part.

The client's dirty-page tracking sees writes by message only.  So one byte of each page is written
again by message, with the value that it has: the dummy write of a driver that marks its own pages.
It is the last byte that the device wrote there, which the guest's kernel, whose headers are at the
front, hardly ever writes itself.
"""

from __future__ import annotations

from harness.twin.memory import PAGE, GuestMemory


def mark(memory: GuestMemory, since: int) -> int:
    """Mark every page that was written from record *since* of the DMA log on; how many.

    Raises DmaFault where the client refuses, as QEMU does for a device without Bus Master Enable,
    and ValueError where the log does not tell all that was written.
    """
    if memory.log is None or memory.log.dropped:
        what = "there is no DMA log" if memory.log is None else "the DMA log is full"
        raise ValueError(f"{what}: nobody knows which pages to mark")
    last: dict[int, int] = {}
    for address, length in memory.log.written(since):
        end = address + length
        for page in range(address // PAGE, (end - 1) // PAGE + 1):
            last[page] = min(end, (page + 1) * PAGE) - 1
    for place in last.values():
        memory.write_by_message(place, bytes(memory.peek(place, 1)))
    return len(last)
