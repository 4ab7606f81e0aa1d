"""Two memories compared, and each difference held against the device's own log."""

from __future__ import annotations

from array import array
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.agent.memory_digest import DIGESTS
from harness.agent.process_memory import PAGE as AGENTS_PAGE
from harness.analysis.copies import IN_ONE_GO, PAGE, read_copies
from harness.analysis.memory import (
    Lent,
    all_zero,
    differing,
    explained,
    read_log,
    written_pages,
)
from harness.errors import MeasurementError
from harness.twin.dma_log import DmaLog, Kind

MS = 1_000_000
LOW, HIGH = Lent(0, 8 * PAGE, 0), Lent(1 << 32, 8 * PAGE, 8 * PAGE)


def digests(*pages: bytes, digest: str = "crc32") -> bytes:
    made = DIGESTS[digest]
    return array(made.code, [made.digest_of(memoryview(page)) for page in pages]).tobytes()


def log_of(folder: Path, *writes: tuple[int, int]) -> pd.DataFrame:
    log = DmaLog(str(folder / "dma.log"), 100)
    for address, length in writes:
        log.add(address, length, Kind.RX_DATA, 0)
    log.close()
    return read_log((folder / "dma.log").read_bytes())


def test_agent_and_analysis_mean_the_same_page() -> None:
    """They are two programs: one that cut pages otherwise would name others."""
    assert AGENTS_PAGE == PAGE


@pytest.mark.parametrize("digest", DIGESTS)
@given(pages=st.lists(st.tuples(st.binary(max_size=3), st.binary(max_size=3)), max_size=20))
def test_the_pages_that_differ_are_those_and_no_others(
    pages: list[tuple[bytes, bytes]], digest: str
) -> None:
    here, there = (
        digests(*side, digest=digest) for side in (zip(*pages, strict=True) if pages else ((), ()))
    )
    expected = [number for number, (a, b) in enumerate(pages) if a != b]
    assert differing(here, there, digest, len(pages)).tolist() == expected


def test_memories_of_two_sizes_are_not_compared() -> None:
    """Page by page they would all be equal, up to where the smaller one ends."""
    one, two = digests(b"a"), digests(b"a", b"b")
    for here, there in ((one, two), (two, one), (one, one), (b"", b""), (two[:-1], two[:-1])):
        with pytest.raises(MeasurementError, match="not 8: of 2 pages each"):
            differing(here, there, "crc32", 2)
    assert differing(two, two, "crc32", 2).tolist() == []


def test_a_write_is_of_every_page_that_it_touches(tmp_path: Path) -> None:
    """A frame's buffer may lie across two; the second would be called unexplained."""
    log = log_of(tmp_path, (PAGE - 2, 4), (3 * PAGE, PAGE), (5 * PAGE, 2 * PAGE + 1))
    assert sorted(written_pages(log, [LOW]).index) == [0, 1, 3, 5, 6, 7]


def test_a_page_is_known_by_its_place_in_the_memorys_file(tmp_path: Path) -> None:
    """Above 4 GiB a guest has its memory elsewhere than the file has it."""
    log = log_of(tmp_path, (2 * PAGE, 1), ((1 << 32) + PAGE, 1), (1 << 40, 1))
    for lent in ([LOW, HIGH], [HIGH, LOW]):
        assert sorted(written_pages(log, lent).index) == [2, 9]


def test_what_is_lent_no_more_is_no_page(tmp_path: Path) -> None:
    """Right behind a stretch, before all of them, and where nothing is lent at all."""
    log = log_of(tmp_path, (0, 1), (9 * PAGE, 1), (10 * PAGE, 1))
    lent = Lent(PAGE, 9 * PAGE, 20 * PAGE)
    assert written_pages(log, [lent]).index.tolist() == [28]
    assert written_pages(log, []).empty


def test_the_last_write_of_a_page_counts(tmp_path: Path) -> None:
    log = log_of(tmp_path, (0, 1), (0, 1), (PAGE, 1))
    assert written_pages(log, [LOW])[0] == log["t_ns"][1]


def traced(*lines: tuple[int, str, int]) -> pd.DataFrame:
    """QEMU's trace of copies: (microsecond, block, page); all was sent a minute later."""
    text = "".join(
        f"1970-01-01T00:00:00.{us:06d}Z ram_save_page {block}: offset: {page * PAGE:#x} host: 0\n"
        for us, block, page in lines
    )
    return read_copies(text.encode(), "ram", end_ns=60 * 10**9)


def test_a_copy_is_over_when_no_more_can_be_waiting_to_be_sent() -> None:
    """QEMU gathers pages and reads them as it sends them; those of other blocks count, too."""
    copies = traced(*((us, "pc.bios" if us % 2 else "ram", us) for us in range(100)))
    assert copies["page"].tolist() == list(range(0, 100, 2))
    assert copies["t_ns"].tolist() == [us * 1000 for us in range(0, 100, 2)]
    assert copies["done_ns"][3] == (6 + IN_ONE_GO) * 1000
    assert copies["done_ns"].iloc[-1] == 60 * 10**9


