"""The quiesce audit: what is made of its records, and of what lies in memory."""

from __future__ import annotations

import ctypes
import io
import mmap
import os
import struct
import zlib
from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from rich.console import Console
from synthetic import received_record, sent_record
from test_report_results import run_of

from harness.agent import memory_frames
from harness.agent.payload import HEADER_BYTES, MAGIC
from harness.agent.process_memory import CHUNK
from harness.analysis.audit import NOT_BACK, Audited, Moments, audited
from harness.audit.evidence import buffers
from harness.audit.ways import Way
from harness.errors import MeasurementError
from harness.host.vf import Ring
from harness.report.audit import WAYS, audit_result, audit_rows
from harness.report.page import write_page
from harness.report.results import CaseResult, Results, read_results, write_results
from harness.report.summary import summary

MS = 1_000_000
ASKED = 7_000_000_000_000
MOMENTS = Moments(
    asked=ASKED,
    taken=ASKED + 2 * MS,
    looked=ASKED + 600 * MS,
    looked_again=ASKED + 2100 * MS,
    taking_back=ASKED + 2200 * MS,
)
SET, CLEAR, GONE = 0x0506, 0x0502, 0xFFFF


def line(t_ms: float, command: int) -> dict[str, Any]:
    names = {"host": "alder", "vf": "vf0", "via": "device", "gap_ns": 0}
    return {"t_ns": ASKED + round(t_ms * MS), "command": command, "bme": bool(command & 4), **names}


def found(
    *commands: tuple[float, int],
    arrive: Sequence[float] = (),
    newest_ms: float | None = -5,
    **changes: Any,
) -> Audited:
    """An audit with a frame each 5 ms, of which those sent at *arrive* and in the end came back."""
    sent_ms = np.arange(-500, 4000, 5)
    sent = ASKED + sent_ms * MS
    there = np.flatnonzero(np.isin(sent_ms, arrive) | (sent_ms < -5) | (sent_ms >= 2500))
    numbers = np.arange(len(sent))
    newest = None if newest_ms is None else int(np.flatnonzero(sent_ms == newest_ms)[0])
    given: dict[str, Any] = {
        "way": "bme-cleared",
        "trigger": None,
        "driver": "ixgbevf",
        "moments": MOMENTS,
        "uncertainty_ns": 20_000,
        "lines": [line(t_ms, command) for t_ms, command in commands],
        "sent": sent_record(numbers, sent, sent),
        "received": received_record(there, np.zeros(len(there)), sent[there], sent[there] + MS),
        "newest": newest,
        "pages": (500, 0),
        "accesses": 0,
        "back": "BME set",
        "buffers_freed": False,
    }
    return audited(**{**given, **changes})


STOPPED = ((-400, SET), (0.6, CLEAR), (2201, SET))


def test_a_vf_that_stops_is_silent_and_comes_back() -> None:
    quiet = found(*STOPPED)
    assert quiet.is_silent
    assert not quiet.is_master
    assert quiet.faults == []
    assert (quiet.cleared_ms, quiet.memory_cleared_ms, quiet.step_ms) == (0.6, None, 2)
    assert (quiet.sent, quiet.returned, quiet.back_ms) == (299, 0, 301)


@pytest.mark.parametrize(
    "signs",
    [
        {"arrive": [1000, 1005]},
        {"newest_ms": 1000},
        {"pages": (500, 3)},
        {"accesses": 1},
    ],
    ids=str,
)
def test_each_sign_of_life_of_a_vf_that_must_be_silent_is_a_fault(signs: dict[str, Any]) -> None:
    """A frame whose answer is lost was received all the same: memory tells, and so does a log."""
    alive = found(*STOPPED, **signs)
    assert not alive.is_silent
    assert len(alive.faults) == 1
    assert "VF vf0 of alder was not allowed to master the bus, and still" in alive.faults[0]


def test_what_lives_while_bme_is_set_is_no_fault() -> None:
    working = found((-400, SET), (4000, SET), arrive=[1000], newest_ms=2000, pages=(500, 500))
    assert working.is_master
    assert not working.is_silent
    assert working.faults == []


def test_pages_that_the_driver_gave_back_may_change() -> None:
    """Its kernel uses them for anything: that they change is no sign of the device."""
    assert found(*STOPPED, pages=(500, 3), buffers_freed=True).is_silent


def test_a_vf_that_is_gone_neither_masters_nor_has_memory() -> None:
    """All ones has every bit set; it means that no function answered."""
    gone = found((-400, SET), (100, GONE), (2300, SET))
    assert (gone.is_gone, gone.is_master, gone.has_memory) == (True, False, False)
    assert (gone.cleared_ms, gone.memory_cleared_ms) == (100, 100)


