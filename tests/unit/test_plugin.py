"""The plugin as its users meet it: a real pytest, its exit code, and what it prints."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from test_topology import EMULATED

from harness.errors import LabError
from harness.plugin import hooks

UNIT = Path(__file__).parent
ROOT = UNIT.parents[1]

MADE_UP_LAB = """
from contextlib import contextmanager
from pathlib import Path
import harness.lab.use, harness.run.lab
from test_run_lab import IMAGE, Machines

pytest_plugins = ["harness.plugin"]
machines = Machines(Path(__file__).parent / "machines")
harness.run.lab.connect = machines.connect

@contextmanager
def ready(topology, progress, *, keep=False):
    yield machines.topology, IMAGE

harness.lab.use.ready = ready
for machine in machines.by_name.values():
    machine.programs["ethtool"] = lambda argv: (0, "driver: ixgbe")
"""

OF_THE_LAB = "def test_it(lab): pass\n"


class Ran:
    """How a pytest ended, and all that it printed."""

    def __init__(self, done: subprocess.CompletedProcess[str]) -> None:
        self.status = done.returncode
        self.text = done.stdout + done.stderr


class Project:
    """A folder with tests, whose conftest.py loads the plugin."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.write("conftest.py", 'pytest_plugins = ["harness.plugin"]\n')
        self.write("test_it.py", "def test_it(): pass\n")

    def write(self, name: str, text: str) -> Path:
        path = self.folder / name
        path.write_text(text)
        return path

    def pytest(self, *arguments: str, **variables: str) -> Ran:
        clean = {k: v for k, v in os.environ.items() if not k.startswith(("VF_HARNESS_", "PYTEST"))}
        argv = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", *arguments]
        return Ran(
            subprocess.run(
                argv,
                cwd=self.folder,
                capture_output=True,
                text=True,
                timeout=60,
                env={**clean, "PYTHONPATH": f"{ROOT}{os.pathsep}{UNIT}", **variables},
                check=False,
            )
        )


@pytest.fixture
def project(tmp_path: Path) -> Project:
    return Project(tmp_path)


SLIPS = {
    "no TOML": ("schema = 1", "schema = ", "mine.toml"),
    "a key is missing": ('mac = "52:54:00:12:34:56"', "", "guest.mac"),
    "an unknown key": ("cpus = 1", "cpus = 1\ncolour = 3", "guest.colour"),
    "a wrong PCI address": ("0000:01:00.0", "01:00.0", "hosts.alder.ports.p0.pci"),
    "a wrong MAC": ("52:54:00:12:34:56", "52:54", "guest.mac"),
    "two hosts with one address": ("port = 22023", "port = 22022", "hosts.birch.address"),
    "a link to nowhere": ('"birch.p0", "peer"', '"cedar.p0", "peer"', "links[0].ends[1]"),
}


@pytest.mark.parametrize("slip", SLIPS)
def test_a_wrong_topology_is_a_usage_error(project: Project, slip: str) -> None:
    """Told once, with file, key and remedy: a traceback would send its reader into our code."""
    old, new, key = SLIPS[slip]
    assert old in EMULATED
    project.write("mine.toml", EMULATED.replace(old, new, 1))
    ran = project.pytest("--lab", "mine.toml")
    assert ran.status == 4
    assert "mine.toml:" in ran.text
    assert key in ran.text
    assert ran.text.count("to fix:") == 1
    assert "Traceback" not in ran.text


