"""Every scheme moves a guest between two QEMUs that behave as real ones do over QMP."""

from __future__ import annotations

import time
from dataclasses import replace

import pytest
from qmp_server import Arguments, Reaction, connected
from two_ends import End, migrated, move_between
from two_ends import ends as ends

from harness.analysis.measured import FAULT, NO_FAULT
from harness.errors import MigrationError, UsageError
from harness.guest.instance import Instance
from harness.migration import move
from harness.migration.comparison import Comparison
from harness.migration.move import Fault, Moment
from harness.migration.outcome import GONE, Outcome


class Undigested(Comparison):
    """A comparison that notes the states of both ends when it is to digest them."""

    def __init__(self) -> None:
        super().__init__()
        self.states: list[tuple[str, str]] = []

    def digest(self, source: Instance, successor: Instance) -> None:
        self.states.append((source.state, successor.state))


def test_a_migration_that_completes_says_so_from_both_ends(ends: tuple[End, End]) -> None:
    """The figures are QEMU's whole answer: the report takes its down time from them."""
    outcome = migrated(ends)
    assert outcome.check() is outcome
    assert (outcome.source_state, outcome.destination_state) == ("postmigrate", "running")
    assert outcome.figures == {"status": "completed", "downtime": 224, "total-time": 4740}
    assert outcome.reason is None


def test_memory_is_looked_at_while_both_sides_stand_still(ends: tuple[End, End]) -> None:
    """It is loaded whole by then, and nobody writes to it; only after that the guest runs on."""
    destination = ends[1]
    destination.monitor.paused = True
    comparison = Undigested()
    outcome = move_between(ends, comparison=comparison).go()
    assert comparison.states == [("postmigrate", "paused")]
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
    """Every figure counts from it; taken after the answer, the first steps were before it.

    The destination was asked to listen before that: what that took is not the migration's.
    """
    at_ns = {
        command: _timed(end, command)
        for end, command in zip(ends, ("migrate", "migrate-incoming"), strict=True)
    }
    asked_ns = migrated(ends).asked_ns
    assert at_ns["migrate-incoming"][0] < asked_ns <= at_ns["migrate"][0]


def test_each_fault_is_put_in_at_its_moment(ends: tuple[End, End]) -> None:
    """A fault that came at another moment would show something else than the test says."""
    source, destination = ends
    destination.monitor.paused = True
    came: list[tuple[str, str, str]] = []

    def put_in(moment: Moment) -> Fault:
        return lambda here, there: came.append((moment.name, here.state, there.state))

    faults = {moment: put_in(moment) for moment in reversed(Moment)}
    moving = move_between(ends, comparison=Undigested(), faults=faults)
    moving.come_to(Moment.FLOWING)
    assert source.asked == ["query-status"], "nothing is asked for while only flows run"
    outcome = moving.go()
    assert [name for name, *_ in came] == [moment.name for moment in Moment]
    assert came[2:4] == [(name, "postmigrate", "paused") for name in ("STANDING", "DIGESTED")]
    assert came[4] == ("RESUMED", "postmigrate", "running")
    assert [note.name for note in outcome.notes] == [FAULT] * len(Moment)


def test_a_fault_whose_moment_never_comes_is_told(ends: tuple[End, End]) -> None:
    """A test that passes without its fault has shown nothing."""
    connected(ends[0].monitor, ends[1].monitor, fails="Broken pipe")
    put_in: list[Instance] = []
    faults: dict[Moment, Fault] = {
        moment: lambda here, _: put_in.append(here) for moment in (Moment.PRECOPY, Moment.RESUMED)
    }
    outcome = move_between(ends, faults=faults).go()
    assert put_in == [ends[0].instance]
    assert [(note.name, note.text) for note in outcome.notes] == [
        (FAULT, "precopy"),
        (NO_FAULT, "resumed: it did not come to that"),
    ]


@pytest.mark.parametrize("moment", [Moment.STANDING, Moment.DIGESTED])
def test_a_fault_while_both_sides_stand_needs_a_comparison(moment: Moment) -> None:
    """Told before the guest moves, not by a minute of migration without a result."""
    faults: dict[Moment, Fault] = {moment: lambda *_: None}
    move.check_faults(faults, compares=True)
    with pytest.raises(UsageError, match=f"Moment.{moment.name} would never be put in"):
        move.check_faults(faults, compares=False)


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
    assert time.monotonic() - began < 30


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
    monkeypatch.setattr(move, "SECONDS_PER_GUEST_GIB", 120)
    assert move.deadline_for(source.instance).seconds == 3 + 120 / 4


def _noted(command: str, react: Reaction, order: list[str]) -> Reaction:
    def noted(arguments: Arguments) -> object:
        order.append(command)
        return react(arguments)

    return noted


def _timed(end: End, command: str) -> list[int]:
    """Return a list that gets our monotonic time, in ns, of each *command* at this end."""
    react, at_ns = end.monitor.reacts[command], list[int]()

    def timed(arguments: Arguments) -> object:
        at_ns.append(time.monotonic_ns())
        return react(arguments)

    end.monitor.reacts[command] = timed
    return at_ns
