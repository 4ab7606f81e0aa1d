"""The pytest plugin: options, markers, needs, fixtures, and what is kept of a run."""

from __future__ import annotations

from harness.plugin.fixtures import (
    audit,
    bare_guest,
    case,
    every_test_of_the_lab_is_a_case,
    flow,
    guest,
    guests,
    hosts,
    lab,
    migrate,
    port_guest,
    port_pair,
    staying_guest,
    two_vf_guest,
)
from harness.plugin.hooks import (
    pytest_addoption,
    pytest_collection_finish,
    pytest_collection_modifyitems,
    pytest_configure,
    pytest_generate_tests,
    pytest_runtest_makereport,
    pytest_runtest_setup,
    pytest_runtestloop,
    pytest_sessionfinish,
    pytest_terminal_summary,
)

__all__ = [
    "audit",
    "bare_guest",
    "case",
    "every_test_of_the_lab_is_a_case",
    "flow",
    "guest",
    "guests",
    "hosts",
    "lab",
    "migrate",
    "port_guest",
    "port_pair",
    "pytest_addoption",
    "pytest_collection_finish",
    "pytest_collection_modifyitems",
    "pytest_configure",
    "pytest_generate_tests",
    "pytest_runtest_makereport",
    "pytest_runtest_setup",
    "pytest_runtestloop",
    "pytest_sessionfinish",
    "pytest_terminal_summary",
    "staying_guest",
    "two_vf_guest",
]
