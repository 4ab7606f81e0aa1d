"""What a twin's log and QEMU's trace say of pages that differ, and of when the last pass was."""

from __future__ import annotations

from array import array
from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pandas as pd
import pytest
from made_up_host import Machine, made_up_host

from harness.analysis.memory import DOUBT_NS
from harness.errors import MeasurementError
from harness.guest.command_line import TRACE
from harness.guest.qmp import QmpEvent
from harness.migration.comparison import Digests
from harness.migration.memory import LoggedComparison
from harness.twin.dma_log import HEAD, MISBEHAVED, RECORD, Kind

MS, PAGE = 1_000_000, 4096
START, AHEAD = 1000 * 1000 * MS, 1_700_000_000 * 1000 * MS
"""When the migration was asked for, by the monotonic clock, and how far ahead the wall clock is."""

EVENTS = {
    "MIGRATION setup": 1, "MIGRATION_PASS": 300, "STOP": 590,
    "MIGRATION device": 600, "MIGRATION completed": 700,
}  # fmt: skip
LAST_PASS_MS = EVENTS["MIGRATION device"]
DIGESTED_MS = 800
QUIET, LATE = {7: 100.0}, 650.0


class Source:
    """The source's QEMU and its twin: *copied* and *written* have the ms of each page's last."""

    def __init__(
        self,
        folder: Path,
        *,
        copied: Mapping[int, float],
        written: Mapping[int, float],
        kind: int = Kind.RX_DATA,
    ) -> None:
        self.machine = Machine(folder / "journal")
        self.machine.ahead_ns = (0, AHEAD)
        (folder / TRACE).write_text("".join(_traced(*each) for each in copied.items()))
        events = [QmpEvent(*_named(title), AHEAD + START + ms * MS) for title, ms in EVENTS.items()]
        earlier = [replace(each, realtime_ns=each.realtime_ns - 1000 * MS) for each in events]
        qmp = SimpleNamespace(events=earlier, execute=lambda *_: None)
        instance = SimpleNamespace(
            host=made_up_host(self.machine), place=SimpleNamespace(folder=str(folder)), qmp=qmp
        )
        self._memory = cast("Any", SimpleNamespace(instance=instance))
        log = HEAD.pack(len(written), 0, 0, 0) + b"".join(
            RECORD.pack(START + round(ms * MS), page * PAGE, 16, kind, 0)
            for page, ms in written.items()
        )
        lent = {"lent": [{"address": 0, "size": 8 * PAGE, "offset": 0}]}
        control = SimpleNamespace(ask=lent.__getitem__)
        device = SimpleNamespace(dma_log=lambda: log, control=control)
        self.comparison = LoggedComparison(cast("Any", device))
        self.comparison.trace_copies(instance)  # type: ignore[arg-type]
        qmp.events += events

    def forget(self, *titles: str) -> None:
        """Let QEMU not have said that."""
        events = self._memory.instance.qmp.events
        events[:] = [each for each in events if each.title not in titles]

    def explained(self, differ: Sequence[int] = (), owned: Sequence[int] = ()) -> dict[str, Any]:
        """What there is to say, where pages *differ* and KVM has some of these."""
        owners = ["kvmclock" if page in owned else "" for page in differ]
        table = pd.DataFrame({"page": list(differ), "owner": owners}).astype({"page": "int64"})
        here = array("I", range(1, 9)).tobytes()
        there = array("I", (0 if n in differ else n + 1 for n in range(8))).tobytes()
        both = Digests("crc32", here, there, 8, START + DIGESTED_MS * MS, 1.0, 1e9)
        return self.comparison._explained(self._memory, both, table)


def _traced(page: int, ms: float) -> str:
    at = datetime.fromtimestamp((AHEAD + START) / 1e9 + ms / 1e3, UTC)
    return f"{at:%Y-%m-%dT%H:%M:%S.%fZ} ram_save_page ram: offset: {page * PAGE:#x} host: 0\n"


def _named(title: str) -> tuple[str, dict[str, Any]]:
    name, _, status = title.partition(" ")
    return name, {"status": status} if status else {}


