"""A client lends regions of memory, which are kept in the order of addresses, with their files.

A client with a vIOMMU lends page by page: a nested guest of 256 MiB was seen to have 65,600 regions
alive and to make 330,096.  So a region is five numbers, and a file is mapped once for all of them.
"""

from __future__ import annotations

import contextlib
import errno
import mmap
import os
from bisect import bisect, bisect_left, insort
from typing import NamedTuple

from harness.uapi.vfio_user import MapFlag

PAGE = 4096
MOST_REGIONS = 1 << 20
"""A client may lend so many regions: 4 GiB of a guest, page by page.

The client hears this number as ``max_dma_maps``, or its own if that is smaller.  QEMU offers
65,535, takes no more for an answer (hw/vfio-user/proxy.c, check_max_dma), and counts nothing: it
makes as many maps as its guest does.  So this limit holds, whatever number was agreed on.
"""

_TOP = 1 << 64
_BLOCK = 1024


class Refused(Exception):
    """A command that cannot be done; *error* is the errno that says why."""

    def __init__(self, error: int) -> None:
        super().__init__(os.strerror(error))
        self.error = error


class LentFile:
    """A file of the client's is mapped whole; *regions* counts the regions that lie in the file."""

    def __init__(self, key: tuple[int, int], descriptor: int, size: int, access: int) -> None:
        """Map *size* bytes of the file; *descriptor* stays the caller's.

        Raises OSError, ValueError or OverflowError where that is not possible.
        """
        self.key = key
        self.size = size
        self.is_writable = access == mmap.ACCESS_WRITE
        self.regions = 0
        self._map = mmap.mmap(descriptor, size, access=access)
        self.view = memoryview(self._map)

    def close(self) -> None:
        """Unmap the file, or let an access in progress, which holds it, do so when it ends."""
        self.view.release()
        with contextlib.suppress(BufferError):
            self._map.close()


class Region(NamedTuple):
    """A stretch of memory is lent; *file* is None where it was lent without a descriptor."""

    address: int
    size: int
    flags: int
    offset: int  # in the file
    file: LentFile | None

    @property
    def end(self) -> int:
        return self.address + self.size

    def continues(self, other: Region) -> bool:
        """Whether this one goes on where *other* ends, for the guest and in the file."""
        ends = other.end, other.offset + other.size, other.file
        return (self.address, self.offset, self.file) == ends


