"""A real pytest with the plugin takes options, chooses tests, and refuses wrong use."""

from __future__ import annotations

import subprocess
import sys

import pytest
from plugin_project import MADE_UP_LAB, OF_THE_LAB, ROOT, Project
from plugin_project import project as project
from test_topology import EMULATED

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
        (
            ["--lab", "nowhere"],
            {},
            "emulated-63-vfs, emulated-82576, emulated-x520-da2, emulated, twin, x520-pair",
        ),
        ([], {"VF_HARNESS_LAB": "nowhere"}, "no lab called 'nowhere'"),
        (["--iterations", "none"], {}, "--iterations none"),
        ([], {"VF_HARNESS_ITERATIONS": "0"}, "VF_HARNESS_ITERATIONS"),
        (["--guest-kernel", "mine"], {}, "one of stable, backports"),
        ([], {"VF_HARNESS_GUEST_KERNEL": "mine"}, "--guest-kernel mine"),
        (["--host-kernel", "mine"], {}, "one of stable, backports"),
        (["--host-kernel", "backports", "--lab", "x520-pair"], {}, "did not make the hosts"),
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
    ("folder", "arguments", "has_suite"),
    [
        (".", ("--lab", "twin"), True),
        (".", ("--lab", "twin", "tests/unit/test_plugin.py"), False),
        ("tests/unit", ("--lab", "twin", "-k", "test_who_names"), False),
    ],
)
def test_who_names_a_lab_and_no_file_means_the_tests_of_the_lab(
    folder: str, arguments: tuple[str, ...], has_suite: bool
) -> None:
    """Two thousand tests without a lab, and their imports, would come before the first of it."""
    argv = (sys.executable, "-m", "pytest", "--collect-only", "-qq", *arguments)
    found = subprocess.run(argv, cwd=ROOT / folder, capture_output=True, text=True, check=False)
    assert found.returncode == 0, found.stdout + found.stderr
    assert ("tests/lab/" in found.stdout, "tests/unit/" in found.stdout) == (
        has_suite, not has_suite,
    )  # fmt: skip


def test_iterations_run_each_test_of_the_lab_so_often(project: Project) -> None:
    """What happens once in twenty is looked for with this."""
    project.write("conftest.py", MADE_UP_LAB)
    project.write("test_it.py", OF_THE_LAB + "def test_other(): pass\n")
    ran = project.pytest("--iterations", "3", "--artifacts", "runs")
    assert ran.status == 0
    assert "4 passed" in ran.text


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
