"""On hosts with two ports each test runs on either, and a dry run says so."""

from __future__ import annotations

from plugin_project import Project, project

from harness.topology import TOPOLOGIES

__all__ = ["project"]

EMULATED = (TOPOLOGIES / "emulated.toml").read_text()

SECOND = """
[hosts.{name}.ports.p1]
pci = "0000:01:00.1"
device = "82599"
"""
BOTH = EMULATED.replace('"birch.p0", "peer"', '"birch.p0", "alder.p1", "birch.p1", "peer"')
TESTS = """
def test_of_a_guest(guest): pass
def test_of_a_port(port_pair): pass
def test_of_the_lab(lab): pass
"""


def with_two_ports(project: Project, text: str) -> None:
    """Describe a lab whose hosts have a second port, and tests of it."""
    more = "".join(SECOND.format(name=name) for name in ("alder", "birch"))
    project.write("mine.toml", text + more)
    project.write("test_it.py", TESTS)


def test_what_has_to_do_with_a_port_is_tested_on_each(project: Project) -> None:
    """The second port of a card numbers its VFs in another way."""
    with_two_ports(project, BOTH)
    ran = project.pytest("--lab", "mine.toml", "--collect-only", "-q")
    assert [line for line in ran.text.splitlines() if "::" in line] == [
        "test_it.py::test_of_a_guest[p0]",
        "test_it.py::test_of_a_port[p0]",
        "test_it.py::test_of_a_guest[p1]",
        "test_it.py::test_of_a_port[p1]",
        "test_it.py::test_of_the_lab",
    ]


def test_a_dry_run_tells_what_becomes_of_each_port(project: Project) -> None:
    """Whoever lends a card wants to know which of its ports will be down for a while."""
    with_two_ports(project, BOTH)
    ran = project.pytest("--lab", "mine.toml", "--dry-run")
    assert ran.text.count("p0, then p1, one after another") == 2
    assert ran.text.count("p1 0000:01:00.1: sriov_numvfs 0 -> 2") == 2


def test_a_dry_run_says_that_a_port_off_the_wire_is_left_alone(project: Project) -> None:
    """A dry run must not announce a bridge and VFs for a port that the run leaves alone."""
    with_two_ports(project, EMULATED)
    ran = project.pytest("--lab", "mine.toml", "--dry-run")
    assert ran.text.count("p1 0000:01:00.1: unchanged: no other host has a port") == 2
    assert "p1 0000:01:00.1: sriov_numvfs" not in ran.text
    assert "one after another" not in ran.text
