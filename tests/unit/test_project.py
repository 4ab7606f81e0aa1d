"""What the project's own files promise: to a newcomer, to a reader, and to each other."""

from __future__ import annotations

import importlib
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from test_layers import ORDER

ROOT = Path(__file__).resolve().parents[2]
PYPROJECT = (ROOT / "pyproject.toml").read_text()
LOCK = (ROOT / "requirements.lock").read_text()
PROJECT = tomllib.loads(PYPROJECT)


def tracked(pattern: str = "*") -> list[Path]:
    """List the files that are, or are about to be, in git."""
    # safe.directory: the tree may be another user's, where the tests run as root
    git = ["git", "-c", f"safe.directory={ROOT}", "ls-files", "-z"]
    listing = subprocess.run(
        [*git, "--cached", "--others", "--exclude-standard", pattern],
        cwd=ROOT, stdout=subprocess.PIPE, text=True, check=True,
    ).stdout  # fmt: skip
    return sorted(path for name in listing.split("\0") if (path := ROOT / name).is_file())


def dependencies() -> list[str]:
    project = PROJECT["project"]
    extras = project["optional-dependencies"].values()
    lists = [PROJECT["build-system"]["requires"], project["dependencies"], *extras]
    return [dependency for each in lists for dependency in each]


# --- dependencies ---------------------------------------------------------------------------


@pytest.mark.parametrize("dependency", dependencies())
def test_dependency_has_its_reason_beside_it(dependency: str) -> None:
    """Nobody can tell later whether one may go, unless it says what it is here for."""
    (line,) = (line for line in PYPROJECT.splitlines() if f'"{dependency}"' in line)
    _, _, reason = line.partition("#")
    assert len(reason.split()) >= 3, f"the line of {dependency} gives no reason"


@pytest.mark.parametrize("dependency", dependencies())
def test_dependency_is_locked_at_a_version_that_it_allows(dependency: str) -> None:
    """One that is not locked is not installed, or is another one tomorrow: `make lock`."""
    wanted = Requirement(dependency)
    locked = dict(re.findall(r"^([a-z0-9-]+)==([^ ;]+)", LOCK, re.MULTILINE))
    version = locked.get(canonicalize_name(wanted.name))
    assert version is not None, "run `make lock`"
    assert wanted.specifier.contains(version), f"{version} is locked: run `make lock`"


def test_everything_locked_has_hashes_and_no_place() -> None:
    """Without a hash pip refuses the whole lock; with an address it leaves a site's own index."""
    entries = re.split(r"^(?=[a-z0-9])", LOCK, flags=re.MULTILINE)[1:]
    assert len(entries) > len(dependencies())
    assert [entry.split()[0] for entry in entries if "--hash=sha256:" not in entry] == []
    assert re.findall(r".*(?:://|--[a-z-]*index|--find-links).*", LOCK) == []


# --- words that lead nowhere else -----------------------------------------------------------

ELSEWHERE = {
    "a package registry's host": r"pypi\.org|pythonhosted\.org|deb\.debian\.org|"
    r"security\.debian\.org|snapshot\.debian\.org|archive\.ubuntu\.com|npmjs\.(?:org|com)",
    "a folder of one machine": r"(?<![\w./~-])/(?:work/|var/tmp/\w|root/\.pyenv|home/\w)",
}


@pytest.mark.parametrize("what", ELSEWHERE)
def test_no_file_names(what: str) -> None:
    """Mirrors come from the machine's own configuration, and folders from where the tree lies."""
    assert [
        f"{path.relative_to(ROOT)}:{number}: {line.strip()[:100]}"
        for path in tracked()
        for number, line in enumerate(path.read_text(errors="replace").splitlines(), start=1)
        if re.search(ELSEWHERE[what], line)
    ] == []


# --- what documents tell to type ------------------------------------------------------------

DOCUMENTS = tracked("*.md")


def typed(document: Path) -> list[str]:
    """Give what stands in code spans and code blocks, line by line."""
    text = document.read_text()
    blocks = re.findall(r"^```[^\n]*\n(.*?)^```", text, re.MULTILINE | re.DOTALL)
    indented = re.findall(r"^ {4}(.*)$", text, re.MULTILINE)
    spans = re.findall(r"`([^`\n]+)`", text)
    return [line for block in [*blocks, *indented, *spans] for line in block.splitlines()]


def make_targets(document: Path) -> set[str]:
    """Give the targets that a document tells to make."""
    return {name for line in typed(document) for name in re.findall(r"\bmake ([a-z-]+)", line)}


def test_the_architecture_lists_the_layers_in_their_order() -> None:
    """A newcomer reads the list, and believes it."""
    text = (ROOT / "docs/architecture.md").read_text()
    assert tuple(re.findall(r"^\| `(\w+)` \|", text, re.MULTILINE)) == ORDER


def test_the_files_that_the_architecture_names_exist() -> None:
    """A file that was renamed lives on in documents, where no tool looks for it."""
    text = (ROOT / "docs/architecture.md").read_text()
    named = re.findall(r"`(\w+/[\w/.]*)`", text)
    assert len(named) > 20
    assert [each for each in named if not any((ROOT / top / each).exists() for top in
            ("harness", "."))] == []  # fmt: skip


def test_readme_gives_the_two_commands() -> None:
    """They are what a newcomer starts with; everything else may move."""
    assert make_targets(ROOT / "README.md") >= {"demo", "test"}


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_make_targets_that_a_document_names_exist(document: Path) -> None:
    """A target that was renamed lives on in documents, where no tool looks for it."""
    targets = re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE)
    assert make_targets(document) - set(targets) == set()


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_subcommands_that_a_document_names_exist(
    document: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each is asked for its help, as the installed command would be."""
    module, function = PROJECT["project"]["scripts"]["vf-harness"].split(":")
    call = re.compile(r"\bvf-harness((?: [a-z]+)+)")
    for words in {words for line in typed(document) for words in call.findall(line)}:
        monkeypatch.setattr(sys, "argv", ["vf-harness", *words.split(), "--help"])
        with pytest.raises(SystemExit) as ended:
            getattr(importlib.import_module(module), function)()
        assert ended.value.code == 0, f"there is no `vf-harness{words}`"


def test_every_make_target_has_its_line_of_help() -> None:
    """`make help` is the list of what can be done here."""
    phony = re.search(r"^\.PHONY: (.*)$", (ROOT / "Makefile").read_text(), re.MULTILINE)
    assert phony is not None
    argv = ["make", "--no-print-directory"]
    said = subprocess.run(argv, cwd=ROOT, stdout=subprocess.PIPE, text=True, check=True)
    assert [line.split()[0] for line in said.stdout.splitlines()] == phony[1].split()
