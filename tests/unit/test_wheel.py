"""A wheel of the harness, installed alone in a new environment, has all that its commands need."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import sysconfig
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@dataclass(frozen=True)
class Installed:
    """A wheel is installed in *environment*, and its commands run in *folder*."""

    environment: Path
    folder: Path

    def run(self, *argv: str, **variables: str) -> subprocess.CompletedProcess[str]:
        kept = {k: v for k, v in os.environ.items() if not k.startswith(("VF_HARNESS_", "PYTEST"))}
        program = str(self.environment / "bin" / argv[0])
        return subprocess.run(
            [program, *argv[1:]], cwd=self.folder, env={**kept, "PYTHONPATH": "", **variables},
            capture_output=True, text=True, timeout=100, check=False,
        )  # fmt: skip


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Installed:
    """Build the wheel and install it; the libraries are those of the environment of this test."""
    folder = tmp_path_factory.mktemp("installed")
    environment, built = folder / "environment", folder / "built"
    python = str(environment / "bin/python")
    _done(sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(built))
    _done(sys.executable, "-m", "venv", "--without-pip", str(environment))
    (wheel,) = built.glob("*.whl")
    _done(sys.executable, "-m", "uv", "pip", "install", "--python", python, "--no-deps",
          "--offline", "--no-cache", str(wheel))  # fmt: skip
    (packages,) = environment.glob("lib/python*/site-packages")
    for library in Path(sysconfig.get_path("purelib")).iterdir():
        if "vf_harness" not in library.name and not (packages / library.name).exists():
            (packages / library.name).symlink_to(library)
    # The command that pytest's own installation would have made:
    command = environment / "bin/pytest"
    command.write_text(f"#!{python}\nimport sys, pytest\nsys.exit(pytest.main())\n")
    command.chmod(0o755)
    (folder / "work").mkdir()
    return Installed(environment, folder / "work")


def _done(*argv: str) -> None:
    done = subprocess.run(argv, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_the_package_is_the_installed_one(installed: Installed) -> None:
    """Otherwise the tests below would look at the source tree."""
    where = installed.run("python", "-c", "import harness; print(harness.__file__)").stdout
    assert where.startswith(str(installed.environment))


def test_the_labs_are_known_by_name(installed: Installed) -> None:
    shown = installed.run("vf-harness", "lab", "status", "--lab", "emulated")
    assert shown.returncode in (0, 1), "up, or not up"
    assert shown.stderr == ""
    assert "folder:" in shown.stdout
    unknown = installed.run("vf-harness", "lab", "status", "--lab", "emulatde")
    assert unknown.returncode == 2
    assert "did you mean 'emulated'?" in unknown.stderr


@pytest.mark.parametrize("which", [(), ("--results",)])
def test_the_schemas_are_printed(installed: Installed, which: tuple[str, ...]) -> None:
    printed = installed.run("vf-harness", "schema", *which)
    assert printed.returncode == 0, printed.stderr
    assert "properties" in json.loads(printed.stdout)


def test_the_doctor_is_at_work(installed: Installed) -> None:
    """Hosts that nobody reaches are told host by host, and end the command with 11."""
    text = (ROOT / "topologies/x520-pair.toml").read_text().replace("192.0.2.", "127.0.0.")
    (installed.folder / "rack.toml").write_text(text.replace("port = 22", "port = 1"))
    looked = installed.run("vf-harness", "doctor", "--lab", "rack.toml")
    assert "Traceback" not in looked.stderr
    assert looked.returncode == 11, looked.stderr
    assert "alder" in looked.stdout + looked.stderr


def test_the_suite_is_run_where_a_lab_is_named_and_no_file(installed: Installed) -> None:
    """By option or by variable, and also for a file elsewhere."""
    (installed.folder / "mylab.toml").write_text((ROOT / "topologies/twin.toml").read_text())
    quiet = ("--collect-only", "-qq", "-p", "no:cacheprovider")
    file = str(installed.folder / "mylab.toml")
    for named, variables in (
        (("--lab", "twin"), {}), (("--lab=twin",), {}), (("--lab", file), {}),
        ((), {"VF_HARNESS_LAB": "twin"}),
    ):  # fmt: skip
        collected = installed.run("pytest", *named, *quiet, **variables)
        assert collected.returncode == 0, collected.stdout + collected.stderr
        assert "test_inplace.py: " in collected.stdout
    nothing = installed.run("pytest", *quiet)
    assert nothing.returncode == pytest.ExitCode.NO_TESTS_COLLECTED


def test_the_suite_of_a_source_tree_is_run_from_anywhere(tmp_path: Path) -> None:
    """An engineer works in a folder of results, and has the harness as a checkout."""
    argv = (sys.executable, "-m", "pytest", "--lab", "twin", "--collect-only", "-qq")
    found = subprocess.run(argv, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert found.returncode == 0, found.stdout + found.stderr
    assert "test_inplace.py: " in found.stdout


def test_the_tests_of_somebody_elses_project_stay_theirs(installed: Installed) -> None:
    """The harness is a plugin there, and `--lab` says on which lab their tests run."""
    project = installed.folder / "project"
    (project / "tests").mkdir(parents=True)
    (project / "tests/test_theirs.py").write_text("def test_it(lab): pass\n")
    theirs = Installed(installed.environment, project)
    collected = theirs.run("pytest", "--lab", "twin", "--collect-only", "-qq")
    assert collected.stdout.split() == ["tests/test_theirs.py:", "1"]
