"""What is in a guest's memory, page by page: a digest of each, so that two can be compared."""

from __future__ import annotations

import hashlib
import os
import time
import zlib
from array import array
from typing import Any, Callable, NamedTuple

from harness.agent.process_memory import CHUNK, PAGE, memory_of


def _blake2b(page: memoryview) -> int:
    return int.from_bytes(hashlib.blake2b(page, digest_size=8).digest(), "little")


class Digest(NamedTuple):
    """What makes a number of a page, and the numbers' type, as of ``array``."""

    code: str
    digest_of: Callable[[Any], int]


DIGESTS = {"crc32": Digest("I", zlib.crc32), "blake2b": Digest("Q", _blake2b)}
"""By name.  Which is faster depends on the machine; 32 bits miss one change of four billion."""

_SAMPLE = 16 << 20


def digest(
    pid: int, path: str, digest: str, name: str = "", address: int = 0, size: int = 0
) -> dict[str, Any]:
    """Write a *digest* (of DIGESTS) of each page of a process's memory to the file *path*.

    Which memory is as `memory_of` has it.  The numbers are in the order of the pages,
    little-endian.  Returns how many pages, how many of them nobody has
    touched, and the seconds that it took.  Raises AgentError if there is no such memory.
    """
    code, digest_of = DIGESTS[digest]
    of_zeroes = digest_of(memoryview(bytes(PAGE)))
    began, untouched = time.monotonic(), 0
    where = memory_of(pid, name, address, size)
    with where as memory, open(path, "wb", opener=_for_owner) as out:
        buffer = memoryview(bytearray(CHUNK))
        for begin in range(0, memory.size, CHUNK):
            length = min(CHUNK, memory.size - begin)
            if memory.untouched(begin, length):
                untouched += length // PAGE
                digests = array(code, [of_zeroes]) * (length // PAGE)
            else:
                chunk = buffer[:length]
                memory.read(begin, chunk)
                pages = (chunk[at : at + PAGE] for at in range(0, length, PAGE))
                digests = array(code, map(digest_of, pages))
            out.write(digests.tobytes())
    seconds = time.monotonic() - began
    return {"pages": memory.size // PAGE, "untouched": untouched, "seconds": seconds}


def digest_pages(pid: int, addresses: list[int]) -> list[int]:
    """A CRC-32 of each page of a process's memory that begins at one of *addresses*."""
    if not addresses:
        return []
    first, numbers, page = min(addresses), [], bytearray(PAGE)
    with memory_of(pid, address=first, size=max(addresses) + PAGE - first) as memory:
        for address in addresses:
            memory.read(address - first, memoryview(page))
            numbers.append(zlib.crc32(page))
    return numbers


def speeds() -> dict[str, float]:
    """How many bytes a second each of DIGESTS takes in here, by name, on one processor."""
    sample = memoryview(os.urandom(CHUNK))
    pages = [sample[at : at + PAGE] for at in range(0, CHUNK, PAGE)]
    return {name: _speed(each.digest_of, pages) for name, each in DIGESTS.items()}


def _speed(digest_of: Callable[[Any], int], pages: list[memoryview]) -> float:
    began = time.perf_counter()
    for _ in range(_SAMPLE // CHUNK):
        array("Q", map(digest_of, pages))
    return _SAMPLE / (time.perf_counter() - began)


def _for_owner(path: str, flags: int) -> int:
    return os.open(path, flags, 0o600)
