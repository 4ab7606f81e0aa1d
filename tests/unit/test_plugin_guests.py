"""Modules share a guest where they can: guests that are booted here are names in a file."""

from __future__ import annotations

from pathlib import Path

import pytest
from plugin_project import MADE_UP_LAB, Project

GUESTS = """
from contextlib import contextmanager
from types import SimpleNamespace

import harness.run.moving, harness.run.provenance
from harness.report.results import GuestProvenance

def note(text):
    with open("said", "a") as file:
        print(text, file=file)

@contextmanager
def moving_guest(lab, spec, logs, *, vfs, ports):
    kind = "standby" if spec.standby else "bare"
    note(f"{kind} up")
    yield SimpleNamespace(machine=None, find_with_vf=lambda: note(f"{kind} found"))
    note(f"{kind} down")

harness.run.moving.moving_guest = moving_guest
harness.run.provenance.guest_provenance = lambda machine: GuestProvenance(
    kernel="none", vf_driver=None
)
"""


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Project:
    monkeypatch.chdir(tmp_path)
    project = Project(tmp_path)
    project.write("conftest.py", MADE_UP_LAB + GUESTS)
    project.write("test_it.py", "")
    return project


def said(project: Project) -> list[str]:
    return (project.folder / "said").read_text().splitlines()


def test_modules_share_a_guest_and_are_run_one_after_the_other(project: Project) -> None:
    """Nothing else comes in between, and a guest that the first has lost is replaced."""
    project.write("test_a.py", "def test_it(guest): pass\n")
    project.write("test_b.py", "def test_it(staying_guest): pass\n")
    project.write("test_c.py", "def test_it(guest): pass\n")
    project.write("test_d.py", "def test_it(bare_guest): pass\n")
    project.write("test_e.py", "def test_it(staying_guest): pass\n")
    ran = project.pytest("--artifacts", "runs")
    assert ran.status == 0, ran.text
    assert said(project) == [
        "bare up", "bare down",
        "standby up", "standby found", "standby down",
        "bare up", "bare found", "bare down",
    ]  # fmt: skip


def test_a_guest_of_a_test_alone_is_booted_for_each(project: Project) -> None:
    """Not every guest comes back from such a test."""
    project.write("test_a.py", "def test_a(bare_guest): pass\ndef test_b(bare_guest): pass\n")
    assert project.pytest("--artifacts", "runs").status == 0
    assert said(project) == ["bare up", "bare down"] * 2


def test_two_guests_at_once_are_refused(project: Project) -> None:
    """They have one address; what the first one's tests then found would be of the second."""
    project.write("test_a.py", "def test_a(guest): pass\ndef test_b(bare_guest): pass\n")
    ran = project.pytest("--artifacts", "runs")
    assert ran.status == 1
    assert "a fixture still has a guest" in ran.text
    assert said(project) == ["standby up", "standby down"]


ALONE_AND_THEN = """
def test_a(no_guest):
    with open("said", "a") as file:
        print("alone", file=file)

def test_b(staying_guest): pass
"""


def test_ports_are_had_without_the_guest_that_was_left_over(project: Project) -> None:
    """A driver whose VFs are in use refuses much."""
    project.write("test_a.py", "def test_it(guest): pass\n")
    project.write("test_b.py", ALONE_AND_THEN)
    ran = project.pytest("--artifacts", "runs")
    assert ran.status == 0, ran.text
    assert said(project) == ["standby up", "standby down", "alone", "bare up", "bare down"]
