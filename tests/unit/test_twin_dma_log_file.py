"""The DMA log is a file of records, which whoever analyses it reads as bytes."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from harness.twin.dma_log import HEAD, RECORD, DmaLog, Kind

PAGE = 4096


def test_the_log_is_a_file_of_records(tmp_path: Path) -> None:
    """The test reads the file as bytes at offsets, as whoever analyses a log does."""
    log = DmaLog(str(tmp_path / "log"), capacity=3)
    before_ns = time.monotonic_ns()
    log.add(0x1122334455667788, 0x99AABBCC, Kind.RX_WRITEBACK, 1)
    log.add(PAGE, 1, Kind.TX_DESCRIPTOR, 0)
    log.settle()
    content = (tmp_path / "log").read_bytes()
    assert len(content) == 32 + 3 * 24
    assert content[:32] == bytes([2, *bytes(7), 0, *bytes(7), 3, *bytes(7), *bytes(8)])
    times = [int.from_bytes(content[at : at + 8], "little") for at in (32, 56)]
    assert before_ns <= times[0] <= times[1] <= time.monotonic_ns()
    assert content[40:56] == bytes.fromhex("8877665544332211 ccbbaa99 0900 0100")
    assert content[64:80] == bytes.fromhex("0010000000000000 01000000 0000 0000")
    assert content[80:] == bytes(24)


def test_a_full_log_counts_what_it_has_no_room_for(tmp_path: Path) -> None:
    """A reader would take an access that is lost without a word for one never made."""
    log = DmaLog(str(tmp_path / "log"), capacity=2)
    for address in range(5):
        log.add(address, 1, Kind.RX_DATA, 0)
    assert HEAD.unpack_from((tmp_path / "log").read_bytes()) == (2, 3, 2, 0)
    assert log.written() == [(0, 1), (1, 1)]


def test_a_new_log_begins_anew(tmp_path: Path) -> None:
    """A twin that is started again must not show what the one before it did."""
    DmaLog(str(tmp_path / "log"), capacity=2).add(1, 1, Kind.RX_DATA, 0)
    DmaLog(str(tmp_path / "log"), capacity=1)
    assert (tmp_path / "log").read_bytes() == HEAD.pack(0, 0, 1, 0) + bytes(RECORD.size)


@pytest.mark.parametrize("kind", Kind)
def test_writes_are_told_from_reads(tmp_path: Path, kind: Kind) -> None:
    """The log knows writes by a threshold, which a new kind with a wrong number would break."""
    log = DmaLog(str(tmp_path / "log"), capacity=3)
    for each in (Kind.RX_DATA, kind, kind):
        log.add(each, 8, each, 0)
    writes = kind not in {Kind.TX_DESCRIPTOR, Kind.TX_DATA, Kind.RX_DESCRIPTOR}
    assert log.written(since=2) == ([(kind, 8)] if writes else [])
