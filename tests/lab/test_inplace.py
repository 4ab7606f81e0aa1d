"""The seed's question: a guest migrates with its VF, and does every byte arrive."""

from __future__ import annotations

from collections.abc import Mapping

import pytest

from harness.analysis.expectation import Fail, Pass
from harness.analysis.measured import MARKING_REFUSED
from harness.migration.plan import Marking, Plan, Quiesce, When
from harness.migration.schemes.inplace import InPlace
from harness.run.moving import MovingGuest
from harness.run.verbs import MakeFlow, Migrate

pytestmark = [
    pytest.mark.about("orders of stopping DMA and copying memory"),
    *(pytest.mark.inplace, pytest.mark.dma, pytest.mark.jumbo),
    pytest.mark.needs("two-hosts", "twin", "peer", "jumbo"),
]

LOSING = {
    "nothing-stopped": Plan(Quiesce.NOTHING),
    "never-marked": Plan(Quiesce.BME_CLEARED),
    "marked-then-stopped": Plan(
        Quiesce.BME_CLEARED, When.PRECOPY, Marking.BEFORE, passes=1, gap_s=0.5
    ),
    "too-late": Plan(Quiesce.BME_CLEARED, When.AFTER_STOP, Marking.AFTER),
    "marked-as-written": Plan(Quiesce.NOTHING, marking=Marking.AS_WRITTEN),
}
KEEPING = {
    "stopped-then-marked": Plan(
        Quiesce.BME_CLEARED, When.PRECOPY, Marking.AFTER, passes=1, gap_s=0.5
    ),
    "stopped-and-marked-as-written": Plan(
        Quiesce.BME_CLEARED, When.PRE_SWITCHOVER, Marking.AS_WRITTEN
    ),
    "at-the-last-moment": Plan(Quiesce.BME_CLEARED, When.PRE_SWITCHOVER, Marking.AFTER),
    "asleep": Plan(Quiesce.ACPI_SUSPEND, When.PRECOPY, Marking.AFTER),
}


ASLEEP = InPlace(Plan(Quiesce.ACPI_SUSPEND, When.BEFORE))

LEFT_DEAD = "Bus Master Enable is lost"
"""Nobody gives a VF at the destination its BME back, where the guest's driver was not told."""

NIGHTLY = ("never-marked", "asleep", "marked-as-written", "stopped-and-marked-as-written")
"""Orders that another one here resembles, and hardware that tracks its own writes."""


def cases_of(plans: Mapping[str, Plan]) -> list[object]:
    marks = {name: [pytest.mark.nightly] if name in NIGHTLY else [] for name in plans}
    return [pytest.param(plan, id=name, marks=marks[name]) for name, plan in plans.items()]


@pytest.mark.parametrize("plan", cases_of(LOSING))
def test_a_wrong_order_loses_pages(
    bare_guest: MovingGuest, flow: MakeFlow, migrate: Migrate, plan: Plan
) -> None:
    """What is written after a page's last copy is lost, whatever was marked before.

    The device's log and QEMU's trace of its copies predict it page for page: what must differ
    does, and nothing does that may not.
    """
    lost = Fail("pages of memory were lost")
    moved = migrate(bare_guest, flow(9014), by=InPlace(plan), expect=lost)
    pages = moved.conducted.tables["memory"]
    assert moved.memory["must_differ"] > 0, moved.why
    assert moved.memory["unexplained"] == [], moved.why
    assert pages["differs"][pages["must_differ"]].all(), moved.why


@pytest.mark.parametrize("plan", cases_of(KEEPING))
def test_dma_stopped_and_then_marked_loses_nothing(
    bare_guest: MovingGuest, flow: MakeFlow, migrate: Migrate, plan: Plan
) -> None:
    """Duyck's order: whatever stops the DMA, what it wrote until then is copied once more."""
    expected = Fail(LEFT_DEAD) if plan.quiesce is Quiesce.BME_CLEARED else Pass()
    moved = migrate(bare_guest, flow(9014), by=InPlace(plan), expect=expected)
    assert moved.memory["differ"] == 0, moved.why
    assert moved.memory["pages"] == bare_guest.spec.memory_mib * 256


def test_without_bus_master_enable_nobody_takes_a_mark_from_the_device(
    bare_guest: MovingGuest, flow: MakeFlow, migrate: Migrate
) -> None:
    """Its driver clears BME as it lets a VF go; after that only the driver itself could mark.

    The seed has the driver mark its pages, by writing to them: this shows why it must.
    """
    marked_last = Plan(Quiesce.UNBIND, When.PRECOPY, Marking.AFTER)
    expected = Fail(LEFT_DEAD, "pages of memory were lost")
    moved = migrate(bare_guest, flow(9014), by=InPlace(marked_last), expect=expected)
    refused = [e for e in moved.conducted.measured.events if e.name == MARKING_REFUSED]
    assert len(refused) == 1, moved.why
    assert moved.memory["must_differ"] > 0, moved.why
    assert moved.memory["unexplained"] == [], moved.why


@pytest.mark.smoke
def test_a_guest_that_sleeps_meanwhile_has_its_vf_back(
    bare_guest: MovingGuest, flow: MakeFlow, migrate: Migrate
) -> None:
    """The trigger that the seed proposes, an ACPI event, with drivers as they are.

    `ixgbevf` stops its DMA in suspend, though BME stays set; in resume it sets up a VF that it has
    never seen, and 9000-byte frames return.
    """
    moved = migrate(bare_guest, flow(9014), by=ASLEEP)
    assert moved.memory["differ"] == 0, moved.why
    assert moved.bme_seen("device") == {True}, "suspend clears BME again: the audit must know"
    assert moved.served_in("after") > 0.5, moved.why


@pytest.mark.nightly
def test_a_guest_sleeps_through_one_move_after_another(
    bare_guest: MovingGuest, flow: MakeFlow, migrate: Migrate
) -> None:
    """Firmware that wakes a guest must leave it able to sleep again; SeaBIOS does not."""
    for way in ("there", "back"):
        moved = migrate(bare_guest, flow(9014), by=ASLEEP)
        assert moved.memory["differ"] == 0, f"{way}: {moved.why}"
        assert moved.served_in("after") > 0.5, f"{way}: {moved.why}"
