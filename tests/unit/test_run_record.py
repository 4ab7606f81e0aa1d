"""What is kept of a run: folders that nobody shares, and everything in its place."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from synthetic import ASKED_NS, FAILOVER_BME, MS, Cut, bme, event, failover, flow

from harness.analysis.verdict import Limits
from harness.errors import MeasurementError, MigrationError
from harness.migration.experiment import Conducted
from harness.migration.outcome import Note, Outcome
from harness.migration.raw import Raw
from harness.migration.watch import Seen
from harness.report.results import HostProvenance, Provenance
from harness.run import record as module
from harness.run.record import LATEST, LONGEST_NAME, Case, Record
from harness.topology import Topology, find, load

TEST = "tests/lab/test_failover.py::test_users_are_cut_off[round-trip-9014]"
LIMITS = Limits(longest_outage_ms=2000)
PROVENANCE = Provenance(
    harness="1",
    hosts={
        name: HostProvenance(
            kernel="6.12", qemu="10.0", pf_driver="igb", pf_device="8086:10c9", firmware=None
        )
        for name in ("alder", "birch")
    },
)


@pytest.fixture(scope="module")
def topology() -> Topology:
    return load(find("emulated"))


@pytest.fixture
def record(tmp_path: Path, topology: Topology) -> Record:
    return Record(tmp_path / "reports", topology)


@pytest.fixture
def one_moment(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let all runs start in the same second."""

    class Clock(datetime):
        @classmethod
        def now(cls, tz: Any = None) -> Clock:
            return cls(2026, 1, 2, 3, 4, 5, tzinfo=tz)

    monkeypatch.setattr(module, "datetime", Clock)


def conducted(**changes: Any) -> Conducted:
    """What a failover migration from alder to birch leaves behind; *changes* as ``failover``'s."""
    return Conducted(
        outcome=Outcome(0, "completed", None, {}, "postmigrate", "running"),
        measured=failover(**changes),
        records=(),
    )


def say(raw: Raw) -> None:
    """Put into *raw* what machines say in a migration from alder to birch."""
    log = "igb 0000:01:00.0: 1 VFs allocated\n"
    raw.seen += [Seen("alder", kernel={"lines": 1}, kernel_log=log), Seen("guest")]
    raw.qmp_logs = {"alder": '{"kind": "sent"}\n', "birch": '{"kind": "event"}\n'}
    raw.qemu_logs = {"alder": "", "birch": "warning: unaligned\n"}
    raw.console = "guest is up\n"


def contents(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


def lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


# --- the run's folder -----------------------------------------------------------------------


@pytest.mark.usefixtures("one_moment")
def test_a_run_is_named_by_its_beginning_and_its_lab(tmp_path: Path, topology: Topology) -> None:
    """Sorted by name they are sorted by time, and a folder tells whose it is."""
    record = Record(tmp_path, topology)
    assert record.name == "20260102-030405-emulated"
    assert record.folder == tmp_path / record.name
    assert record.started == datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)


@pytest.mark.usefixtures("one_moment")
def test_two_runs_of_one_second_have_folders_of_their_own(
    tmp_path: Path, topology: Topology
) -> None:
    """A second one that is refused the lab would write its results over the first one's."""
    first, second, third = (Record(tmp_path, topology) for _ in range(3))
    assert second.folder.name == second.name == f"{first.name}-2"
    assert third.name == f"{first.name}-3"


def test_latest_points_to_the_newest_run(tmp_path: Path, topology: Topology) -> None:
    """Documents name it; a link to an absolute path breaks when the folder is moved."""
    link = tmp_path / LATEST
    for _ in range(2):
        record = Record(tmp_path, topology)
        assert link.readlink() == Path(record.name)
    assert contents(tmp_path) >= {LATEST, record.name}
    assert [name for name in contents(tmp_path) if name.startswith(".")] == []


def test_a_place_for_reports_that_leads_nowhere_is_an_error(
    tmp_path: Path, topology: Topology
) -> None:
    """Looking for a free name there would go on for ever."""
    (tmp_path / "reports").symlink_to(tmp_path / "none")
    with pytest.raises(FileExistsError):
        Record(tmp_path / "reports", topology)


# --- the test's folder ----------------------------------------------------------------------


def test_a_test_has_one_folder_however_often_it_is_asked_for(record: Record) -> None:
    """The fixture that logs commands and the one that migrates mean the same case."""
    case = record.case(TEST)
    assert record.case(TEST) is case
    assert case.folder.parent == record.folder
    assert case.folder.is_dir()


def test_a_folder_tells_file_test_and_parameters(record: Record) -> None:
    """It is looked for by eye, among many."""
    assert record.case(TEST).folder.name == "test_failover.test_users_are_cut_off-round-trip-9014"


