"""A guest fails over to virtio-net while it migrates, and its VF's filter goes with the guest."""

from __future__ import annotations

from dataclasses import replace

import pytest
from made_up_host import vf_address
from qmp_server import connected
from two_ends import MAC, End, filters_set, gets_stuck, migrated
from two_ends import ends as ends

from harness.devices import profile
from harness.host.vf import NO_MAC
from harness.migration import move
from harness.migration.handoff import SET, HandOff, Order
from harness.migration.outcome import GONE
from harness.migration.schemes.failover import Failover


def test_a_source_that_ends_as_it_is_cancelled_is_an_outcome(
    ends: tuple[End, End], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The guest panics meanwhile, so that nobody needs the filter back."""
    monkeypatch.setattr(move, "SECONDS_AT_LEAST", 0.2)
    source, destination = ends
    gets_stuck(source, until_cancelled=source.monitor.end)
    outcome = migrated(
        ends, Failover(), HandOff(source.vf, destination.vf, MAC, Order.AFTER_RESUME)
    )
    assert (outcome.status, outcome.source_state) == ("failed", GONE)
    assert (filters_set(source), filters_set(destination)) == ([], [])


@pytest.mark.parametrize("order", Order)
def test_the_filter_is_set_at_the_destination_in_the_order_that_is_asked_for(
    ends: tuple[End, End], order: Order
) -> None:
    """A filter that is set too early sends the guest's frames to a VF that no driver has.

    One that is set too late races with the guest's driver, which takes a random address.
    """
    source, destination = ends
    hand_off = HandOff(source.vf, destination.vf, MAC, order)
    hand_off.prepare()
    assert bool(hand_off.steps) == (order is Order.BEFORE_OPEN)
    outcome = migrated(ends, Failover(), hand_off)

    assert outcome.check()
    assert (filters_set(source), filters_set(destination)) == ([], [MAC])
    (step,) = hand_off.steps
    assert (step.host, step.name, step.data) == (
        "birch", SET, {"vf": vf_address(0), "mac": MAC, "order": order.value},
    )  # fmt: skip
    assert (step.t_ns < outcome.asked_ns) == (order is Order.BEFORE_OPEN)


@pytest.mark.parametrize(
    ("name", "order"), [("82599", Order.BEFORE_OPEN), ("82576", Order.AFTER_RESUME)]
)
def test_the_order_is_that_of_the_destinations_family(
    ends: tuple[End, End], name: str, order: Order
) -> None:
    """A lab may have two families, and the source's says nothing of the destination's."""
    _, destination = ends
    port = replace(destination.vf.port, profile=profile(name))
    assert Order.of(replace(destination.vf, port=port)) is order


@pytest.mark.parametrize("order", Order)
def test_a_guest_that_did_not_come_leaves_no_filter_where_it_was_to_go(
    ends: tuple[End, End], order: Order
) -> None:
    """The next guest there would have two addresses in its port's filter, and the source none."""
    source, destination = ends
    connected(source.monitor, destination.monitor, fails="Broken pipe")
    hand_off = HandOff(source.vf, destination.vf, MAC, order)
    hand_off.prepare()
    assert migrated(ends, Failover(), hand_off).status == "failed"
    hand_off.withdraw()
    assert destination.machine.entries == set()
    prepared = [MAC, NO_MAC] if order is Order.BEFORE_OPEN else []
    assert (filters_set(source), filters_set(destination)) == ([MAC], prepared)


def test_a_guest_that_did_not_come_gets_its_filter_back_at_the_source(
    ends: tuple[End, End],
) -> None:
    """The guest runs on there, and its VF would take a random address without a filter."""
    source, destination = ends
    connected(source.monitor, destination.monitor, fails="Broken pipe")
    hand_off = HandOff(source.vf, destination.vf, MAC, Order.AFTER_RESUME)

    assert migrated(ends, Failover(), hand_off).status == "failed"
    assert (filters_set(source), filters_set(destination)) == ([MAC], [])
    assert [(step.host, step.name) for step in hand_off.steps] == [("alder", SET)]


def test_a_guest_that_never_resumes_gets_no_filter(
    ends: tuple[End, End], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The source says `completed`, but no guest is at the destination to get the frames."""
    monkeypatch.setattr(move, "SECONDS_AT_LEAST", 0.2)
    source, destination = ends
    source.monitor.reacts["migrate"] = lambda _: source.monitor.then.append(
        lambda: source.monitor.step("completed")
    )
    hand_off = HandOff(source.vf, destination.vf, MAC, Order.AFTER_RESUME)
    outcome = migrated(ends, Failover(), hand_off)
    assert (outcome.status, outcome.destination_state) == ("completed", "inmigrate")
    (note,) = outcome.notes
    assert note.text.startswith("birch: waited up to 0.2 s for the guest to run on")
    assert (filters_set(source), filters_set(destination)) == ([], [])


def test_a_migration_that_gets_stuck_is_cancelled_and_has_an_outcome(
    ends: tuple[End, End], monkeypatch: pytest.MonkeyPatch
) -> None:
    """QEMU waits for ever where a guest never lets its VF go, and would block the next test."""
    monkeypatch.setattr(move, "SECONDS_AT_LEAST", 0.2)
    source, destination = ends
    gets_stuck(source, until_cancelled=lambda: source.monitor.step("cancelled"))
    hand_off = HandOff(source.vf, destination.vf, MAC, Order.AFTER_RESUME)
    outcome = migrated(ends, Failover(), hand_off)
    assert outcome.status == "cancelled"
    assert outcome.reason == outcome.notes[0].text
    assert "events seen: MIGRATION wait-unplug" in outcome.reason
    assert (filters_set(source), filters_set(destination)) == ([MAC], [])
