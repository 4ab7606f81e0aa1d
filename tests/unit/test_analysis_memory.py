"""Two memories compared, and each difference held against the device's own log."""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.agent import memory_digest
from harness.analysis.memory import (
    DIGEST_BYTES,
    PAGE,
    Lent,
    differing,
    explained,
    read_log,
    written_pages,
)
from harness.twin.dma_log import DmaLog, Kind

LOW, HIGH = Lent(0, 8 * PAGE, 0), Lent(1 << 32, 8 * PAGE, 8 * PAGE)


def digests(*pages: bytes) -> bytes:
    return b"".join(hashlib.blake2b(page, digest_size=DIGEST_BYTES).digest() for page in pages)


def log_of(folder: Path, *writes: tuple[int, int]) -> pd.DataFrame:
    log = DmaLog(str(folder / "dma.log"), 100)
    for address, length in writes:
        log.add(address, length, Kind.RX_DATA, 0)
    log.close()
    return read_log((folder / "dma.log").read_bytes())


def test_agent_and_analysis_mean_the_same_digest() -> None:
    """They are two programs: one that cut pages or digests otherwise would find all different."""
    assert (memory_digest.DIGEST_BYTES, memory_digest.PAGE) == (DIGEST_BYTES, PAGE)


@given(st.lists(st.tuples(st.binary(max_size=3), st.binary(max_size=3)), max_size=20))
def test_the_pages_that_differ_are_those_and_no_others(pages: list[tuple[bytes, bytes]]) -> None:
    here, there = digests(*(a for a, _ in pages)), digests(*(b for _, b in pages))
    expected = [number for number, (a, b) in enumerate(pages) if a != b]
    assert differing(here, there).tolist() == expected


def test_memories_of_two_sizes_are_not_compared() -> None:
    """Page by page they would all be equal, up to where the smaller one ends."""
    with pytest.raises(ValueError, match="not one memory"):
        differing(digests(b"a"), digests(b"a", b"b"))


def test_a_write_is_of_every_page_that_it_touches(tmp_path: Path) -> None:
    """A frame's buffer may lie across two; the second would be called unexplained."""
    log = log_of(tmp_path, (PAGE - 2, 4), (3 * PAGE, PAGE), (5 * PAGE, 2 * PAGE + 1))
    assert sorted(written_pages(log, [LOW]).index) == [0, 1, 3, 5, 6, 7]


def test_a_page_is_known_by_its_place_in_the_memorys_file(tmp_path: Path) -> None:
    """Above 4 GiB a guest has its memory elsewhere than the file has it."""
    log = log_of(tmp_path, (2 * PAGE, 1), ((1 << 32) + PAGE, 1), (1 << 40, 1))
    assert sorted(written_pages(log, [LOW, HIGH]).index) == [2, 9]


def test_the_last_write_of_a_page_counts(tmp_path: Path) -> None:
    log = log_of(tmp_path, (0, 1), (0, 1), (PAGE, 1))
    assert written_pages(log, [LOW])[0] == log["t_ns"][1]


@pytest.mark.parametrize(
    ("written_ns", "marked_ns", "may", "must"),
    [
        (50, None, False, False),
        (150, None, True, False),
        (150, 120, True, False),
        (150, 160, False, False),
        (250, None, True, True),
        (250, 160, True, True),
    ],
)
def test_what_may_and_what_must_differ_follows_from_the_last_write(
    written_ns: int, marked_ns: int | None, may: bool, must: bool
) -> None:
    """Asked at 100, the last page copied at 200; a mark saves what was written until then."""
    pages = explained(
        np.array([4]), pd.Series({4: written_ns}), asked_ns=100, copied_ns=200, marked_ns=marked_ns
    )
    row = pages[pages["page"] == 4].iloc[0]
    assert (row["may_differ"], row["must_differ"], row["differs"]) == (may, must, True)


def test_a_page_that_the_device_never_wrote_is_in_the_table_and_unexplained() -> None:
    """That one is the news: QEMU lost it, or we did."""
    pages = explained(
        np.array([7]), pd.Series(dtype="int64"), asked_ns=100, copied_ns=200, marked_ns=None
    )
    assert pages[["page", "written_ns", "may_differ"]].to_numpy().tolist() == [[7, 0, False]]
