"""The twin marks the pages dirty that it wrote straight into the guest's memory.

The client's dirty-page tracking sees only writes by message.  So the twin writes one byte of each
page again, by message and with the same value: the dummy write of a driver that marks its pages.
The byte is the last that the device wrote there, since the guest's kernel writes near the front of
a frame and hardly ever there.
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