class Regions:
    """All regions that are lent now.

    Addresses stand in blocks of a thousand or so, in order, so that a new address moves few others.
    """

    def __init__(self) -> None:
        self._at: dict[int, Region] = {}
        self._blocks: list[list[int]] = []
        self._firsts: list[int] = []  # the first address of each block
        self._files: dict[tuple[int, int], LentFile] = {}

    def __len__(self) -> int:
        return len(self._at)

    def all(self) -> tuple[Region, ...]:
        """Every region, in the order of addresses."""
        return tuple(self._at[address] for block in self._blocks for address in block)

    def holding(self, address: int, length: int) -> Region | None:
        """The region that all of *length* bytes at *address* lie in; None if there is none."""
        region = self._last_before(address + 1)
        if region is None or address + length > region.address + region.size:
            return None
        return region

    def covering(self, address: int, length: int) -> list[Region]:
        """The regions that *length* bytes at *address* lie in, in order; none if some lie in none.

        Neighbours count as one: with a vIOMMU a ring or a buffer of 9 KiB is spread over several.
        """
        region = self._last_before(address + 1)
        if region is None or address >= region.end:
            return []
        found, end = [region], address + length
        while region.end < end:
            following = self._at.get(region.end)
            if following is None:
                return []
            region = following
            found.append(region)
        return found

    def add(
        self, address: int, size: int, flags: int, offset: int, descriptor: int | None
    ) -> None:  # fmt: skip
        """Lend a stretch; *descriptor* stays the caller's.

        Raises Refused: EINVAL for one that is empty, out of bounds or not of whole pages, and for
        a file that cannot be mapped so; EEXIST for one that overlaps another; ENOSPC for one too
        many.
        """
        if len(self._at) >= MOST_REGIONS:
            raise Refused(errno.ENOSPC)
        _check_range(address, size)
        if not flags & (MapFlag.READABLE | MapFlag.WRITABLE) or flags >> 2:
            raise Refused(errno.EINVAL)
        before = self._last_before(address + size)
        if before is not None and before.end > address:
            raise Refused(errno.EEXIST)
        file = None if descriptor is None else self._file(descriptor, offset, size, flags)
        if file is not None:
            file.regions += 1
        self._at[address] = Region(address, size, flags, offset, file)
        self._place(address)

    def remove(self, address: int, size: int) -> None:
        """Give back every region that lies in the range, be that none.

        So kernel VFIO does it, and QEMU relies on it: a vIOMMU's domain that ends is unmapped as a
        whole range, and so is one that had nothing mapped.  (The text of vfio-user says that the
        range must match one map exactly; QEMU does not keep to that.)
        Raises Refused: EINVAL if a region lies in the range only in part, and nothing is given back
        then, or for a range that is none.  Ref: Linux, vfio_dma_do_unmap.
        """
        _check_range(address, size)
        end = address + size
        for edge in (address, end):
            region = self._last_before(edge)
            if region is not None and region.end > edge:
                raise Refused(errno.EINVAL)
        block = max(bisect(self._firsts, address) - 1, 0)
        while block < len(self._blocks) and self._firsts[block] < end:
            starts = self._blocks[block]
            taken = slice(bisect_left(starts, address), bisect_left(starts, end))
            for start in starts[taken]:
                self._let_go(self._at.pop(start).file)
            del starts[taken]
            if starts:
                self._firsts[block] = starts[0]
                block += 1
            else:
                del self._blocks[block], self._firsts[block]

    def clear(self) -> None:
        """Give everything back."""
        for region in self._at.values():
            self._let_go(region.file)
        self._at.clear()
        self._blocks.clear()
        self._firsts.clear()

    def _last_before(self, address: int) -> Region | None:
        """The last of the regions that begin before *address*."""
        block = bisect_left(self._firsts, address) - 1
        if block < 0:
            return None
        starts = self._blocks[block]
        return self._at[starts[bisect_left(starts, address) - 1]]

    def _place(self, address: int) -> None:
        if not self._blocks:
            self._blocks.append([])
            self._firsts.append(address)
        block = max(bisect(self._firsts, address) - 1, 0)
        starts = self._blocks[block]
        insort(starts, address)
        if len(starts) > 2 * _BLOCK:
            self._blocks[block : block + 1] = [starts[:_BLOCK], starts[_BLOCK:]]
            self._firsts.insert(block + 1, starts[_BLOCK])
        self._firsts[block] = starts[0]

    def _file(self, descriptor: int, offset: int, size: int, flags: int) -> LentFile:
        """The file that this is a stretch of, mapped now or before.

        It is mapped for writing wherever that is possible, since later regions may need that.
        Raises Refused: EINVAL where it cannot be mapped as *flags* say.
        """
        try:
            status = os.fstat(descriptor)
            if offset % PAGE or status.st_size < offset + size:
                raise Refused(errno.EINVAL)
            key, writes = (status.st_dev, status.st_ino), bool(flags & MapFlag.WRITABLE)
            file = self._files.get(key)
            if file and file.size >= offset + size and (file.is_writable or not writes):
                return file
            try:
                file = LentFile(key, descriptor, status.st_size, mmap.ACCESS_WRITE)
            except PermissionError:
                if writes:
                    raise
                file = LentFile(key, descriptor, status.st_size, mmap.ACCESS_READ)
        except (OSError, ValueError, OverflowError):
            raise Refused(errno.EINVAL) from None
        self._files[key] = file
        return file

    def _let_go(self, file: LentFile | None) -> None:
        if file is None:
            return
        file.regions -= 1
        if not file.regions:
            if self._files.get(file.key) is file:
                del self._files[file.key]
            file.close()


def _check_range(address: int, size: int) -> None:
    if not size or address + size > _TOP or address % PAGE or size % PAGE:
        raise Refused(errno.EINVAL)
