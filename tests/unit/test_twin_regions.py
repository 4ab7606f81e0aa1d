"""A guest with a vIOMMU lends memory page by page: many regions of few files."""

from __future__ import annotations

import errno
import os
from contextlib import ExitStack
from pathlib import Path

import pytest
from descriptors import memory_file, open_descriptors
from hypothesis import given, settings
from hypothesis import strategies as st
from vfio_client import LENT, Client, Refusal, Twin, first_client, mapping, served_twin

from harness.twin import regions
from harness.twin.control import Control
from harness.twin.dma_log import Kind
from harness.twin.memory import DmaFault
from harness.twin.regions import PAGE, Refused, Regions
from harness.uapi.pci_regs import Command as PciCommand
from harness.uapi.pci_regs import Register
from harness.uapi.vfio_user import Command, MapFlag

twin, client = pytest.fixture(served_twin), pytest.fixture(first_client)


# --- many of them ---------------------------------------------------------------------------

Range = tuple[str, int, int]
RANGES = st.lists(
    st.tuples(st.sampled_from(["lend", "take back"]), st.integers(0, 40), st.integers(1, 12)),
    max_size=60,
)


class Pages:
    """A model of `Regions` knows for each page which region has the page."""

    def __init__(self) -> None:
        self.owner: dict[int, tuple[int, int]] = {}

    def do(self, what: str, first: int, count: int) -> int:
        """Lend or take back pages; return the errno, or 0."""
        pages = range(first, first + count)
        owners = {self.owner[page] for page in pages if page in self.owner}
        if what == "lend":
            if owners:
                return errno.EEXIST
            self.owner.update(dict.fromkeys(pages, (first, count)))
            return 0
        if any(at < first or at + size > first + count for at, size in owners):
            return errno.EINVAL
        for page in pages:
            self.owner.pop(page, None)
        return 0

    def covering(self, first: int, count: int) -> list[tuple[int, int]]:
        pages = range(first, first + count)
        if not all(page in self.owner for page in pages):
            return []
        return sorted({self.owner[page] for page in pages})


def outcome(lent: Regions, what: str, first: int, count: int) -> int:
    try:
        if what == "lend":
            lent.add(first * PAGE, count * PAGE, LENT, 0, None)
        else:
            lent.remove(first * PAGE, count * PAGE)
    except Refused as refused:
        return refused.error
    return 0


