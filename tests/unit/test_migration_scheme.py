"""Ways to migrate, between two QEMUs that behave as real ones do over QMP."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing
from dataclasses import replace
from ipaddress import IPv4Interface
from pathlib import Path

import pytest
from made_up_host import ENTRY, INTERFACE, Machine, made_up_host, vf_address
from qmp_server import Arguments, Monitor, Reaction, connected

from harness.devices import profile
from harness.errors import MigrationError
from harness.guest.instance import Instance
from harness.guest.qmp import Qmp
from harness.guest.spec import GuestSpec, Place
from harness.host.port import find_port
from harness.host.sriov import VirtualFunction
from harness.host.vf import NO_MAC
from harness.migration import scheme
from harness.migration.handoff import SET, HandOff, Order
from harness.migration.scheme import GONE, Outcome
from harness.migration.schemes.failover import Failover
from harness.migration.schemes.plain import Plain
from harness.topology import MacAddress, PciAddress

MAC = MacAddress("52:54:00:12:34:56")
ADDRESS = ("198.19.0.2", 4444)
SPEC = GuestSpec(memory_mib=256, cpus=1, mac=MAC, address=IPv4Interface("198.18.0.2/24"), mtu=9000)
PLACE = Place(
    qemu="qemu-system-x86_64",
    accelerator="tcg",
    kernel="/vmlinuz",
    initramfs="/initramfs",
    folder="/run/vf-harness/guest",
    tap="vfh0-guest",
    vf=None,
    incoming=False,
)


class End:
    """One end of a migration: a host with a port, and QEMU on it."""

    def __init__(self, name: str, state: str, folder: Path, stack: ExitStack) -> None:
        self.machine = Machine(folder / name)
        self.monitor = stack.enter_context(closing(Monitor(name, state=state)))
        self._qmp = stack.enter_context(closing(Qmp(name, self.monitor.near)))
        host = made_up_host(self.machine, name, folder=str(folder / f"{name}.d"))
        port = find_port(host, "p0", ENTRY.ports["p0"])
        host.write_text(f"{port.device}/sriov_numvfs", "1")
        self.vf = VirtualFunction(port, 0, PciAddress(vf_address(0)))
        self.instance = Instance(SPEC, self.vf, PLACE, host, 1, self._qmp)

    @property
    def asked(self) -> list[str]:
        return [command for command, _ in self.monitor.asked]


@pytest.fixture
def ends(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[End, End]]:
    """Source and destination, with a cable between them; what does not come in 3 s is missing."""
    monkeypatch.setattr(scheme, "SECONDS_AT_LEAST", 3)
    monkeypatch.setattr(scheme, "SECONDS_PER_GUEST_GIB", 0)
    with ExitStack() as stack:
        source = End("alder", "running", tmp_path, stack)
        destination = End("birch", "inmigrate", tmp_path, stack)
        connected(source.monitor, destination.monitor)
        yield source, destination


def migrated(ends: tuple[End, End], way: scheme.Scheme | None = None) -> Outcome:
    source, destination = ends
    return (way or Plain()).migrate(source.instance, destination.instance, ADDRESS)


def gets_stuck(end: End, *, until_cancelled: Callable[[], None]) -> None:
    """Let a migration from this end wait for its guest's VF until it is cancelled."""
    monitor = end.monitor
    monitor.reacts["migrate"] = lambda _: monitor.then.append(lambda: monitor.step("wait-unplug"))
    monitor.reacts["migrate_cancel"] = lambda _: monitor.then.append(until_cancelled)


def filters_set(end: End) -> list[str]:
    """List the addresses that the filter of this end's VF was given."""
    prefix = f"ip link set dev {INTERFACE} vf 0 mac "
    return [each.removeprefix(prefix) for each in end.machine.changes if each.startswith(prefix)]


# --- what every scheme does -----------------------------------------------------------------


def test_a_migration_that_completes_says_so_from_both_ends(ends: tuple[End, End]) -> None:
    """The figures are QEMU's whole answer: the report takes its down time from them."""
    outcome = migrated(ends)
    assert outcome.check() is outcome
    assert (outcome.source_state, outcome.destination_state) == ("postmigrate", "running")
    assert outcome.figures == {"status": "completed", "downtime": 224, "total-time": 4740}
    assert outcome.reason is None


def test_memory_is_looked_at_while_both_sides_stand_still(ends: tuple[End, End]) -> None:
    """It is loaded whole by then, and nobody writes to it; only after that the guest runs on."""
    source, destination = ends
    destination.monitor.paused = True
    states: list[tuple[str, str]] = []

    def standing(here: Instance, there: Instance) -> None:
        states.append((here.state, there.state))

    outcome = scheme.move(source.instance, destination.instance, ADDRESS, standing=standing)
    assert states == [("postmigrate", "paused")]
    assert outcome.destination_state == "running"