def test_what_was_printed_beside_the_copies_is_none_of_them() -> None:
    lines = b"2026-11-27T05:31:09.757942Z migration_bitmap_sync_end dirty_pages 4\nwarning: x\n"
    copies = read_copies(lines, "ram", end_ns=1)
    assert copies.empty
    assert {str(each) for each in copies.dtypes} == {"int64"}


def test_a_line_that_is_still_being_written_is_none_yet() -> None:
    line = b"2026-11-27T05:31:09.757942Z ram_save_page ram: offset: 0x1000 host: 0x7f\n"
    for cut in (40, 50, len(line) - 1):
        assert len(read_copies(line + line[:cut], "ram", end_ns=1)) == 1


@pytest.mark.parametrize(
    "line",
    [
        "2026-11-27T05:31:09.757942Z ram_save_page ram: offset:",
        "2026-11-27T05:31:09.757942Z ram_save_page ram: offset: 0x10zz host: 0x7f",
        "2026-11-27T05:31:09.757942Z ram_save_page ram: offset: 0x1",
        "2026-11-27T05:31:09.757942Z ram_save_page ram: offset: -0x1000 host: 0x7f",
        "2026-11-27T05:31:09.757942Z ram_save_page ram: offset: 0x11111111111111111111 host: 0x7f",
        "2026-11-27T05:31:09.757942Z ram_save_page ram: offset: 0x1000 size: 0x7f",
        "warning: x 2026-11-27T05:31:09.757942Z ram_save_page ram: offset: 0x1000 host: 0",
    ],
)
def test_a_trace_that_cannot_be_read_is_an_error_and_says_so(line: str) -> None:
    with pytest.raises(MeasurementError, match="trace of the pages that it copied cannot be read"):
        read_copies(f"{line}\n".encode(), "ram", end_ns=1)


PASSES_NS = [100 * MS, 300 * MS]
COPIES = pd.DataFrame(
    {
        "page": [1, 2, 1],
        "t_ns": [110 * MS, 120 * MS, 310 * MS],
        "done_ns": [115 * MS, 140 * MS, 320 * MS],
    }
)


def row_of(page: int, written_ms: int, *, differs: bool = False, zero: bool = False) -> pd.Series:
    pages = explained(
        np.array([page] if differs else [], dtype="int64"),
        pd.Series({page: written_ms * MS}),
        COPIES,
        zeroes=np.array([page] if zero else [], dtype="int64"),
        passes_ns=PASSES_NS,
        digested_ns=400 * MS,
    )
    return pages[pages["page"] == page].iloc[0]


@pytest.mark.parametrize(
    ("page", "written_ms", "may", "must"),
    [
        pytest.param(1, 200, False, False, id="copied once more"),
        pytest.param(1, 315, True, False, id="while it was copied"),
        pytest.param(1, 309, True, False, id="logged, but not yet made"),
        pytest.param(1, 330, True, True, id="after its last copy"),
        pytest.param(1, 321, True, False, id="about when it was over"),
        pytest.param(1, 397, True, True, id="just before digests were made"),
        pytest.param(1, 399, True, False, id="about when digests were made"),
        pytest.param(1, 500, True, False, id="while they were"),
        pytest.param(3, 99, True, False, id="about when it all began"),
        pytest.param(3, 97, False, False, id="before it all began"),
        pytest.param(2, 200, True, True, id="copied in the first pass alone"),
        pytest.param(3, 200, True, True, id="copied as zeroes, if at all"),
    ],
)
def test_what_may_and_what_must_differ_follows_from_last_write_and_last_copy(
    page: int, written_ms: int, may: bool, must: bool
) -> None:
    """Both are seen as they happen: a loss is predicted, not only excused."""
    row = row_of(page, written_ms, differs=written_ms < 100)  # or it is not in the table at all
    assert (row["may_differ"], row["must_differ"]) == (may, must)


def test_a_page_of_zeroes_was_copied_without_a_trace() -> None:
    """The guest wiped it after the device's write: its last copy may be later than the trace's."""
    row = row_of(2, 200, zero=True)
    assert (row["may_differ"], row["must_differ"]) == (True, False)


def test_each_write_and_copy_is_told_by_its_pass() -> None:
    """A mark saves what was written until then: which pass took it with it shows that."""
    row = row_of(1, 200, differs=True)
    assert (row["written_pass"], row["copied_pass"], row["copied_ns"]) == (1, 2, 310 * MS)


def test_a_page_that_the_device_did_not_write_meanwhile_is_in_the_table_and_unexplained() -> None:
    """That one is the news: QEMU lost it, or we did."""
    row = row_of(2, 50, differs=True)
    assert (row["differs"], row["may_differ"], row["written_pass"]) == (True, False, 0)


@pytest.mark.parametrize("digest", DIGESTS)
def test_a_page_of_zeroes_is_told_by_its_digest(digest: str) -> None:
    pages = [bytes(PAGE), b"\1" + bytes(PAGE - 1), bytes(PAGE)]
    assert all_zero(digests(*pages, digest=digest), digest).tolist() == [0, 2]
