"""Descriptors that tests lend, and that nobody may leave open."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path


@contextmanager
def memory_file(size: int) -> Iterator[int]:
    """A descriptor of memory that can be lent."""
    descriptor = os.memfd_create("guest", os.MFD_CLOEXEC)
    try:
        os.ftruncate(descriptor, size)
        yield descriptor
    finally:
        os.close(descriptor)


@contextmanager
def eventfds(count: int) -> Iterator[list[int]]:
    """Eventfds as a client has them."""
    descriptors = [os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC) for _ in range(count)]
    try:
        yield descriptors
    finally:
        for each in descriptors:
            os.close(each)


def signals(*descriptors: int) -> list[int]:
    """How often each eventfd was signalled since it was last looked at."""
    counts = []
    for each in descriptors:
        try:
            counts.append(os.eventfd_read(each))
        except BlockingIOError:
            counts.append(0)
    return counts


@contextmanager
def no_descriptor_left() -> Iterator[None]:
    """Fail if there are more descriptors at the end than at the beginning, and tell which."""
    before = open_descriptors()
    yield
    assert open_descriptors() - before == set()


def open_descriptors() -> set[tuple[str, str]]:
    """The descriptors of this process, and what each is."""
    found = set()
    for each in Path("/proc/self/fd").iterdir():
        with suppress(FileNotFoundError):  # the one that lists them
            found.add((each.name, str(each.readlink())))
    return found
