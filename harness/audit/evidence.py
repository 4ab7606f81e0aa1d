"""Whether a VF still writes: to the pages that its rings point to, and of frames that come in."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from harness.guest.memory import PAGE, GuestMemory
from harness.host.vf import Ring
from harness.uapi.ixgbe_vf import DESCRIPTOR_BYTES, RX_READ, RX_WRITEBACK, RxStatus

BUFFER_BYTES = 2048
"""Of a receive buffer at least: both drivers give a VF such or larger ones for 9000-byte MTUs."""

HELD = 32
"""How many buffers a driver may hold before it gives them to the VF again.

Linux's do from 16 on: IGBVF_RX_BUFFER_WRITE, IXGBEVF_RX_BUFFER_WRITE.
"""


@dataclass(frozen=True, slots=True)
class RingPages:
    """Pages of a guest that hold receive descriptors and the *buffers* that the VF has.

    *numbers* are the guest's own, in order; *buffers* is how many buffers there are in its memory.
    A descriptor that was never filled has address 0.
    """

    memory: GuestMemory
    numbers: tuple[int, ...]
    buffers: int

    @classmethod
    def of(cls, memory: GuestMemory, rings: Sequence[Ring]) -> RingPages:
        """Those of *rings*, as their descriptors are now."""
        numbers: set[int] = set()
        given: set[int] = set()
        for ring in rings:
            size = ring.count * DESCRIPTOR_BYTES
            numbers |= _pages(ring.address, size)
            given.update(buffers(memory.read(ring.address, size), ring))
        given = {address for address in given if address and memory.has(address // PAGE)}
        for address in given:
            numbers |= _pages(address, BUFFER_BYTES)
        return cls(memory, tuple(sorted(filter(memory.has, numbers))), len(given))

    def changed_since(self, before: Sequence[int]) -> int:
        """How many have changed since `digests` gave *before*."""
        return sum(a != b for a, b in zip(before, self.digests(), strict=True))

    def digests(self) -> list[int]:
        """A number for each page."""
        return self.memory.digest_pages(self.numbers)


def as_given(rings: Sequence[Ring]) -> list[Ring]:
    """*rings*, and each of them as its driver has it: all but what it holds, which is behind tail.

    A VF whose writes come to nothing may walk through its ring all the same, as QEMU's igb does
    without BME: from head to tail there is no buffer then, and none was written back.
    """
    return [
        *rings,
        *(replace(r, head=(r.tail + min(HELD, r.count // 4)) % r.count) for r in rings),
    ]


def buffers(descriptors: bytes, ring: Ring) -> list[int]:
    """The guest's addresses of the buffers that the VF may write to: those from head to tail.

    A descriptor that the VF has written back since holds no address: DD is set, and there is a
    length.  DD alone says nothing, since ixgbevf clears the length only as it gives a buffer again,
    nor does a length alone, which may be part of an address for headers.
    Ref: ixgbevf_alloc_rx_buffers(), igbvf_alloc_rx_buffers().
    """
    count, found = (ring.tail - ring.head) % ring.count, []
    for number in range(ring.head, ring.head + count):
        at = number % ring.count * DESCRIPTOR_BYTES
        address, _ = RX_READ.unpack_from(descriptors, at)
        _, _, status, length, _ = RX_WRITEBACK.unpack_from(descriptors, at)
        if not (status & RxStatus.DD and length):
            found.append(address)
    return found


def _pages(address: int, size: int) -> set[int]:
    return set(range(address // PAGE, (address + size - 1) // PAGE + 1))
