"""Digests of a process's shared memory, read while the process goes on with its own work."""

from __future__ import annotations

import hashlib
import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from harness.agent.errors import AgentError
from harness.agent.memory_digest import DIGEST_BYTES, PAGE, digest


@contextmanager
def memory(name: str, *pages: bytes) -> Iterator[None]:
    """A memory of this process that is called *name*, as QEMU has its guest's."""
    descriptor = os.memfd_create(name)
    try:
        os.write(descriptor, b"".join(page.ljust(PAGE, b"\0") for page in pages))
        yield
    finally:
        os.close(descriptor)


@contextmanager
def descriptors_come_and_go() -> Iterator[None]:
    """What a QEMU does at any time: each listing of its descriptors is old before it is read."""
    over = threading.Event()

    def churn() -> None:
        while not over.is_set():
            os.close(os.open(os.devnull, os.O_RDONLY))

    threads = [threading.Thread(target=churn) for _ in range(3)]
    for thread in threads:
        thread.start()
    try:
        yield
    finally:
        over.set()
        for thread in threads:
            thread.join()


def test_a_digest_for_each_page_in_their_order(tmp_path: Path) -> None:
    pages = [b"first", b"", b"third"]
    with memory("ram", *pages):
        assert digest(os.getpid(), "ram", str(tmp_path / "digests")) == {"pages": 3}
    expected = [
        hashlib.blake2b(page.ljust(PAGE, b"\0"), digest_size=DIGEST_BYTES).digest()
        for page in pages
    ]
    assert (tmp_path / "digests").read_bytes() == b"".join(expected)


def test_descriptors_that_are_closed_meanwhile_do_not_matter(tmp_path: Path) -> None:
    """A QEMU that has just received its guest closes the connection that it came by."""
    with memory("ram", b"one"), descriptors_come_and_go():
        for _ in range(200):
            digest(os.getpid(), "ram", str(tmp_path / "digests"))


def test_a_process_without_shared_memory_is_told(tmp_path: Path) -> None:
    with pytest.raises(AgentError, match=f"process {os.getpid()} has no shared memory called ram"):
        digest(os.getpid(), "ram", str(tmp_path / "digests"))


def test_a_process_that_has_ended_is_told(tmp_path: Path) -> None:
    with pytest.raises(AgentError, match="No such file or directory") as gone:
        digest(2**22 + 1, "ram", str(tmp_path / "digests"))
    assert gone.value.because == "it has ended, or is not ours"