def test_the_destination_listens_before_the_source_is_asked(ends: tuple[End, End]) -> None:
    """The other way round QEMU answers `Connection refused`, now and then."""
    order: list[str] = []
    for end in ends:
        for command in ("migrate-incoming", "migrate"):
            react = end.monitor.reacts.get(command)
            if react:
                end.monitor.reacts[command] = _noted(command, react, order)
    migrated(ends)
    assert order == ["migrate-incoming", "migrate"]
    assert dict(ends[0].monitor.asked)["migrate"] == {"uri": "tcp:198.19.0.2:4444"}
    assert dict(ends[1].monitor.asked)["migrate-incoming"] == {"uri": "tcp:0.0.0.0:4444"}


def test_each_step_is_announced_by_both_ends(ends: tuple[End, End]) -> None:
    """Without the capability there is no event to wait for, and no phase on the timeline."""
    migrated(ends)
    titles = [[event.title for event in end.instance.qmp.events] for end in ends]
    assert titles[0] == [
        "MIGRATION setup", "MIGRATION active", "STOP", "MIGRATION device", "MIGRATION completed",
    ]  # fmt: skip
    assert titles[1][:3] == ["MIGRATION setup", "MIGRATION active", "RESUME"]


def test_the_moment_of_asking_is_before_anything_happens(ends: tuple[End, End]) -> None:
    """Every figure counts from it; taken after the answer, the first steps were before it."""
    source, _ = ends
    reacted_ns = 0
    react = source.monitor.reacts["migrate"]

    def timed(arguments: Arguments) -> object:
        nonlocal reacted_ns
        reacted_ns = time.monotonic_ns()
        return react(arguments)

    source.monitor.reacts["migrate"] = timed
    before_ns = time.monotonic_ns()
    assert before_ns <= migrated(ends).asked_ns <= reacted_ns


def test_a_migration_is_over_when_the_guest_runs_on(ends: tuple[End, End]) -> None:
    """The source says `completed` when it has sent all; the destination may still be loading."""
    source, destination = ends
    connected(source.monitor, destination.monitor, resumes_after_s=0.2)
    assert migrated(ends).destination_state == "running"


def test_a_failed_migration_quotes_qemu_and_has_no_destination(ends: tuple[End, End]) -> None:
    """QEMU's destination ends with a migration that fails; asking it must not hide the reason."""
    source, destination = ends
    connected(source.monitor, destination.monitor, fails="Unable to write to socket: Broken pipe")
    outcome = migrated(ends)
    assert (outcome.status, outcome.reason) == ("failed", "Unable to write to socket: Broken pipe")
    assert (outcome.source_state, outcome.destination_state) == ("running", GONE)


def test_the_migration_that_brought_the_guest_here_is_not_this_one(ends: tuple[End, End]) -> None:
    """Its source announced `completed` when it was the destination.

    Taken for the end of this migration, one that fails is waited for in vain at the other end.
    """
    source, destination = ends
    source.monitor.announces_steps = True
    for status in ("setup", "active", "completed"):
        source.monitor.step(status)
    connected(source.monitor, destination.monitor, fails="Broken pipe")

    assert migrated(ends).status == "failed"


def test_a_migration_that_failed_before_is_not_this_one(ends: tuple[End, End]) -> None:
    """The second try of a source whose first one failed."""
    source, _ = ends
    source.monitor.announces_steps = True
    source.monitor.step("failed")
    source.instance.qmp.execute("query-status")

    assert migrated(ends).check().status == "completed"