@pytest.mark.parametrize(
    "others",
    [
        pytest.param(
            ["tests/lab/test_bme.py::test_users_are_cut_off[round-trip-9014]"], id="another file"
        ),
        pytest.param(
            ["tests/soak/test_failover.py::test_users_are_cut_off[round-trip-9014]"],
            id="a file of the same name",
        ),
        pytest.param(
            ["tests/lab/test_failover.py::test_users_are_cut_off[round-trip-64]"],
            id="other parameters",
        ),
        pytest.param(
            [
                "tests/lab/test_failover.py::test_users_are_cut_off[round/trip-9014]",
                "tests/lab/test_failover.py::test_users_are_cut_off[round trip-9014]",
            ],
            id="parameters that differ in what no name may hold",
        ),
        pytest.param(
            ["tests/lab/test_failover.py::TestUsers::test_users_are_cut_off[round-trip-9014]"],
            id="a class",
        ),
    ],
)
def test_two_tests_never_share_a_folder(record: Record, others: list[str]) -> None:
    """The second one's packets would be written over the first one's, and both reports be wrong."""
    cases = [record.case(nodeid) for nodeid in (TEST, *others)]
    assert len({case.folder for case in cases}) == len(cases)
    assert all(case.folder.parent == record.folder for case in cases)


def test_long_names_are_cut_and_still_differ(record: Record) -> None:
    """A file system refuses more than 255 bytes, and the test would fail for its name."""
    cases = [record.case(f"test_x.py::test_y[{'a' * 300}{n}]") for n in range(2)]
    assert [len(case.folder.name) for case in cases] == [LONGEST_NAME, LONGEST_NAME + 2]


# --- what is in it --------------------------------------------------------------------------


def kept(case: Case, **changes: Any) -> module.Moved:
    with case.said() as raw:
        say(raw)
    return case.keep(conducted(**changes), LIMITS)


def test_a_migration_leaves_the_files_that_are_promised(record: Record) -> None:
    """`reports/README.md` lists them; a report that links to none of them proves nothing."""
    case = record.case(TEST)
    kept(case)
    assert contents(case.folder) == {
        "timeline.jsonl", "bme.jsonl", "packets-jumbo.parquet", "qmp-alder.jsonl",
        "qmp-birch.jsonl", "qemu-birch.log", "dmesg-alder.log", "console.log",
    }  # fmt: skip
    measured = failover()
    assert [line["name"] for line in lines(case.folder / "timeline.jsonl")] == [
        event.name for event in measured.events
    ]
    assert [line["command"] for line in lines(case.folder / "bme.jsonl")] == [
        sample.command for sample in measured.bme
    ]
    assert (case.folder / "console.log").read_text() == "guest is up\n"
    assert (case.folder / "qmp-birch.jsonl").read_text() == '{"kind": "event"}\n'
    assert "1 VFs allocated" in (case.folder / "dmesg-alder.log").read_text()


def test_a_migration_that_breaks_off_leaves_what_was_said(record: Record) -> None:
    """It is all there is to find out why, and the machines are put back by the time one looks."""
    case = record.case(TEST)

    def break_off() -> None:
        with case.said() as raw:
            say(raw)
            raise MigrationError("alder: it broke off", because="QEMU ended", fix="look why")

    for number in (1, 2):
        with pytest.raises(MigrationError) as failed:
            break_off()
        assert f"*-broken-{number}.* in {case.folder}" in failed.value.__notes__[0]
    said = ("qmp-alder{}.jsonl", "qmp-birch{}.jsonl", "qemu-birch{}.log", "dmesg-alder{}.log",
            "console{}.log")  # fmt: skip
    broken = {name.format(f"-broken-{number}") for name in said for number in (1, 2)}
    assert contents(case.folder) == broken
    assert (case.folder / "qemu-birch-broken-1.log").read_text() == "warning: unaligned\n"
    kept(case)
    assert contents(case.folder) >= broken | {name.format("") for name in said}


def test_nothing_is_written_for_nobody(record: Record) -> None:
    """A console of no bytes would say that the guest printed nothing."""
    case = record.case(TEST)
    with pytest.raises(ZeroDivisionError) as failed, case.said():
        _ = 1 / 0
    assert contents(case.folder) == set()
    assert not hasattr(failed.value, "__notes__"), "it promises what is not there"


def test_the_second_migration_of_a_test_writes_over_nothing(record: Record) -> None:
    """There and back is one test: its first half is evidence as much as its second."""
    case = record.case(TEST)
    kept(case)
    first = {path.name: path.read_bytes() for path in case.folder.iterdir()}
    kept(case, flows=[flow(frame_bytes=64)])
    assert {name: (case.folder / name).read_bytes() for name in first} == first
    assert {name.replace("-2.", ".") for name in contents(case.folder) - set(first)} == set(first)
    sizes = [
        len(pd.read_parquet(case.folder / f"packets-jumbo{suffix}.parquet"))
        for suffix in ("", "-2")
    ]
    assert sizes[0] == sizes[1] > 0


