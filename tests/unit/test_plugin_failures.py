"""A pytest with the plugin says by its exit code and its results what went wrong in a run."""

from __future__ import annotations

import json

import pytest
from plugin_project import MADE_UP_LAB, OF_THE_LAB, Project
from plugin_project import project as project

from harness.errors import LabError
from harness.plugin import hooks


@pytest.mark.parametrize(
    ("before", "in_test", "status", "words"),
    [
        ("", "pass", 0, "1 passed"),
        ('machines.by_name["birch"].holder = "bob since noon"', "pass", 10, "bob since noon"),
        ('machines.by_name["birch"].euid = 1000', "pass", 11, "not root there"),
        (
            "",
            'conftest.machines.by_name["birch"].shown["ens1f0"]["mtu"] = 9000',
            12,
            "birch: not as it was before",
        ),
    ],
)
def test_a_lab_at_fault_has_an_exit_code_of_its_own(
    project: Project, before: str, in_test: str, status: int, words: str
) -> None:
    """CI must tell a red test from a lab that is lent, unhealthy, or left changed."""
    project.write("conftest.py", MADE_UP_LAB + before)
    project.write("test_it.py", f"import conftest\ndef test_it(lab): {in_test}\n")
    ran = project.pytest("--artifacts", "runs")
    assert ran.status == status, ran.text
    assert words in ran.text
    assert "Traceback" not in ran.text


@pytest.mark.parametrize(
    ("hook", "status"),
    [
        ("def connect(name, way): raise gone\nharness.run.lab.connect = connect", 11),
        ("def connect(name, way): raise late\nharness.run.lab.connect = connect", 11),
        ("@pytest.fixture(scope='session', autouse=True)\n"
         "def going(lab):\n    yield\n    machines.by_name['birch'].call = raising", 12),
    ],
)  # fmt: skip
def test_a_host_that_went_away_is_the_labs_fault(project: Project, hook: str, status: int) -> None:
    """The exit code blames the lab, so that nobody looks for the cause in the migration."""
    gone = "import pytest\nfrom harness.errors import RemoteError, WaitError\n"
    gone += "gone = RemoteError('birch: does not answer', because='b', fix='f')\n"
    gone += "late = WaitError('birch: does not answer', because='b', fix='f')\n"
    gone += "def raising(verb, **args): raise gone\n"
    project.write("conftest.py", MADE_UP_LAB + gone + hook)
    project.write("test_it.py", OF_THE_LAB)
    ran = project.pytest("--artifacts", "runs")
    assert ran.status == status, ran.text
    assert "birch: does not answer" in ran.text
    assert "Traceback" not in ran.text


def test_a_run_ends_with_the_test_in_which_a_host_went_away(project: Project) -> None:
    """Each further test would fail for the same reason, and hide the one that tells it."""
    project.write("conftest.py", MADE_UP_LAB)
    project.write(
        "test_it.py",
        """
import conftest

def test_before(lab): pass

def test_it(lab):
    conftest.machines.by_name["birch"].has_gone = True
    lab.hosts["birch"].run("true")

def test_after(lab): pass
""",
    )
    ran = project.pytest("--artifacts", "runs")
    assert ran.status == 12, ran.text  # nobody can tell whether birch is as it was
    assert "1 failed, 1 passed" in ran.text
    assert "FAILED test_it.py::test_it - birch: its agent went away" in ran.text

    kept = project.pytest("--artifacts", "runs", "--keep-on-failure")
    assert kept.status == 11, kept.text
    assert "birch went away, and each further test would fail" in kept.text


@pytest.mark.parametrize(
    ("kind", "status"),
    [("LabError", 11), ("GuestError", 1), ("RemoteError", 1), ("WaitError", 1)],
)
def test_a_lab_at_fault_may_show_as_late_as_a_guest_is_prepared(
    project: Project, kind: str, status: int
) -> None:
    """A port that makes no VF is the lab's fault; a guest that does not boot is a finding."""
    preparing = f"""
import harness.errors, harness.run.moving

def moving_guest(*_, **__):
    raise harness.errors.{kind}("birch: no VF came", because="b", fix="f")

harness.run.moving.moving_guest = moving_guest
"""
    project.write("conftest.py", MADE_UP_LAB + preparing)
    project.write("test_it.py", "def test_it(guest): pass\n")
    ran = project.pytest("--artifacts", "runs")
    assert ran.status == status, ran.text
    assert "birch: no VF came" in ran.text