def test_a_vf_that_masters_the_bus_again_meanwhile_may_write() -> None:
    """Its driver has noticed, and set it up: that is no device that goes on without leave."""
    again = found((-400, SET), (1, CLEAR), (1500, SET), arrive=[1600], newest_ms=2000)
    assert again.is_master
    assert again.faults == []


def test_what_bme_does_after_the_look_does_not_count() -> None:
    """It is set again to take the step back; and what it did before was another step's."""
    late = found((-400, SET), (2150, CLEAR), (2300, SET))
    assert late.is_master
    assert late.cleared_ms is None


def test_a_vf_that_does_not_come_back_has_no_time() -> None:
    """Frames that came in before it was given up are nobody's return."""
    assert found(*STOPPED, back=NOT_BACK).back_ms is None


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"lines": []}, "nobody observed"),
        ({"moments": replace(MOMENTS, looked_again=ASKED)}, "no frame was sent"),
    ],
)
def test_an_audit_without_evidence_is_none(changes: dict[str, Any], told: str) -> None:
    """Silence of a flow that did not run, or of a VF that nobody looked at, says nothing."""
    with pytest.raises(MeasurementError, match=told):
        found(*STOPPED, **changes)


def test_every_way_has_its_words() -> None:
    assert list(WAYS) == [way.value for way in Way]


def written(folder: Path, *audits: Audited) -> Results:
    results = run_of()
    case = CaseResult(
        nodeid="tests/lab/test_x.py::test_x", outcome="passed", verdict=None, artifacts="x",
        migrations=[], audits=[audit_result(each) for each in audits],
    )  # fmt: skip
    results = results.model_copy(update={"tests": [case], "started": datetime.now(UTC)})
    write_results(results, folder)
    return read_results(folder)


def test_the_report_has_a_row_for_each_audit_and_says_what_is_wrong(tmp_path: Path) -> None:
    alive = found(*STOPPED, arrive=[1000], newest_ms=2000)
    unplugged = replace(found(*STOPPED), way="unplug", trigger="pcie", back=NOT_BACK)
    results = written(tmp_path, alive, unplugged)
    first, second = audit_rows(results)
    assert (first.stopped, first.back) == ("hot-unplug by native PCIe", "no")
    assert second.bme == "0 after 0.6 ms"
    assert second.memory_enable == "stays as it was"
    assert second.frames == "1 of 299 came in; the last in memory was sent 2.00 s after"
    assert second.rings == "0 of 500 pages, 0 accesses"
    page = write_page(tmp_path).read_text()
    assert "What each way to stop a VF does" in page
    assert page.count("and still 1 frames came in") == 1
    said = io.StringIO()
    summary(results, Console(file=said, width=140))
    assert "BME cleared by the host" in said.getvalue()
    assert "fail VF vf0 of alder was not allowed" in said.getvalue()


# --- what lies in memory ---------------------------------------------------------------------


def descriptors(*addresses: int) -> bytes:
    return b"".join(struct.pack("<QQ", address, 0) for address in addresses)


@pytest.mark.parametrize(
    ("head", "tail", "expected"),
    [(1, 3, [0x1000, 0x2000]), (3, 1, [0x3000, 0x0]), (2, 2, [])],
)
def test_the_buffers_of_a_ring_are_those_from_head_to_tail(
    head: int, tail: int, expected: list[int]
) -> None:
    """The others are the driver's: their descriptors hold what was received, and no address."""
    ring = Ring(0x8000, count=4, head=head, tail=tail)
    assert buffers(descriptors(0x0, 0x1000, 0x2000, 0x3000), ring) == expected


def header(flow: int, sequence: int) -> bytes:
    covered = struct.pack(">HHIHI", MAGIC, flow, sequence, 0, 0)
    return covered + struct.pack(">I", zlib.crc32(covered))


def test_the_newest_frame_of_a_flow_is_found_wherever_it_lies() -> None:
    """Also across two chunks; not of another flow, and not what only begins like one."""
    with mmap.mmap(-1, 3 * CHUNK, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS) as memory:
        places = {40: header(7, 3), CHUNK - 7: header(7, 9), CHUNK + 999: header(8, 50)}
        places[2 * CHUNK - 1] = header(7, 5)
        places[600] = header(7, 77)[:-1] + b"\xff"  # its checksum is wrong
        for at, text in places.items():
            memory[at : at + HEADER_BYTES] = text
        view = ctypes.c_char.from_buffer(memory)
        where: dict[str, Any] = {"address": ctypes.addressof(view), "size": 3 * CHUNK}
        assert memory_frames.newest(os.getpid(), 7, **where) == {"frames": 3, "newest": 9}
        assert memory_frames.newest(os.getpid(), 9, **where) == {"frames": 0, "newest": None}
        read = memory_frames.read(os.getpid(), where["address"] + 40, HEADER_BYTES)
        assert bytes.fromhex(read) == header(7, 3)
        del view
