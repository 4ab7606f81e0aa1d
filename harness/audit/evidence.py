"""Whether a VF still writes: to the pages that its rings point to, and of frames that come in."""

from __future__ import annotations

import struct
from collections.abc import Sequence
from dataclasses import dataclass

from harness.guest.memory import PAGE, GuestMemory
from harness.host.vf import Ring
from harness.uapi.ixgbe_vf import DESCRIPTOR_BYTES, RxStatus

BUFFER_BYTES = 2048
"""Of a receive buffer at least: both drivers give a VF such or larger ones for 9000-byte MTUs."""


@dataclass(frozen=True, slots=True)
class RingPages:
    """Pages of a guest that hold receive descriptors and the buffers that the VF has, by number."""

    memory: GuestMemory
    numbers: tuple[int, ...]

    @classmethod
    def of(cls, memory: GuestMemory, rings: Sequence[Ring]) -> RingPages:
        """Those of *rings*, as their descriptors are now."""
        numbers: set[int] = set()
        for ring in rings:
            size = ring.count * DESCRIPTOR_BYTES
            numbers |= _pages(ring.address, size)
            for address in buffers(memory.read(ring.address, size), ring):
                numbers |= _pages(address, BUFFER_BYTES)
        return cls(memory, tuple(sorted(filter(memory.has, numbers))))

    def changed_since(self, before: Sequence[int]) -> int:
        """How many have changed since `digests` gave *before*."""
        return sum(a != b for a, b in zip(before, self.digests(), strict=True))

    def digests(self) -> list[int]:
        """A number for each page."""
        return self.memory.digest_pages(self.numbers)


def buffers(descriptors: bytes, ring: Ring) -> list[int]:
    """The guest's addresses of the buffers that the VF may write to: those from head to tail.

    One that the VF has written back since (DD is set) holds no address any more.
    """
    count = (ring.tail - ring.head) % ring.count
    numbers = ((ring.head + n) % ring.count for n in range(count))
    read = (struct.unpack_from("<QQ", descriptors, n * DESCRIPTOR_BYTES) for n in numbers)
    return [packet for packet, header in read if not header & RxStatus.DD]


def _pages(address: int, size: int) -> set[int]:
    return set(range(address // PAGE, (address + size - 1) // PAGE + 1))