def test_a_migration_that_cannot_be_judged_leaves_its_records_and_its_number(
    record: Record,
) -> None:
    """A recorder that was cut; a test may go on after that, and has a second migration then."""
    case, whole = record.case(TEST), flow()
    torn = replace(whole, received=whole.received[:-1])
    with pytest.raises(MeasurementError, match="ends in the middle of an entry"):
        case.keep(conducted(flows=(torn,)), LIMITS)
    assert (case.folder / f"received-{torn.name}.bin").read_bytes() == torn.received
    assert (case.folder / f"sent-{torn.name}.bin").read_bytes() == torn.sent
    before = (case.folder / "timeline.jsonl").read_text()
    kept(case)
    assert {"timeline-2.jsonl", f"packets-{torn.name}-2.parquet"} <= contents(case.folder)
    assert (case.folder / "timeline.jsonl").read_text() == before


def test_a_verdict_says_why_line_by_line(record: Record) -> None:
    """It is what pytest prints when the test fails; what did not come is told with it."""
    late = conducted()
    note = Note(1, "guest not reached", "its processor stands at RIP=fff0 HLT=1")
    late = replace(late, outcome=replace(late.outcome, notes=(note,)))
    moved = record.case(TEST).keep(late, Limits(longest_outage_ms=100))
    assert moved.verdict.word == "fail"
    assert moved.conducted.lost_its_guest
    assert not kept(record.case("test_x.py::test_y")).conducted.lost_its_guest
    assert "longest outage" in moved.why
    assert moved.why.splitlines() == [
        *moved.verdict.reasons,
        "guest not reached: its processor stands at RIP=fff0 HLT=1",
    ]


def test_bme_is_asked_of_the_source_and_of_one_way_to_read_it(record: Record) -> None:
    """The destination's VF is set soon after; with it, the source's would never be seen to fall."""
    by_sysfs = replace(bme(300, "alder", 0x0406), via="sysfs")
    moved = kept(record.case(TEST), bme=(*FAILOVER_BME, by_sysfs))
    assert moved.bme_seen("vfio") == {True, False}
    assert moved.bme_seen("sysfs") == {True}
    set_there = [bme(-900, "alder", 0x0102), bme(6000, "birch", 0x0406)]
    assert kept(record.case("test_x.py::test_y"), bme=set_there).bme_seen("vfio") == {False}


def test_a_register_is_asked_for_by_its_name_and_host(record: Record) -> None:
    """Of a value that it had twice the last time counts, and others' names are not its."""
    seen = [
        event(t_ms, f"config:{host}", f"{name} = {value}")
        for t_ms, host, name, value in [
            (-900, "alder", "msix.CONTROL", "ON"), (-900, "birch", "msix.CONTROL", "OFF"),
            (5, "alder", "msix.CONTROL", "OFF"), (6, "alder", "msix.CONTROL2", "X"),
            (7, "alder", "msix.CONTROL", "ON"), (9000, "birch", "msix.CONTROL", "ON"),
        ]
    ]  # fmt: skip
    moved = kept(record.case(TEST), events=(*seen, event(8, "guest", "msix.CONTROL = ?")))
    registers = moved.registers("msix.CONTROL", "alder")
    assert {value: (e.t_ns - ASKED_NS) / MS for value, e in registers.items()} == {
        "ON": 7, "OFF": 5,
    }  # fmt: skip
    assert list(moved.registers("msix.CONTROL", "birch")) == ["OFF", "ON"]
    assert moved.event("msix.CONTROL2 = X").t_ns == ASKED_NS + 6 * MS


def test_what_arrives_is_counted_by_the_phase_in_which_it_arrives(record: Record) -> None:
    """While the guest is stopped nothing can come back; over a whole migration that is a detail.

    The flow is cut from 4400 to 6423 ms, the guest stopped from 4523 to 6418.
    """
    moved = kept(record.case(TEST), flows=[flow(cuts=[Cut(4400, 6423)])])
    assert moved.served_in("before") == pytest.approx(1, abs=0.02)
    assert moved.served_in("stop") == 0
    assert 0.5 < moved.served_in("pre-copy") < 0.98
    slow = flow(name="slow", rate_pps=100, cuts=[Cut(-1000, -10)])
    both = kept(record.case("test_x.py::test_y"), flows=[flow(rate_pps=200), slow])
    assert both.served_in("before") == pytest.approx(2 / 3, abs=0.02)


def test_nothing_is_served_in_a_phase_that_never_began(record: Record) -> None:
    """A VF that never masters again has no phase after; a test then shows why, no traceback."""
    gone = [sample for sample in FAILOVER_BME if sample.host == "alder"]
    moved = kept(record.case(TEST), scheme="inplace", bme=gone)
    assert "after" not in [phase.name for phase in moved.migration.phases]
    assert moved.served_in("after") == 0
    late = [*gone, bme(20_000, "birch", 0x0406)]  # after the last frame
    moved = kept(record.case("test_x.py::test_z"), scheme="inplace", bme=late)
    assert "after" in [phase.name for phase in moved.migration.phases]
    assert moved.served_in("after") == 0
    with pytest.raises(ValueError, match="there is no phase 'aftre': before, quiesce"):
        moved.served_in("aftre")