@pytest.mark.parametrize(
    ("lost", "tries", "made"),
    [
        pytest.param("guest: silent", 2, 2, id="lost, and made again"),
        pytest.param("guest: silent", 1, 1, id="lost, and no try left"),
        pytest.param("", 2, 1, id="not lost: the error is something else's"),
    ],
)
def test_a_migration_whose_record_is_lost_with_its_guest_is_made_again(
    project: Project, lost: str, tries: int, made: int
) -> None:
    """The guest records a from-guest flow, and the last try's error is the test's."""
    project.write("conftest.py", MADE_UP_LAB)
    project.write(
        "test_it.py",
        f"""
import pytest
from types import SimpleNamespace
from harness.errors import GuestError

class Guest:
    made = 0
    machine = SimpleNamespace(lost={lost!r})

    def migrate(self, *_, **__):
        self.made += 1
        raise GuestError("birch: it cannot be logged in to", because="b", fix="f")

def test_it(migrate):
    guest = Guest()
    with pytest.raises(GuestError):
        migrate(guest, by=None, tries={tries})
    assert guest.made == {made}
""",
    )
    ran = project.pytest("--artifacts", "runs")
    assert ran.status == 0, ran.text


def test_results_that_could_not_be_written_are_told_in_words(project: Project) -> None:
    """The records of an hour of tests are still on the disk, and the plugin says what is not."""
    full = "import errno\ndef finish(record): raise OSError(errno.ENOSPC, 'full', 'results.json')\n"
    replaced = "from harness.run.record import Record\nRecord.finish = finish\n"
    project.write("conftest.py", MADE_UP_LAB + full + replaced)
    project.write("test_it.py", OF_THE_LAB)
    ran = project.pytest("--artifacts", "runs")
    assert ran.status == 11, ran.text
    assert "results.json could not be written: its disk is full" in ran.text
    assert "Traceback" not in ran.text


@pytest.mark.parametrize(("test", "kept"), [("assert 0", True), ("pass", False)])
def test_after_a_failure_the_lab_is_kept_if_asked_for(
    project: Project, test: str, kept: bool
) -> None:
    """Hosts stay lent and as they are, and the terminal says how to get there."""
    show = "\ndef pytest_unconfigure(): print('lent:', machines.holders)\n"
    project.write("conftest.py", MADE_UP_LAB + show)
    project.write("test_it.py", f"def test_it(lab): {test}\n")
    ran = project.pytest("--keep-on-failure", "--artifacts", "runs")
    assert ran.status == kept
    assert f"lent: {[kept] * 3}" in ran.text
    for name in ("alder", "birch", "peer"):
        assert (f"({name})" in ran.text) == kept


def test_a_kept_lab_is_changed_by_no_further_test(project: Project) -> None:
    """The next guest would find the bridge of the first one there, and blame the lab for it."""
    show = "\ndef pytest_unconfigure(): print('lent:', machines.holders)\n"
    project.write("conftest.py", MADE_UP_LAB + show)
    project.write("test_a.py", "def test_unit(): assert 0\ndef test_it(lab): pass\n")
    project.write("test_b.py", "def test_it(lab): assert 0\n")
    project.write("test_c.py", "def test_it(lab): raise SystemExit('changed')\n")
    ran = project.pytest("--keep-on-failure", "--artifacts", "runs")
    assert ran.status == 1, ran.text
    assert "2 failed, 1 passed" in ran.text
    assert "a test failed, and --keep-on-failure keeps its lab" in ran.text
    assert "lent: [True, True, True]" in ran.text


def test_a_machine_that_cannot_be_kept_is_named(project: Project) -> None:
    """Its agent puts it back at once; somebody who logs in there would look at nothing."""
    project.write("conftest.py", MADE_UP_LAB)
    project.write(
        "test_it.py",
        """
import conftest
from harness.errors import RemoteError

def going(verb, **arguments):
    raise RemoteError("birch: hangs", because="b", fix="f")

def test_it(lab):
    lab.hosts["birch"].lease._call = going
    assert 0
""",
    )
    ran = project.pytest("--artifacts", "runs", "--keep-on-failure")
    assert "not kept: birch: hangs" in ran.text
    assert "(alder)" in ran.text
    assert "(birch)" not in ran.text


@pytest.mark.parametrize(
    ("limits", "expect", "status", "told"),
    [
        ("", "Pass()", 0, ""),
        ("lost=1", "Pass()", 1, "expected pass; seen fail"),
        ("lost=1", 'Fail("410 frames lost")', 0, "fail, as expected test_it (failover): flow"),
        ("lost=1", 'Fail("pages")', 1, "expected fail: pages; seen fail"),
        ("", 'Fail("410 frames lost")', 1, "expected fail: 410 frames lost; seen pass"),
        ("lost=1", "None", 0, "fail, not counted"),
    ],
)
def test_a_test_fails_with_a_migration_that_is_not_as_it_expects(
    project: Project, limits: str, expect: str, status: int, told: str
) -> None:
    """The exit status counts what was not expected, and a control is green where it goes red."""
    project.write("conftest.py", MADE_UP_LAB)
    project.write(
        "test_it.py",
        f"""
from types import SimpleNamespace
from harness.analysis.expectation import Fail, Pass
from harness.analysis.verdict import Limits
from test_run_record import conducted

def test_it(migrate):
    guest = SimpleNamespace(migrate=lambda *_, **__: conducted(), machine=None)
    migrate(guest, by=None, limits=Limits({limits}), expect={expect})
""",
    )
    ran = project.pytest("--artifacts", "runs")
    assert ran.status == status, ran.text
    assert told in ran.text
    assert "Traceback" not in ran.text