def test_a_page_that_kvm_owns_needs_no_write_and_is_never_lost(tmp_path: Path) -> None:
    """Its neighbours do: one of them the device wrote late, and nobody did the other."""
    copied = dict.fromkeys((2, 3, 4, 5), 100.0)
    source = Source(tmp_path, copied=copied, written={3: 750.0, 4: 750.0})
    told = source.explained(differ=(2, 3, 4, 5), owned=(2, 3))
    assert (told["not_lost"], told["unexplained"], told["must_differ"]) == (0, [5], 2)
    owners = source.comparison.tables["memory"].set_index("page")["owner"]
    assert owners.to_dict() == {2: "kvmclock", 3: "kvmclock", 4: "", 5: ""}


@pytest.mark.parametrize(
    ("kind", "late"),
    [
        (Kind.RX_DATA, 1),
        (Kind.RX_DATA | MISBEHAVED, 1),
        (Kind.RX_WRITEBACK | MISBEHAVED, 1),
        (Kind.TX_DATA, 0),
    ],
)
def test_what_the_device_did_late_is_told_by_its_kind(tmp_path: Path, kind: int, late: int) -> None:
    """That the device read is no matter, nor whether it had the right to write."""
    source = Source(tmp_path, copied=QUIET, written={1: LATE}, kind=kind)
    told = source.explained()
    assert source.comparison.tables["dma"]["kind"].tolist() == [kind & ~MISBEHAVED]
    assert (told["late_writes"], told["writes"]) == (late, late)


def test_what_was_before_this_migration_is_not_in_its_table(tmp_path: Path) -> None:
    """The same QEMU may have been asked before: that one's passes are none of this one's."""
    source = Source(tmp_path, copied=QUIET, written={1: -200.0, 2: 50.0})
    source.explained()
    assert source.comparison.tables["memory"]["page"].tolist() == [2]


def test_a_page_that_arrived_though_it_was_written_last_is_told(tmp_path: Path) -> None:
    """Unless the device wrote it while digests were made: that one may be of before it."""
    for ms, not_lost in ((750.0, 1), (850.0, 0)):
        source = Source(tmp_path, copied={4: 100.0}, written={4: ms})
        assert source.explained()["not_lost"] == not_lost


@pytest.mark.parametrize(
    ("ms", "late", "close"),
    [
        (LAST_PASS_MS - 2.1, 0, 0),
        (LAST_PASS_MS - 1.9, 0, 1),
        (LAST_PASS_MS + 1.9, 0, 1),
        (LAST_PASS_MS + 2.1, 1, 0),
    ],
)
def test_a_write_about_when_the_last_pass_began_may_be_of_before_it(
    tmp_path: Path, ms: float, late: int, close: int
) -> None:
    """The device logs a write a moment before it is made."""
    assert DOUBT_NS == 2 * MS
    told = Source(tmp_path, copied=QUIET, written={1: 200.0, 2: ms}).explained()
    assert (told["late_writes"], told["close_writes"]) == (late, close)


def test_the_devices_log_is_kept_where_qemus_trace_cannot_be_read(tmp_path: Path) -> None:
    source = Source(tmp_path, copied={}, written={1: LATE})
    with pytest.raises(MeasurementError, match="QEMU's trace has no copy"):
        source.explained()
    assert len(source.comparison.tables["dma"]) == 1


def test_a_wall_clock_that_was_moved_meanwhile_puts_nothing_in_order(tmp_path: Path) -> None:
    """QEMU stamps by it: a second forwards, and what was written late came in time."""
    source = Source(tmp_path, copied=QUIET, written={1: LATE})
    for moved_ms in (3, -3):
        source.machine.ahead_ns = (0, AHEAD + moved_ms * MS)
        with pytest.raises(MeasurementError, match=f"wall clock was moved by {moved_ms} ms"):
            source.explained()


def test_a_migration_without_a_beginning_has_no_passes(tmp_path: Path) -> None:
    source = Source(tmp_path, copied=QUIET, written={1: LATE})
    source.forget("MIGRATION setup", "MIGRATION_PASS")
    with pytest.raises(MeasurementError, match="alder: QEMU did not say 'MIGRATION setup'"):
        source.explained()
