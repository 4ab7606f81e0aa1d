"""Digests of a process's memory, read while the process goes on with its own work."""

from __future__ import annotations

import ctypes
import mmap
import os
import subprocess
import sys
import threading
from array import array
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from descriptors import no_descriptor_left

from harness.agent import process_memory
from harness.agent.errors import AgentError
from harness.agent.memory_digest import DIGESTS, digest, digest_pages, speeds
from harness.agent.process_memory import CHUNK, PAGE, memory_of

GIB = 1 << 30


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


def digested(folder: Path, kind: str = "crc32", pid: int = 0, **where: object) -> array[int]:
    """What `digest` writes of this process, as numbers."""
    path = folder / "digests"
    made = digest(pid or os.getpid(), str(path), kind, **where)  # type: ignore[arg-type]
    numbers = array(DIGESTS[kind].code, path.read_bytes())
    assert made["pages"] == len(numbers)
    return numbers


def numbers_of(kind: str, *pages: bytes) -> list[int]:
    return [DIGESTS[kind].digest_of(memoryview(page.ljust(PAGE, b"\0"))) for page in pages]


@pytest.mark.parametrize("kind", DIGESTS)
def test_a_digest_for_each_page_in_their_order(tmp_path: Path, kind: str) -> None:
    pages = [b"first", b"", b"third"]
    with memory("ram", *pages):
        found = digested(tmp_path, kind, name="ram")
    assert list(found) == numbers_of(kind, *pages)


@pytest.mark.parametrize("kind", DIGESTS)
def test_memory_that_is_not_shared_is_read_through_its_process(tmp_path: Path, kind: str) -> None:
    """A whole number of chunks and a page more, of which only the first and last were written."""
    size = 2 * CHUNK + PAGE
    with mmap.mmap(-1, size, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS) as own:
        own[:5], own[size - 4 : size] = b"first", b"last"
        address = ctypes.addressof(ctypes.c_char.from_buffer(own))
        found = digested(tmp_path, kind, address=address, size=size)
    last = bytes(PAGE - 4) + b"last"
    assert [found[0], found[-1]] == numbers_of(kind, b"first", last)
    assert set(found[1:-1]) == set(numbers_of(kind, b""))


def test_sixty_four_gibibytes_are_digested_without_being_held(tmp_path: Path) -> None:
    """Memory that its guest never touched costs nothing, and stays untouched."""
    descriptor = os.memfd_create("ram")
    os.ftruncate(descriptor, 64 * GIB)
    os.pwrite(descriptor, b"last", 64 * GIB - PAGE)
    limited = (
        "import resource, sys; from harness.agent.memory_digest import digest; "
        "resource.setrlimit(resource.RLIMIT_AS, (1 << 29, 1 << 29)); "
        "print(digest(int(sys.argv[1]), sys.argv[2], 'crc32', name='ram')['untouched'])"
    )
    path = tmp_path / "digests"
    argv = [sys.executable, "-c", limited, str(os.getpid()), str(path)]
    done = subprocess.run(argv, check=True, capture_output=True, text=True)
    held = os.fstat(descriptor).st_blocks * 512
    os.close(descriptor)
    pages, chunk = 64 * GIB // PAGE, CHUNK // PAGE
    assert int(done.stdout) == pages - chunk
    assert path.stat().st_size == 4 * pages
    assert held == PAGE
    with path.open("rb") as file:
        file.seek(4 * (pages - 1))
        assert list(array("I", file.read())) == numbers_of("crc32", b"last")


def test_each_digest_has_a_speed() -> None:
    found = speeds()
    assert found.keys() == DIGESTS.keys()
    assert min(found.values()) > 1e6


def test_memory_that_is_not_there_is_told(tmp_path: Path) -> None:
    """One byte more than there is would be read as an error in the middle of a migration."""
    with mmap.mmap(-1, PAGE) as own:
        address = ctypes.addressof(ctypes.c_char.from_buffer(own))
    with pytest.raises(AgentError, match=f"no {PAGE} bytes of memory at {address:#x}"):
        digested(tmp_path, address=address, size=PAGE)


def test_descriptors_that_are_closed_meanwhile_do_not_matter(tmp_path: Path) -> None:
    """A QEMU that has just received its guest closes the connection that it came by."""
    with memory("ram", b"one"), descriptors_come_and_go():
        for _ in range(200):
            digested(tmp_path, name="ram")


def test_a_process_without_shared_memory_is_told(tmp_path: Path) -> None:
    with pytest.raises(AgentError, match=f"process {os.getpid()} has no shared memory called ram"):
        digested(tmp_path, name="ram")


def test_a_process_that_has_ended_is_told(tmp_path: Path) -> None:
    with pytest.raises(AgentError, match="No such file or directory") as gone:
        digested(tmp_path, pid=2**22 + 1, name="ram")
    assert gone.value.because == "it has ended, or is not ours"


def test_pages_are_digested_in_the_order_that_was_asked_for() -> None:
    """Those under a ring lie anywhere, and none between them is looked at."""
    held = mmap.mmap(-1, 3 * PAGE, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    address = ctypes.addressof(ctypes.c_char.from_buffer(held))
    held[2 * PAGE : 2 * PAGE + 5] = b"third"
    asked = [address + 2 * PAGE, address]
    assert digest_pages(os.getpid(), asked) == numbers_of("crc32", b"third", b"")
    assert digest_pages(os.getpid(), []) == []


def test_memory_that_cannot_be_read_leaves_no_descriptor_open() -> None:
    """An agent is asked for many guests, one of which may just have ended."""
    with (
        no_descriptor_left(),
        pytest.raises(AgentError),
        memory_of(os.getpid(), address=PAGE, size=PAGE),
    ):
        pytest.fail("there is no memory")


def test_a_process_that_ends_once_its_memory_was_found_is_told(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(process_memory, "_descriptor", lambda *_: "/proc/0/fd/3")
    with pytest.raises(AgentError), memory_of(os.getpid(), "ram"):
        pytest.fail("there is no memory")


def test_memory_of_which_the_kernel_does_not_say_whether_it_was_touched_is_read(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A page map ends where its process's memory does; what is not known is not zeroes."""
    held = mmap.mmap(-1, 2 * PAGE, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    address = ctypes.addressof(ctypes.c_char.from_buffer(held))
    with memory_of(os.getpid(), address=address, size=2 * PAGE) as stretch:
        assert stretch.untouched(0, PAGE)
        monkeypatch.setattr(os, "pread", lambda *_: b"")
        assert not stretch.untouched(0, PAGE)