@pytest.mark.parametrize(
    ("arguments", "variables", "words"),
    [
        (["--lab", "nowhere"], {}, "name one of emulated-82576, emulated, twin, x520-pair"),
        ([], {"VF_HARNESS_LAB": "nowhere"}, "no lab called 'nowhere'"),
        (["--iterations", "none"], {}, "--iterations none"),
        ([], {"VF_HARNESS_ITERATIONS": "0"}, "VF_HARNESS_ITERATIONS"),
        (["--guest-kernel", "mine"], {}, "one of stable, backports"),
        ([], {"VF_HARNESS_GUEST_KERNEL": "mine"}, "--guest-kernel mine"),
        (["--host-kernel", "mine"], {}, "one of stable, backports"),
        (["--host-kernel", "backports", "--lab", "x520-pair"], {}, "boot what they have"),
        ([], {"VF_HARNESS_DRY_RUN": "perhaps"}, "VF_HARNESS_DRY_RUN=perhaps"),
    ],
)
def test_a_wrong_option_is_a_usage_error(
    project: Project, arguments: list[str], variables: dict[str, str], words: str
) -> None:
    """By the command line and by the environment alike."""
    ran = project.pytest(*arguments, **variables)
    assert ran.status == 4
    assert words in ran.text
    assert "Traceback" not in ran.text


def test_a_need_that_nobody_knows_is_a_usage_error(project: Project) -> None:
    """A slip in a marker would else skip its test for ever."""
    project.write(
        "test_it.py", 'import pytest\n@pytest.mark.needs("two-host")\ndef test_it(): pass\n'
    )
    ran = project.pytest()
    assert ran.status == 4
    assert "two-host" in ran.text
    assert "two-hosts" in ran.text, "the word that was meant"


@pytest.mark.parametrize(("option", "status"), [((), 0), (("--require-all",), 1)])
def test_an_unmet_need_is_a_skip_or_an_error(
    project: Project, option: tuple[str, ...], status: int
) -> None:
    """On a person's bench and in the lab's own CI."""
    project.write("mine.toml", EMULATED.replace('offers = ["iommu"]', "offers = []"))
    project.write("test_it.py", 'import pytest\n@pytest.mark.needs("iommu")\ndef test_it(): 1/0\n')
    ran = project.pytest("--lab", "mine.toml", "-rs", *option)
    assert ran.status == status
    assert "iommu" in ran.text
    assert "mine.toml" in ran.text
    assert "ZeroDivisionError" not in ran.text, "it ran all the same"


def test_artifacts_that_cannot_be_written_are_a_usage_error(project: Project) -> None:
    """Before anything is booted, not after the last migration."""
    project.write("conftest.py", MADE_UP_LAB)
    project.write("test_it.py", OF_THE_LAB)
    ran = project.pytest("--artifacts", "test_it.py/below")
    assert ran.status == 4
    assert "--artifacts" in ran.text
    assert "Traceback" not in ran.text


def test_tests_of_the_lab_do_not_run_side_by_side(project: Project) -> None:
    """Two workers would take the hosts from each other."""
    project.write("conftest.py", MADE_UP_LAB)
    project.write("test_it.py", OF_THE_LAB)
    ran = project.pytest("-n", "1")
    assert ran.status == 1
    assert "to fix:  run them without -n" in ran.text


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
        ("@pytest.fixture(scope='session', autouse=True)\n"
         "def going(lab):\n    yield\n    machines.by_name['birch'].call = raising", 12),
    ],
)  # fmt: skip
def test_a_host_that_went_away_is_the_labs_fault(project: Project, hook: str, status: int) -> None:
    """Not a red test: nobody should look for the cause in the migration."""
    gone = "import pytest\nfrom harness.errors import RemoteError\n"
    gone += "gone = RemoteError('birch: does not answer', because='b', fix='f')\n"
    gone += "def raising(verb, **args): raise gone\n"
    project.write("conftest.py", MADE_UP_LAB + gone + hook)
    project.write("test_it.py", OF_THE_LAB)
    ran = project.pytest("--artifacts", "runs")
    assert ran.status == status, ran.text
    assert "birch: does not answer" in ran.text
    assert "Traceback" not in ran.text


