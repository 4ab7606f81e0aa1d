"""What a migration is told when something does not come: a note, and the measurement goes on."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, cast

import pytest
from qmp_server import Monitor, RefusedError
from wire import laid

from harness.analysis.measured import REFUSED, Direction
from harness.analysis.packets import SENT
from harness.errors import GuestError, RemoteError, WaitError
from harness.guest import qmp
from harness.guest.instance import Instance
from harness.guest.qmp import Qmp
from harness.migration import aftermath
from harness.migration.experiment import Experiment, Watch
from harness.migration.move import Move
from harness.migration.outcome import GONE, SILENT, Note, Outcome, state_of
from harness.migration.raw import Raw
from harness.migration.scheme import Patience
from harness.traffic.flow import Flow
from harness.traffic.running import start
from harness.waiting import let_pass

if TYPE_CHECKING:
    from harness.guest.machine import GuestMachine
    from harness.guest.spec import Place
    from harness.host.vf import Vf
    from harness.migration.comparison import Comparison
    from harness.migration.experiment import Ends
    from harness.migration.scheme import Scheme
    from harness.remote import Host

COMPLETED = Outcome(
    asked_ns=1,
    status="completed",
    reason=None,
    figures={},
    source_state="postmigrate",
    destination_state="running",
)


def echo(direction: Direction) -> Flow:
    return Flow(direction, direction, 64, 200, number=7)


def experiment(
    ends: object, instance: Instance, comparison: object = None, scheme: object = None
) -> Experiment:
    """Make an experiment of what the test has of one."""
    guest = cast("GuestMachine", None)
    move = Move(instance, instance, ("", 0), guest, None, cast("Comparison", comparison))
    return Experiment(cast("Scheme", scheme), move, cast("Ends", ends), Watch(1, {}), print)


class Untaken:
    """A VF whose driver never comes: a guest that hangs, or that has no driver for it."""

    def wait_for_bme(self, *, seconds: float, fix: str) -> None:
        raise WaitError(f"waited {seconds:g} s for VF", because="BME is still clear", fix=fix)


class Silent:
    """A guest that answers nobody where it has moved to."""

    lost = ""
    instance: Instance

    def follow(self, _successor: Instance) -> None:
        self.lost = "guest: cannot be reached; it is silent"
        raise RemoteError("guest: cannot be reached", because="it is silent", fix="look at it")


@pytest.fixture
def qemu() -> Iterator[Monitor]:
    """QEMU at the destination, with a processor that waits."""
    with closing(Monitor("birch")) as qemu:
        qemu.reacts["human-monitor-command"] = lambda _: "RAX=0\nRIP=ffffffff81e0b2db HLT=1\n"
        yield qemu


@pytest.fixture
def successor(qemu: Monitor) -> Iterator[Instance]:
    """An instance there, with a VF that is not taken up."""
    texts = {"/run/console.log": b"guest is up\nOops\n", "/run/qemu.log": b""}
    with closing(Qmp("birch", qemu.near)) as monitor:
        host = cast("Host", SimpleNamespace(name="birch", fetch=texts.__getitem__))
        vf, place = cast("Vf", Untaken()), SimpleNamespace(folder="/run")
        yield Instance(cast(Any, None), vf, cast("Place", place), host, 1, monitor)


def test_a_vf_that_is_not_taken_up_is_noted_with_where_the_guest_stands(
    successor: Instance,
) -> None:
    """Whether it hangs, and in what, cannot be found out once it has been ended."""
    (note,) = aftermath.taken_up(COMPLETED, successor, 5).notes
    assert note.name == "vf not taken up"
    assert "BME is still clear" in note.text
    assert note.text.endswith(
        "its console ends: guest is up | Oops; its processor stands at RIP=ffffffff81e0b2db HLT=1"
    )


def test_a_guest_that_hangs_is_no_error_if_its_users_are_cut_off_too(
    successor: Instance,
) -> None:
    """Then what the peer recorded is the whole truth, and is measured."""
    silent = cast("GuestMachine", Silent())
    note = Note(1, "flow round-trip is cut off", "waited 20 s")
    aftermath.follow(silent, successor, [echo("round-trip")], replace(COMPLETED, notes=(note,)))
    assert silent.lost


def test_a_guest_that_ends_with_its_qemu_is_no_error(qemu: Monitor, successor: Instance) -> None:
    """It panicked, or QEMU did, after its users were served for a while: that is a measurement."""
    silent = Silent()
    qemu.end()
    aftermath.follow(cast("GuestMachine", silent), successor, [echo("round-trip")], COMPLETED)
    silent.instance = successor
    lost = aftermath.lost_noted(COMPLETED, cast("GuestMachine", silent), successor)
    assert lost.destination_state == GONE
    (note,) = lost.notes
    assert note.text == (
        "guest: cannot be reached; it is silent; its console ends: guest is up | Oops; "
        "its QEMU has ended: see qemu.log"
    )


def test_the_console_is_told_whatever_qemu_refuses(qemu: Monitor, successor: Instance) -> None:
    """It is what tells most, and QEMU's monitor may hang with the guest."""

    def refuse(_: object) -> object:
        raise RefusedError("no registers")

    qemu.reacts["human-monitor-command"] = refuse
    assert successor.last_words == (
        "its console ends: guest is up | Oops; where its processor stands is not known: "
        "birch: QEMU refused human-monitor-command"
    )


