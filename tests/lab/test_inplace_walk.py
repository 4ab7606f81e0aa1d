"""Every way to stop a VF's DMA, at every moment, with every place of marking: the whole table.

It takes half an hour, and is what a nightly report is made from: ``pytest --lab twin -m inplace``.
"""

from __future__ import annotations

import itertools

import pytest

from harness.analysis.expectation import Fail
from harness.errors import UsageError
from harness.migration.plan import Marking, Plan, Quiesce, When
from harness.migration.schemes.inplace import InPlace
from harness.run.moving import MovingGuest
from harness.run.verbs import MakeFlow, Migrate

pytestmark = [
    pytest.mark.about("orders of stopping DMA and copying memory"),
    *(pytest.mark.inplace, pytest.mark.dma, pytest.mark.jumbo, pytest.mark.nightly),
    pytest.mark.needs("two-hosts", "twin", "peer", "jumbo"),
]

DUYCK = Plan(Quiesce.BME_CLEARED, When.PRECOPY, Marking.AFTER, passes=1, gap_s=1)


def can_be_done(plan: Plan) -> bool:
    try:
        plan.check()
    except UsageError:
        return False
    return True


def planned(quiesce: Quiesce, when: When, marking: Marking) -> Plan:
    """Marked first, the VF goes on for another pass, where the guest goes on that long."""
    apart = Plan(quiesce, when, marking, passes=1, gap_s=0.5)
    return (
        apart if marking is Marking.BEFORE and can_be_done(apart) else Plan(quiesce, when, marking)
    )


PLANS = [
    plan
    for plan in itertools.starmap(planned, itertools.product(Quiesce, When, Marking))
    if can_be_done(plan)
]


def keeps_all(plan: Plan) -> bool:
    """Whether nothing may be lost: DMA is off, and what it wrote is copied after that.

    Once a VF is unbound its device cannot mark any more.
    """
    if plan.quiesce is Quiesce.NOTHING or plan.when is When.AFTER_STOP:
        return False
    if plan.when is When.BEFORE or plan.marking is Marking.AS_WRITTEN:
        return True
    return plan.marking is Marking.AFTER and plan.quiesce is not Quiesce.UNBIND


def loses_some(plan: Plan) -> bool:
    """Whether something must be lost.

    Otherwise it is luck: whether the VF writes in the moment between mark and stop, and whether the
    guest, once it stands, has left it a buffer to write to.
    """
    if plan.when is When.AFTER_STOP:
        return True
    if plan.quiesce is Quiesce.NOTHING:
        return plan.when is not When.PRE_SWITCHOVER or plan.marking is Marking.NONE
    return not keeps_all(plan) and (plan.marking is not Marking.BEFORE or plan.passes > 0)


@pytest.mark.parametrize(
    "plan", PLANS, ids=lambda plan: plan.words.replace(",", "").replace(" ", "-")
)
def test_the_wrong_orders_lose_the_pages_that_are_predicted_and_the_right_ones_none(
    bare_guest: MovingGuest, flow: MakeFlow, migrate: Migrate, plan: Plan
) -> None:
    """What the device wrote after a page's last copy differs, and nothing else does."""
    moved = migrate(bare_guest, flow(9014), by=InPlace(plan), expect=None)
    pages = moved.conducted.tables["memory"]
    assert moved.memory["unexplained"] == [], moved.why
    assert pages["differs"][pages["must_differ"]].all(), moved.why
    if keeps_all(plan):
        assert moved.memory["differ"] == 0, moved.why
    if loses_some(plan):
        assert moved.memory["must_differ"] > 0, moved.why


@pytest.mark.parametrize("run", range(1, 11))
def test_the_right_order_loses_nothing_ten_times_of_ten(
    bare_guest: MovingGuest, flow: MakeFlow, migrate: Migrate, run: int
) -> None:
    """A page that is lost one time in a few is a guest that crashes one day in a few."""
    left_dead = Fail("Bus Master Enable is lost")
    moved = migrate(bare_guest, flow(9014), by=InPlace(DUYCK), expect=left_dead)
    assert moved.memory["differ"] == 0, f"run {run}: {moved.why}"