def test_a_try_that_lost_its_guest_is_told_and_does_not_count(project: Project) -> None:
    """Its emulator lost the guest: the next try is the result, and both are in the report."""
    project.write("conftest.py", MADE_UP_LAB)
    project.write(
        "test_it.py",
        """
from dataclasses import replace
from types import SimpleNamespace
from harness.analysis.verdict import Limits
from harness.migration.aftermath import NOT_REACHED
from harness.migration.outcome import Note
from test_run_record import conducted

good = conducted()
lost = replace(good, outcome=replace(good.outcome, notes=(Note(0, NOT_REACHED, "gone"),)))
lost = replace(lost, measured=replace(lost.measured, destination_state="gone"))
tries = [good, lost]

def test_it(migrate):
    guest = SimpleNamespace(migrate=lambda *_, **__: tries.pop(), machine=None)
    migrate(guest, by=None, tries=2, limits=Limits())
    assert not tries
""",
    )
    ran = project.pytest("--artifacts", "runs")
    assert ran.status == 0, ran.text
    results = json.loads((project.folder / "runs/latest/results.json").read_text())
    migrations = results["tests"][0]["migrations"]
    assert [each["verdict"] for each in migrations] == ["fail", "pass"]
    assert [each["expected"] is None for each in migrations] == [True, False]
    assert results["tests"][0]["verdict"] == "pass"


@pytest.mark.parametrize(
    ("measure_tries", "results", "status", "counted"),
    [
        pytest.param(2, "late, good", 0, [False, True], id="measured again"),
        pytest.param(2, "late, late", 1, [False, True], id="two invalid ones are invalid"),
        pytest.param(1, "late", 1, [True], id="the first is the result"),
    ],
)
def test_a_migration_without_a_result_is_measured_again_as_often_as_its_lab_says(
    project: Project, measure_tries: int, results: str, status: int, counted: list[bool]
) -> None:
    """A sender that was 52 ms late once on a busy machine made a suite red."""
    measuring = (
        f"limits = machines.topology.limits.model_copy(update={{'measure_tries': {measure_tries}}})"
        "\nmachines.topology = machines.topology.model_copy(update={'limits': limits})\n"
    )
    project.write("conftest.py", MADE_UP_LAB + measuring)
    project.write(
        "test_it.py",
        f"""
from types import SimpleNamespace
from harness.analysis.verdict import Limits
from synthetic import flow
from test_run_record import conducted

good, late = conducted(), conducted(flows=[flow(late_ms={{300: 99.0}})])
tries = iter([{results}])

def test_it(migrate):
    guest = SimpleNamespace(migrate=lambda *_, **__: next(tries), machine=None)
    migrate(guest, by=None, limits=Limits())
    assert not list(tries)
""",
    )
    ran = project.pytest("--artifacts", "runs")
    assert ran.status == status, ran.text
    written = json.loads((project.folder / "runs/latest/results.json").read_text())
    migrations = written["tests"][0]["migrations"]
    assert [each["expected"] is not None for each in migrations] == counted
    assert written["tests"][0]["verdict"] == ("invalid" if status else "pass")


def test_a_skipped_test_of_the_lab_is_in_the_results(project: Project) -> None:
    """A nightly report that leaves it out looks complete."""
    project.write("conftest.py", MADE_UP_LAB)
    skipped = 'import pytest\n@pytest.mark.needs("twin")\ndef test_skipped(lab): pass\n'
    project.write("test_it.py", OF_THE_LAB + skipped)
    assert project.pytest("--artifacts", "runs").status == 0
    results = json.loads((project.folder / "runs/latest/results.json").read_text())
    assert [each["outcome"] for each in results["tests"]] == ["passed", "skipped"]


def test_what_else_went_wrong_is_told_with_an_error() -> None:
    """A flow that could not be stopped either must not hide what broke the test, nor vanish."""
    error = LabError("alder: gone", because="it is off", fix="switch it on")
    said = str(error)
    error.add_note("flow jumbo could not be stopped: alder: gone")
    assert hooks._words(error).splitlines() == [
        *said.splitlines(),
        "flow jumbo could not be stopped: alder: gone",
    ]