@settings(max_examples=300)
@given(ranges=RANGES, block=st.sampled_from([1, 2, 1024]))
def test_regions_are_what_their_pages_say(ranges: list[Range], block: int) -> None:
    """Small blocks split, and run empty, at every turn."""
    lent, pages = Regions(), Pages()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(regions, "_BLOCK", block)
        for each in ranges:
            assert outcome(lent, *each) == pages.do(*each)
            known = [(region.address // PAGE, region.size // PAGE) for region in lent.all()]
            assert known == sorted(set(pages.owner.values()))
            assert len(lent) == len(known)
            first, count = each[1], each[2]
            for at, length in ((first * PAGE, count * PAGE), (first * PAGE + 5, PAGE)):
                found = lent.covering(at, length)
                of_pages = pages.covering(at // PAGE, -(-(at % PAGE + length) // PAGE))
                assert [(each.address // PAGE, each.size // PAGE) for each in found] == of_pages


@pytest.mark.parametrize("step", [1, -1])
def test_thousands_of_regions_are_lent_and_found(step: int) -> None:
    """Linux hands out a device's addresses from the top down, and testpmd from the bottom up."""
    lent = Regions()
    order = range(5000)[::step]
    for page in order:
        lent.add(page * 2 * PAGE, PAGE, LENT, 0, None)
    assert [region.address for region in lent.all()] == [page * 2 * PAGE for page in range(5000)]
    assert all(lent.covering(page * 2 * PAGE + 7, 9) for page in order)
    assert not any(lent.covering(page * 2 * PAGE + PAGE, 1) for page in order)
    lent.remove(0, 10_000 * PAGE)
    assert (len(lent), lent.all()) == (0, ())


def test_a_map_too_many_is_refused_and_told(
    twin: Twin, client: Client, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """A limit that is met in silence is a guest without a network, and nothing that says why."""
    monkeypatch.setattr(regions, "MOST_REGIONS", 3)
    for page in range(3):
        client.lend(page * PAGE, PAGE)
    for _ in range(4):
        with pytest.raises(Refusal) as refused:
            client.lend(3 * PAGE, PAGE)
        assert refused.value.error == errno.ENOSPC
    said = capfd.readouterr().err
    assert said.count("\n") == 1
    assert "twin: it refused to map 0x1000 bytes at 0x3000: No space left on device; " in said
    assert "give the guest larger pages, or iommu=pt" in said
    status = Control(twin.device, lambda: True).status()
    assert (status["dma"]["maps"], status["dma"]["refusals"]) == (3, 4)
    client.unmap(0, PAGE)
    client.lend(3 * PAGE, PAGE)


def test_each_client_hears_of_its_own_refusals(
    twin: Twin, client: Client, capfd: pytest.CaptureFixture[str]
) -> None:
    """The second user of a twin must not be in the dark because the first one was told."""
    for each in (client, None):
        asking = each or twin.connect()
        asking.lend(0, 2 * PAGE)
        for ask in (asking.unmap, asking.lend, asking.unmap):
            with pytest.raises(Refusal):
                ask(0, PAGE)
        asking.hang_up()
        twin.served()
    said = capfd.readouterr().err
    assert said.count("it refused to unmap 0x1000 bytes at 0x0: Invalid argument; ") == 2
    assert said.count("\n") == 2


# --- one file -------------------------------------------------------------------------------


def mapped_files() -> int:
    """Count how often this process has a file of a test's guest mapped."""
    maps = Path("/proc/self/maps").read_text().splitlines()
    return sum("memfd:guest" in line for line in maps)


def test_a_file_is_mapped_once_however_many_regions_lie_in_it(client: Client) -> None:
    """A process may have 65,530 maps, and often 1024 descriptors; a strict vIOMMU makes more."""
    before, held = mapped_files(), open_descriptors()
    with memory_file(64 * PAGE) as file:
        for page in range(64):
            client.ask(Command.DMA_MAP, mapping(page * PAGE, PAGE, offset=page * PAGE), file)
    for page in range(63):
        client.unmap(page * PAGE, PAGE)
        assert len(open_descriptors() - held) == 1
    assert mapped_files() - before == 1
    client.unmap(63 * PAGE, PAGE)
    assert (mapped_files(), open_descriptors()) == (before, held)


def test_a_file_that_has_grown_is_mapped_anew(twin: Twin, client: Client) -> None:
    """The old map stays for the regions that were lent before, and goes with them."""
    before = mapped_files()
    with memory_file(PAGE) as file:
        client.ask(Command.DMA_MAP, mapping(0, PAGE), file)
        os.ftruncate(file, 2 * PAGE)
        os.pwrite(file, b"first", 0)
        os.pwrite(file, b"second", PAGE)
        client.ask(Command.DMA_MAP, mapping(PAGE, PAGE, offset=PAGE), file)
        client.ask(Command.DMA_MAP, mapping(2 * PAGE, PAGE), file)
    peek = twin.device.memory.peek
    assert mapped_files() - before == 2
    assert (bytes(peek(0, 5)), bytes(peek(PAGE, 6))) == (b"first", b"second")
    client.unmap(0, PAGE)
    assert mapped_files() - before == 1
    assert bytes(peek(2 * PAGE, 5)) == b"first"


def test_files_are_told_apart(twin: Twin, client: Client) -> None:
    """Two files may come with one descriptor number, one after the other."""
    with memory_file(PAGE) as first, memory_file(PAGE) as second:
        for page, file in enumerate((first, second)):
            os.pwrite(file, f"file {page}".encode(), 0)
            client.ask(Command.DMA_MAP, mapping(page * PAGE, PAGE), file)
    assert bytes(twin.device.memory.peek(PAGE, 6)) == b"file 1"


def test_what_is_lent_for_reading_first_may_be_lent_for_writing_later(
    twin: Twin, client: Client, tmp_path: Path
) -> None:
    """A vIOMMU lends a frame to be sent for reading alone, and the next page for both.

    The first of two descriptors cannot be written through.
    """
    (tmp_path / "memory").write_bytes(bytes(2 * PAGE))
    client.write(7, Register.COMMAND, PciCommand.MASTER, 2)
    with ExitStack() as stack:
        for page, how in enumerate((os.O_RDONLY, os.O_RDWR)):
            file = os.open(tmp_path / "memory", how)
            stack.callback(os.close, file)
            flags = LENT if page else MapFlag.READABLE
            payload = mapping(page * PAGE, PAGE, flags=flags, offset=page * PAGE)
            client.ask(Command.DMA_MAP, payload, file)
    twin.device.memory.write(PAGE, b"written", Kind.RX_DATA)
    with pytest.raises(DmaFault):
        twin.device.memory.write(0, b"no", Kind.RX_DATA)
    assert (tmp_path / "memory").read_bytes()[: PAGE + 8] == bytes(PAGE) + b"written\0"


# --- what is told of them -------------------------------------------------------------------


def test_what_is_lent_is_told_in_as_few_stretches_as_there_are(twin: Twin, client: Client) -> None:
    """Regions that are neighbours in the guest and in one file are told as one stretch."""
    with memory_file(8 * PAGE) as file, memory_file(8 * PAGE) as other:
        for page, place, lent in ((0, 4, file), (1, 5, file), (2, 0, file), (4, 1, file),
                                  (5, 2, other), (7, 3, None), (8, 4, file)):  # fmt: skip
            descriptors = [] if lent is None else [lent]
            offset = 0 if lent is None else place * PAGE
            payload = mapping(page * PAGE, PAGE, offset=offset)
            client.ask(Command.DMA_MAP, payload, *descriptors)
    told = Control(twin.device, lambda: True).lent()
    assert [tuple(each[key] // PAGE for key in ("address", "size", "offset")) for each in told] == [
        (0, 2, 4), (2, 1, 0), (4, 1, 1), (5, 1, 2), (8, 1, 4)
    ]  # fmt: skip