def test_a_qemu_that_does_not_answer_has_a_state(
    qemu: Monitor, successor: Instance, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What was measured by then is worth more than an error about it."""
    monkeypatch.setattr(qmp, "ANSWER_SECONDS", 0.2)
    qemu.ignores.add("query-status")
    assert state_of(successor) == SILENT


@pytest.mark.parametrize(
    ("flows", "cut_off"),
    [
        (["round-trip"], []),
        (["round-trip", "from-guest"], ["round-trip", "from-guest"]),
        ([], []),
    ],
    ids=["its users are served", "it has a record", "nobody can tell"],
)
def test_a_guest_that_cannot_be_logged_in_to_is_an_error_otherwise(
    successor: Instance, flows: list[Direction], cut_off: list[Direction]
) -> None:
    """A verdict on what only its SSH server or its lost record could tell would be made up."""
    silent = cast("GuestMachine", Silent())
    notes = tuple(Note(1, f"flow {name} is cut off", "waited 20 s") for name in cut_off)
    with pytest.raises(GuestError, match="birch: the guest cannot be logged in to") as failed:
        aftermath.follow(
            silent, successor, [echo(each) for each in flows], replace(COMPLETED, notes=notes)
        )
    assert failed.value.because.startswith("guest: cannot be reached; it is silent; ")
    assert "HLT=1" in failed.value.because


def test_the_memory_of_a_guest_that_is_lost_is_compared(successor: Instance) -> None:
    """The pages that differ may tell why the guest is lost; the guest itself cannot be asked."""

    def lost(*_: object, **__: object) -> None:
        raise GuestError("guest: lost", because="its users are served", fix="see its console")

    compared = Note(1, "memory compared", "0 of 1000 pages differ", {"pages": 1000})
    comparison = SimpleNamespace(compare=lambda: (compared,))
    ends = SimpleNamespace(
        peer_end=SimpleNamespace(address="198.18.0.1"),
        guest=SimpleNamespace(host=SimpleNamespace(run=lost)),
    )
    raw = Raw()
    with pytest.raises(GuestError, match="guest: lost"):
        experiment(ends, successor, comparison).run((), raw)
    assert raw.notes == (compared,)
    assert "Oops" in raw.console


@pytest.mark.skipif(
    os.geteuid() != 0 or shutil.which("ip") is None,
    reason="needs root and iproute2: it makes network namespaces",
)
def test_a_flow_that_stays_cut_off_is_noted_and_one_that_is_served_is_not(
    tmp_path: Path,
) -> None:
    """An outage with an open end must not pass for a flow that ended by itself."""
    with laid(tmp_path) as wire, start(echo("round-trip"), wire.peer, wire.guest) as running:
        assert aftermath.served(COMPLETED, [running], 1).notes == ()
        wire.near.ip("link", "set", "near", "down")
        let_pass(0.5)  # what arrived before that is written by then
        (note,) = aftermath.served(COMPLETED, [running], 1).notes
    assert note.name == "flow round-trip is cut off"


@pytest.mark.skipif(
    os.geteuid() != 0 or shutil.which("ip") is None,
    reason="needs root and iproute2: it makes network namespaces",
)
@pytest.mark.parametrize(("status", "frames"), [(REFUSED, 300), ("failed", 180)])
def test_flows_run_on_after_a_refusal(tmp_path: Path, status: str, frames: int) -> None:
    """Ended at once, they could not show that the guest came to no harm by it."""
    outcome = replace(COMPLETED, status=status, source_state="running")
    way = SimpleNamespace(migrate=lambda *_: outcome, patience=Patience(after_s=0.6))
    with laid(tmp_path) as wire:
        ends = SimpleNamespace(peer_end=wire.peer, guest_end=wire.guest)
        this = experiment(ends, cast("Instance", None), scheme=way)
        same, (records,) = this._under_traffic([echo("round-trip")])
    assert same == outcome
    sent = len(records.sent) // SENT.itemsize
    assert frames <= sent < frames + 100
