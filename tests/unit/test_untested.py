"""A line at the end of a run says what its lab could not test."""

from __future__ import annotations

import pytest
from plugin_project import MADE_UP_LAB, OF_THE_LAB, Project, project

__all__ = ["project"]

OF_PORTS = """
import pytest

@pytest.mark.about("older mailbox APIs")
@pytest.mark.needs("twin")
def test_api(): pass

@pytest.mark.about("cuts")
@pytest.mark.needs("twin", "migration-capability")
def test_cut(): pass

@pytest.mark.needs("two-hosts")
def test_met(): pass

@pytest.mark.parametrize("kind", ["any", pytest.param("own", marks=pytest.mark.needs("twin"))])
def test_in_part(kind): pass
"""


def told(project: Project, *arguments: str) -> list[str]:
    """Give the lines of a run that tell what was not tested."""
    ran = project.pytest("--lab", "emulated", *arguments)
    assert ran.status == 0, ran.text
    return [line for line in ran.text.splitlines() if line.startswith("not tested")]


def test_what_a_lab_cannot_test_is_told_in_one_line_with_the_need(project: Project) -> None:
    """A green run may be incomplete; the line leaves out a subject of which a test did run."""
    project.write("test_port_things.py", OF_PORTS)
    assert told(project) == [
        "not tested on lab 'emulated': older mailbox APIs (needs twin); "
        "cuts (needs twin, migration-capability)"
    ]


def test_a_subject_is_named_after_its_file_where_nothing_else_is_said(project: Project) -> None:
    needs = 'import pytest\n@pytest.mark.needs("twin")\ndef test_it(): pass\n'
    project.write("test_port_things.py", needs)
    assert told(project) == ["not tested on lab 'emulated': port things (needs twin)"]


def test_the_line_stands_below_the_migrations_of_a_run(project: Project) -> None:
    """A reader looks below the migrations for what came of the run."""
    project.write("conftest.py", MADE_UP_LAB)
    project.write("test_it.py", OF_THE_LAB)
    project.write("test_port_things.py", OF_PORTS)
    ran = project.pytest("--artifacts", "runs")
    report, line = ran.text.index("report: "), ran.text.index("not tested on lab 'emulated': ")
    assert report < line


@pytest.mark.parametrize("option", [("--collect-only",), ("-k", "met")])
def test_whoever_left_tests_out_is_not_told_of_them(
    project: Project, option: tuple[str, ...]
) -> None:
    """The line is about the lab, so it names no subject that a user left out by -k or -m."""
    project.write("test_port_things.py", OF_PORTS)
    assert told(project, *option) == []
