"""The seed's question: a guest migrates with its VF, and does every byte arrive."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from harness.migration.schemes.inplace import Plan, Quiesce, When
from harness.run.moving import MovingGuest
from harness.run.record import Moved
from harness.traffic.flow import Flow

pytestmark = [
    *(pytest.mark.inplace, pytest.mark.dma, pytest.mark.jumbo),
    pytest.mark.needs("two-hosts", "twin", "peer", "jumbo"),
]


@pytest.mark.smoke
def test_without_any_order_pages_are_lost(
    bare_guest: MovingGuest, flow: Callable[..., Flow], migrate: Callable[..., Moved]
) -> None:
    """DMA past dirty-page tracking is the seed's problem: here it is, with the pages by number."""
    moved = migrate(bare_guest, flow(9014), plan=Plan(Quiesce.NOTHING))
    assert moved.memory["differ"] > 0, moved.why
    assert moved.memory["unexplained"] == [], moved.why


@pytest.mark.smoke
def test_a_guest_that_sleeps_loses_no_page_and_gets_its_vf_back(
    bare_guest: MovingGuest, flow: Callable[..., Flow], migrate: Callable[..., Moved]
) -> None:
    plan = Plan(Quiesce.ACPI_SUSPEND, When.BEFORE)
    moved = migrate(bare_guest, flow(9014), plan=plan)
    assert moved.memory["differ"] == 0, moved.why
    assert moved.migration.flows[0].received > 0, moved.why