@pytest.mark.parametrize(
    ("kind", "status"), [("LabError", 11), ("GuestError", 1), ("RemoteError", 1)]
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
    """A from-guest flow is recorded in the guest; the last try's error is the test's."""
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
        migrate(guest, tries={tries})
    assert guest.made == {made}
""",
    )
    ran = project.pytest("--artifacts", "runs")
    assert ran.status == 0, ran.text


def test_results_that_could_not_be_written_are_told_in_words(project: Project) -> None:
    """After an hour of tests, what was seen is still on the disk, and this says what is not."""
    full = "import errno\ndef finish(record): raise OSError(errno.ENOSPC, 'full', 'results.json')\n"
    replaced = "from harness.run.record import Record\nRecord.finish = finish\n"
    project.write("conftest.py", MADE_UP_LAB + full + replaced)
    project.write("test_it.py", OF_THE_LAB)
    ran = project.pytest("--artifacts", "runs")
    assert ran.status == 11, ran.text
    assert "results.json could not be written: its disk is full" in ran.text
    assert "Traceback" not in ran.text


def test_who_names_a_lab_and_no_file_means_the_tests_of_the_lab(project: Project) -> None:
    """Two thousand tests without a lab, and their imports, would come before the first of it."""
    for name in ("lab", "unit"):
        (project.folder / "tests" / name).mkdir(parents=True)
        project.write(f"tests/{name}/test_{name}.py", f"def test_of_{name}(): pass\n")
    project.write("pytest.ini", "[pytest]\ntestpaths = tests\n")
    asked = ("--lab", "twin", "--collect-only", "-q")
    named, unnamed = project.pytest(*asked), project.pytest(*asked[2:])
    chosen = project.pytest(*asked, "tests/unit")
    assert ["test_of_lab" in ran.text for ran in (named, unnamed, chosen)] == [True, True, False]
    assert ["test_of_unit" in ran.text for ran in (named, unnamed, chosen)] == [False, True, True]


def test_iterations_run_each_test_of_the_lab_so_often(project: Project) -> None:
    """What happens once in twenty is looked for with this."""
    project.write("conftest.py", MADE_UP_LAB)
    project.write("test_it.py", OF_THE_LAB + "def test_other(): pass\n")
    ran = project.pytest("--iterations", "3", "--artifacts", "runs")
    assert ran.status == 0
    assert "4 passed" in ran.text


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


def test_a_skipped_test_of_the_lab_is_in_the_results(project: Project) -> None:
    """A nightly report that leaves it out looks complete."""
    project.write("conftest.py", MADE_UP_LAB)
    skipped = 'import pytest\n@pytest.mark.needs("twin")\ndef test_skipped(lab): pass\n'
    project.write("test_it.py", OF_THE_LAB + skipped)
    assert project.pytest("--artifacts", "runs").status == 0
    results = json.loads((project.folder / "runs/latest/results.json").read_text())
    assert [each["outcome"] for each in results["tests"]] == ["passed", "skipped"]


@pytest.mark.parametrize("option", ["--collect-only", "--help", "--markers"])
def test_looking_touches_no_machine(project: Project, option: str) -> None:
    """An engineer looks for the marker to run, on a train."""
    unreachable = MADE_UP_LAB + "\nharness.run.lab.connect = None\n"
    project.write("conftest.py", unreachable)
    project.write("test_it.py", OF_THE_LAB)
    ran = project.pytest(option, "--artifacts", "runs")
    assert ran.status == 0
    assert not (project.folder / "runs").exists()


def test_a_dry_run_names_every_host_and_changes_none(project: Project) -> None:
    """It is read before a run is let loose on somebody's rack."""
    project.write("conftest.py", MADE_UP_LAB + "\nharness.run.lab.connect = None\n")
    project.write("test_it.py", OF_THE_LAB)
    ran = project.pytest("--lab", "x520-pair", "--dry-run", "--artifacts", "runs")
    assert ran.status == 0
    for word in ("alder", "birch", "sriov_numvfs", "Nothing was changed"):
        assert word in ran.text
    assert not (project.folder / "runs").exists()


def test_what_else_went_wrong_is_told_with_an_error() -> None:
    """A flow that could not be stopped either must not hide what broke the test, nor vanish."""
    error = LabError("alder: gone", because="it is off", fix="switch it on")
    error.add_note("flow jumbo could not be stopped: alder: gone")
    assert hooks._words(error).splitlines() == [
        *str(error).strip().splitlines(),
        "flow jumbo could not be stopped: alder: gone",
    ]