def test_a_source_that_ends_as_it_is_cancelled_is_an_outcome(
    ends: tuple[End, End], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its guest panics meanwhile; nobody is there for the filter to be given back to."""
    monkeypatch.setattr(scheme, "SECONDS_AT_LEAST", 0.2)
    source, destination = ends
    gets_stuck(source, until_cancelled=source.monitor.end)
    outcome = migrated(ends, Failover(HandOff(source.vf, destination.vf, MAC, Order.AFTER_RESUME)))
    assert (outcome.status, outcome.source_state) == ("failed", GONE)
    assert (filters_set(source), filters_set(destination)) == ([], [])


def test_a_source_that_ends_is_an_outcome_at_once(ends: tuple[End, End]) -> None:
    """It took the guest with it; the deadline is minutes."""
    source, _ = ends
    source.monitor.reacts["migrate"] = lambda _: source.monitor.then.append(source.monitor.end)
    began = time.monotonic()
    outcome = migrated(ends)
    assert (outcome.status, outcome.source_state) == ("failed", GONE)
    assert outcome.reason is not None
    assert outcome.reason.startswith("alder: the guest has ended at its source; ")
    assert "QEMU closed its connection" in outcome.notes[0].text
    assert time.monotonic() - began < 2


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"status": "failed", "reason": "Broken pipe", "destination_state": GONE},
         ("ended as 'failed', with the destination 'gone'", "QEMU says: Broken pipe")),
        ({"status": "cancelled"}, ("ended as 'cancelled'", "QEMU says: nothing")),
        ({"destination_state": "paused"}, ("ended as 'completed', with the destination 'paused'",
                                           "QEMU says: nothing")),
    ],
)  # fmt: skip
def test_an_outcome_that_is_not_good_says_what_qemu_said(
    change: dict[str, str], words: tuple[str, str]
) -> None:
    """`'failed' != 'completed'` sends a person to two logs; QEMU's own words are in neither."""
    good = Outcome(1, "completed", None, {}, "postmigrate", "running")
    with pytest.raises(MigrationError) as bad:
        replace(good, **change).check()  # type: ignore[arg-type]
    assert words[0] in bad.value.what
    assert bad.value.because == words[1]


def test_a_deadline_grows_with_the_guests_memory(
    ends: tuple[End, End], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A fixed one is too short for a large guest, or hides a hang of a small one."""
    source, _ = ends
    monkeypatch.setattr(scheme, "SECONDS_PER_GUEST_GIB", 120)
    assert scheme.deadline_for(source.instance).seconds == 3 + 120 / 4


# --- failover -------------------------------------------------------------------------------


@pytest.mark.parametrize("order", Order)
def test_the_filter_is_set_at_the_destination_in_the_order_that_is_asked_for(
    ends: tuple[End, End], order: Order
) -> None:
    """Earlier than its family allows, frames for the guest go to a VF that no driver has.

    Later than it allows, the setting races with the guest's driver, which takes a random address.
    """
    source, destination = ends
    hand_off = HandOff(source.vf, destination.vf, MAC, order)
    hand_off.prepare()
    assert bool(hand_off.steps) == (order is Order.BEFORE_OPEN)
    outcome = migrated(ends, Failover(hand_off))

    assert outcome.check()
    assert (filters_set(source), filters_set(destination)) == ([], [MAC])
    (step,) = hand_off.steps
    assert (step.host, step.name, step.data) == (
        "birch", SET, {"vf": vf_address(0), "mac": MAC, "order": order.value},
    )  # fmt: skip
    assert step.t_ns - step.took_ns <= step.t_ns
    assert (step.t_ns < outcome.asked_ns) == (order is Order.BEFORE_OPEN)


@pytest.mark.parametrize(
    ("name", "order"), [("82599", Order.BEFORE_OPEN), ("82576", Order.AFTER_RESUME)]
)
def test_the_order_is_that_of_the_destinations_family(
    ends: tuple[End, End], name: str, order: Order
) -> None:
    """Two families in one lab: what the source is says nothing of where the guest goes."""
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
    assert migrated(ends, Failover(hand_off)).status == "failed"
    hand_off.withdraw()
    assert destination.machine.entries == set()
    prepared = [MAC, NO_MAC] if order is Order.BEFORE_OPEN else []
    assert (filters_set(source), filters_set(destination)) == ([MAC], prepared)


def test_a_guest_that_did_not_come_gets_its_filter_back_at_the_source(
    ends: tuple[End, End],
) -> None:
    """It runs on there, and its VF, plugged in again, would take a random address without one."""
    source, destination = ends
    connected(source.monitor, destination.monitor, fails="Broken pipe")
    hand_off = HandOff(source.vf, destination.vf, MAC, Order.AFTER_RESUME)

    assert migrated(ends, Failover(hand_off)).status == "failed"
    assert (filters_set(source), filters_set(destination)) == ([MAC], [])
    assert [(step.host, step.name) for step in hand_off.steps] == [("alder", SET)]


def test_a_guest_that_never_resumes_gets_no_filter(
    ends: tuple[End, End], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The source says `completed`, the destination nothing: nobody is there for the frames."""
    monkeypatch.setattr(scheme, "SECONDS_AT_LEAST", 0.2)
    source, destination = ends
    source.monitor.reacts["migrate"] = lambda _: source.monitor.then.append(
        lambda: source.monitor.step("completed")
    )
    hand_off = HandOff(source.vf, destination.vf, MAC, Order.AFTER_RESUME)
    outcome = migrated(ends, Failover(hand_off))
    assert (outcome.status, outcome.destination_state) == ("completed", "inmigrate")
    (note,) = outcome.notes
    assert note.text.startswith("birch: waited up to 0.2 s for the guest to run on")
    assert (filters_set(source), filters_set(destination)) == ([], [])


def test_a_migration_that_gets_stuck_is_cancelled_and_has_an_outcome(
    ends: tuple[End, End], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A guest that never lets its VF go: QEMU waits for ever, and the next test could not begin."""
    monkeypatch.setattr(scheme, "SECONDS_AT_LEAST", 0.2)
    source, destination = ends
    gets_stuck(source, until_cancelled=lambda: source.monitor.step("cancelled"))
    hand_off = HandOff(source.vf, destination.vf, MAC, Order.AFTER_RESUME)
    outcome = migrated(ends, Failover(hand_off))
    assert outcome.status == "cancelled"
    assert outcome.reason == outcome.notes[0].text
    assert "events seen: MIGRATION wait-unplug" in outcome.reason
    assert (filters_set(source), filters_set(destination)) == ([MAC], [])


def _noted(command: str, react: Reaction, order: list[str]) -> Reaction:
    def noted(arguments: Arguments) -> object:
        order.append(command)
        return react(arguments)

    return noted
