"""Plans of scheme ``inplace``: what can be done when, and how it is written down."""

from __future__ import annotations

import itertools

import pytest

from harness.errors import UsageError
from harness.migration.plan import Marking, Plan, Quiesce, When, between

STOPPED = (When.PRE_SWITCHOVER, When.AFTER_STOP)
BY_HOST = (Quiesce.NOTHING, Quiesce.BME_CLEARED)


@pytest.mark.parametrize(("quiesce", "when"), list(itertools.product(Quiesce, When)))
def test_a_guest_whose_processors_are_stopped_is_asked_for_nothing(
    quiesce: Quiesce, when: When
) -> None:
    """It would be waited for until the migration's deadline, and then be called broken."""
    plan = Plan(quiesce, when)
    if quiesce in BY_HOST or when not in STOPPED:
        plan.check()
        return
    with pytest.raises(UsageError, match=f"{quiesce.value} cannot be done at {when.value}"):
        plan.check()


@pytest.mark.parametrize("when", [When.BEFORE, *STOPPED])
def test_passes_lie_between_two_steps_only_while_there_are_passes(when: When) -> None:
    with pytest.raises(UsageError, match="no pass lies between two steps"):
        Plan(Quiesce.BME_CLEARED, when, Marking.AFTER, passes=1).check()


@pytest.mark.parametrize(
    ("passes", "gap_s", "words"),
    [(0, 0.0, ""), (1, 0.0, ", 1 pass between"), (0, 0.5, ", 0.5 s between"),
     (2, 1.0, ", 2 passes and 1 s between")],
)  # fmt: skip
def test_what_lies_between_two_steps_is_said_if_there_is_something(
    passes: int, gap_s: float, words: str
) -> None:
    assert between(passes, gap_s) == words


def test_a_plan_is_recorded_in_words_and_in_data() -> None:
    plan = Plan(Quiesce.BME_CLEARED, When.PRECOPY, Marking.BEFORE, passes=1, gap_s=0.5)
    assert plan.words == "bme-cleared pre-copy, marked before, 1 pass and 0.5 s between"
    assert plan.data == {
        "quiesce": "bme-cleared", "when": "pre-copy", "marking": "before", "passes": 1,
        "gap_s": 0.5,
    }  # fmt: skip


@pytest.mark.parametrize("marking", [Marking.NONE, Marking.AS_WRITTEN])
@pytest.mark.parametrize(("when", "passes", "gap_s"), [(When.PRECOPY, 1, 0), (When.BEFORE, 0, 1)])
def test_nothing_lies_between_the_stop_and_what_is_no_step(
    marking: Marking, when: When, passes: int, gap_s: float
) -> None:
    with pytest.raises(UsageError, match=f"stopping and marking, which is {marking.value}"):
        Plan(Quiesce.BME_CLEARED, when, marking, passes, gap_s).check()


@pytest.mark.parametrize(("gap_s", "words"), [(0.5, "do not part two steps"), (-1, "cannot lie")])
def test_time_alone_parts_no_steps_in_pre_copy(gap_s: float, words: str) -> None:
    """A mark saves all that is written until the next pass, half a second later as well."""
    with pytest.raises(UsageError, match=words):
        Plan(Quiesce.BME_CLEARED, When.PRECOPY, Marking.BEFORE, gap_s=gap_s).check()
