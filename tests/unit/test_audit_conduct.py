"""What is noted of a VF that is given back, or is not."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, cast

import pytest

from harness.analysis.audit_records import NOT_BACK
from harness.audit import conduct
from harness.audit.ways import Way
from harness.clock import Relation
from harness.errors import GuestError, WaitError
from harness.host.vf import Observed
from harness.migration.clocks import Clocks, SharedClock


class Subject:
    """A guest's VF, of which one step *refuses*."""

    def __init__(self, *, refuses: str = "") -> None:
        self._refuses = refuses
        self.steps: list[str] = []

    def take_back(self, way: Way) -> str:
        del way
        return self._do("take_back", "bound")

    def begin_anew(self) -> None:
        self._do("begin_anew", "")

    def _do(self, step: str, told: str) -> str:
        self.steps.append(step)
        if step == self._refuses:
            raise GuestError("guest: its kernel refused", because="no such device", fix="look")
        return told


def given_back(subject: Subject, *served: bool, way: Way = Way.UNBIND) -> conduct._Notes:
    """What is noted where frames come back at each time of waiting that *served* says."""
    answers, notes = iter(served), conduct._Notes()

    def wait(seconds: float) -> None:
        if not next(answers):
            raise WaitError(f"nothing in {seconds} s", because="silence", fix="look")

    running = cast("Any", SimpleNamespace(wait_until_served=wait))
    conduct._give_back(way, cast("Any", subject), running, notes)
    return notes


@pytest.mark.parametrize(
    ("served", "back"),
    [
        ((True,), "bound"),
        ((False, True), "driver began anew (bound, 5 s in vain)"),
        ((False, False), NOT_BACK),
    ],
)
def test_how_a_vf_came_back_is_told(served: tuple[bool, ...], back: str) -> None:
    notes = given_back(Subject(), *served)
    assert (notes.back, notes.trouble) == (back, "")
    assert "taking_back" in notes.times


def test_a_vf_that_its_guest_reset_begins_anew_though_frames_come_back() -> None:
    """Half of what its driver wrote may be lost: the next audit would find a VF that is deaf."""
    subject = Subject()
    assert given_back(subject, True, way=Way.GUEST_RESET).back == "bound"
    assert subject.steps == ["take_back", "begin_anew"]


@pytest.mark.parametrize("step", ["take_back", "begin_anew"])
def test_a_step_that_fails_is_told_and_what_was_seen_is_kept(step: str) -> None:
    """The row is there all the same: what the VF did while it was stopped is known."""
    notes = given_back(Subject(refuses=step), False, False)
    assert (notes.back, notes.trouble) == (NOT_BACK, "guest: its kernel refused; no such device")


def test_samples_keep_what_is_not_known_of_their_times() -> None:
    """The time since the sample before, and both clocks'; in order, whoever wrote them."""
    apart = Clocks(monotonic=Relation(0, 1000, 30), wall=Relation(0, 0, 0))
    peer = Clocks(monotonic=Relation(0, 50, 7), wall=Relation(0, 0, 0))
    clocks = {"alder": apart, "peer": peer}
    line = {"host": "alder", "vf": "vf0", "bme": False, "via": "device", "gap_ns": 400}
    lines = [{**line, "t_ns": t_ns, "command": command} for t_ns, command in ((9000, 2), (5000, 6))]
    samples = conduct._samples(SharedClock(clocks, clocks, "peer"), Observed(lines, [], {}))
    told = [(each.t_ns, each.uncertainty_ns, each.gap_ns, each.command) for each in samples]
    assert told == [(4050, 437, 400, 6), (8050, 437, 400, 2)]
