"""A wrong word in a test is an error of mypy, before a lab is started for it."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
WRONG = """
from harness.analysis.expectation import Fail
from harness.analysis.verdict import Limits
from harness.audit.ways import Way
from harness.guest.faults import master_unowned
from harness.migration.move import Moment
from harness.migration.schemes.failover import Failover
from harness.run.moving import MovingGuest
from harness.run.verbs import MakeFlow, Migrate, StopVf

def test_it(guest: MovingGuest, flow: MakeFlow, migrate: Migrate, audit: StopVf) -> None:
    migrate(guest, flow(64), by=Failover(), limits=Limits(lost=0), expect=Fail("lost"), tries=2)
    migrate(guest, flow(64), by=Failover(), at={Moment.PRECOPY: master_unowned})
    migrate(guest, flow(64), by=Failover(), at={"pre-copy": master_unowned})  # wrong: Moment
    migrate(guest, flow(64))  # wrong: by
    migrate(guest, flow(64), by="failover")  # wrong: Scheme
    migrate(guest, flow(64), by=Failover(), compare_memroy=True)  # wrong: compare_memroy
    migrate(guest, flow(64), by=Failover(), limits=Limits(lots=0))  # wrong: lots
    migrate(guest, flow(64), by=Failover(), lost=0)  # wrong: lost
    migrate(guest, flow(64), by=Failover(), expect="fail")  # wrong: expect
    migrate(guest, 64, by=Failover())  # wrong: Flow
    flow(64, "to-gest")  # wrong: round-trip
    audit(guest, "unbind")  # wrong: Way
    migrate(guest, flow(64), by=Failover()).migration.reason  # wrong: reason
"""


def test_each_wrong_word_is_told_with_its_line(tmp_path: Path) -> None:
    """A misspelt keyword was found after the guest had booted, or changed nothing at all."""
    file = tmp_path / "wrong.py"
    file.write_text(WRONG)
    argv = [sys.executable, "-m", "mypy", "--config-file", str(ROOT / "pyproject.toml"), str(file)]
    environment = {**os.environ, "MYPYPATH": str(ROOT)}
    told = subprocess.run(
        argv, cwd=ROOT, env=environment, capture_output=True, text=True, check=False
    )
    wrong = {
        number: line.partition("# wrong: ")[2]
        for number, line in enumerate(WRONG.splitlines(), start=1)
        if "# wrong: " in line
    }
    errors = dict(re.findall(r"wrong\.py:(\d+): error: (.*)", told.stdout))
    assert {int(number) for number in errors} == set(wrong), told.stdout + told.stderr
    for number, word in wrong.items():
        assert word in errors[str(number)]


@pytest.mark.parametrize("name", ["Any", "Callable[..., "])
def test_no_verb_takes_just_anything(name: str) -> None:
    """A keyword of type Any is one that mypy does not look at."""
    assert name not in (ROOT / "harness/run/verbs.py").read_text()
