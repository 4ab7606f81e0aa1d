"""One holder per host, with a deadline the host keeps by itself, and fenced."""

from __future__ import annotations

import contextlib
import itertools
import os
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from machines import alive, local_host

from harness.errors import LabBusy, RemoteError
from harness.host.changes import changed_back
from harness.remote import Host
from harness.waiting import wait_for


@pytest.fixture
def first(tmp_path: Path) -> Iterator[Host]:
    with local_host(tmp_path) as host:
        yield host


@pytest.fixture
def second(tmp_path: Path) -> Iterator[Host]:
    """Another controller's way to the same host."""
    with local_host(tmp_path) as host:
        yield host


def _change(host: Host, path: Path, value: str) -> int:
    do, undo = ({"kind": "write", "path": str(path), "text": text} for text in (value, "was"))
    return host.change(f"{path.name} is {value}", do=do, undo=undo)


def test_second_holder_is_told_who_has_it(first: Host, second: Host) -> None:
    """Users of labgrid wait without knowing for whom; `LabBusy` is what exit code 10 stands on."""
    first.lease.take("nightly run 7, by ci@buildhost", 60)
    with pytest.raises(LabBusy) as busy:
        second.lease.take("me", 60)
    assert "lent to nightly run 7, by ci@buildhost since 20" in busy.value.what
    assert "for at most 60 s more" in busy.value.what
    with pytest.raises(LabBusy):
        first.lease.take("a second time", 60)
    first.lease.give_back()
    assert second.lease.take("me", 60) == 2, "the number grows"


def test_lease_of_a_killed_agent_is_free(first: Host, second: Host) -> None:
    """CSIT's `mkdir` lock outlives its job; the kernel lets go of ours with the process."""
    first.lease.take("crashed", 600)
    os.kill(first.facts.pid, signal.SIGKILL)

    def taken() -> int:
        with contextlib.suppress(LabBusy):  # until the last of its threads is gone
            return second.lease.take("next", 60)
        return 0

    assert wait_for("the lease is free", taken, within=5) == 2


def test_who_has_not_the_lease_changes_nothing(first: Host, second: Host, tmp_path: Path) -> None:
    """Neither without a number nor with one that was guessed, or is another agent's."""
    first.lease.take("us", 60)
    attribute = tmp_path / "attribute"
    log = str(tmp_path / "log")
    undo = {"kind": "remove", "path": "/x"}
    changes: tuple[Callable[[], object], ...] = (
        lambda: second.write_text(str(attribute), "theirs"),
        lambda: second.run("touch", str(attribute), changes=True),
        lambda: second.spawn(["touch", str(attribute)], log=log),
        lambda: _change(second, attribute, "theirs"),
        lambda: second.unlink(str(tmp_path / "state/lease.lock")),
        lambda: second.change("x", do=undo, undo=undo),
        second.undo,
    )
    for second.lease.number, change in itertools.product((0, 1, 99), changes):
        with pytest.raises(RemoteError, match=r"does not hold|a lease is needed: it is lent to us"):
            change()
    assert not attribute.exists()
    assert second.run("true").status == 0, "looking is free"


def test_host_puts_itself_back_when_the_lease_ends(first: Host, tmp_path: Path) -> None:
    """A controller that hangs: its connection stays, so only the deadline can help.

    Its own changes come in again only with the number it had, which is fenced: a run that wakes
    up late must not write into the next one's host.
    """
    first.lease.take("hangs", 60)
    attribute = tmp_path / "attribute"
    _change(first, attribute, "changed")
    recorder = first.start("links", {"path": str(tmp_path / "links")})
    qemu = first.spawn(["sleep", "100"], log=str(tmp_path / "log"))
    assert attribute.read_text() == "changed"
    first.lease.renew(0.2)
    wait_for("put back", lambda: attribute.read_text() == "was" and not alive(qemu.pid), within=5)
    with pytest.raises(RemoteError, match="lease 1 does not hold"):
        first.write_text(str(attribute), "late")
    with pytest.raises(RemoteError, match="there is no recorder"):
        recorder.stop()
    assert attribute.read_text() == "was"
    wait_for("nobody has it", lambda: not first.lease.show()["held"], within=5)
    assert "the lease expired" in (tmp_path / "state/agent.log").read_text()


@pytest.mark.parametrize("number", [0, 7])
def test_holder_itself_must_name_its_number(number: int, first: Host, tmp_path: Path) -> None:
    """Through one agent come also those who looked in earlier, or hold another host's number."""
    first.lease.take("us", 60)
    first.lease.number = number
    with pytest.raises(RemoteError, match="the host's is now 1"):
        first.write_text(str(tmp_path / "attribute"), "x")
    assert not (tmp_path / "attribute").exists()


def test_nothing_is_changed_while_the_host_is_put_back(first: Host, tmp_path: Path) -> None:
    """Between the deadline and the end of a slow undo the number is still the newest one."""
    first.lease.take("late", 60)
    slow = {"kind": "run", "argv": ["sleep", "1"]}
    first.change("slow to undo", do={"kind": "run", "argv": ["true"]}, undo=slow)
    first.lease.renew(0.1)
    wait_for("the deadline", lambda: first.lease.show()["left_s"] == 0, within=5)
    with pytest.raises(RemoteError, match="lease 1 does not hold: its deadline has passed"):
        first.write_text(str(tmp_path / "attribute"), "late")
    assert first.lease.show()["held"], "it is no longer being put back: make the undo slower"


def test_expiry_ends_the_change_that_is_under_way(first: Host, tmp_path: Path) -> None:
    """It would go on changing the host while, or after, the host is put back."""
    first.lease.take("slow", 1)
    began = time.monotonic()
    ran = first.run("sh", "-c", f"sleep 20; touch {tmp_path}/late", changes=True, check=False)
    assert ran.status == -signal.SIGKILL
    assert time.monotonic() - began < 10


def test_renewing_moves_the_deadline(first: Host, second: Host) -> None:
    """Later and sooner: the thread that waits for it must look again each time."""
    first.lease.take("works", 1)
    first.lease.renew(60)
    first.run("sleep", "1.2")
    with pytest.raises(LabBusy):
        second.lease.take("waits", 60)
    first.lease.renew(0.2)
    wait_for("it ends", lambda: not second.lease.show()["held"], within=5)
    with pytest.raises(RemoteError, match="does not hold"):
        first.lease.renew(60)


def test_lease_is_not_given_back_with_changes_on_the_host(first: Host, tmp_path: Path) -> None:
    """Whoever comes next would find a host that nobody puts back."""
    first.lease.take("forgetful", 60)
    number = _change(first, tmp_path / "attribute", "changed")
    with pytest.raises(RemoteError, match="1 changes are not undone: attribute is changed"):
        first.lease.give_back()
    first.undo(number)
    first.lease.give_back()
    assert (tmp_path / "attribute").read_text() == "was"


def test_lingering_keeps_the_host_as_it_is_until_the_deadline(second: Host, tmp_path: Path) -> None:
    """`--keep-on-failure`: somebody wants to look, but the host must come back in the end."""
    attribute = tmp_path / "attribute"
    with local_host(tmp_path) as host:
        host.lease.take("looks at a failure", 60)
        _change(host, attribute, "changed")
        host.lease.linger()
        host.lease.renew(1)
        host._agent._stream.end()
        with pytest.raises(LabBusy):
            second.lease.take("waits", 60)
        assert attribute.read_text() == "changed"
    wait_for("the host is put back", attribute.read_text, within=30, until=lambda t: t == "was")
    host._agent.close()
    assert second.lease.take("next", 60) == 2


def test_a_host_that_lingers_is_left_as_it_is(second: Host, tmp_path: Path) -> None:
    """The contexts of a run end with the run, and a generator's end cannot be prevented."""
    attribute = tmp_path / "attribute"
    host = local_host(tmp_path)
    host.lease.take("looks at a failure", 60)
    with changed_back(host):
        _change(host, attribute, "changed")
        host.lease.linger()
    host.close()
    assert attribute.read_text() == "changed"
    assert [entry["n"] for entry in second.pending()] == [1]
    assert second.lease.show()["held"]
    assert second.lease.evict() == "SIGTERM"
    assert attribute.read_text() == "was"
    host._agent.close()


def test_eviction_puts_the_host_back_first(first: Host, second: Host, tmp_path: Path) -> None:
    """`vf-harness restore` on a host that a lingering or hung run still holds."""
    first.lease.take("hangs", 600)
    _change(first, tmp_path / "attribute", "changed")
    assert second.lease.evict() == "SIGTERM"
    assert (tmp_path / "attribute").read_text() == "was"
    assert second.lease.take("restore", 60) == 2
    assert second.pending() == []


def test_eviction_of_a_stuck_agent_leaves_its_journal(
    first: Host, second: Host, tmp_path: Path
) -> None:
    """A stopped agent cannot put anything back; who evicts it must be able to."""
    first.lease.take("stopped", 600)
    _change(first, tmp_path / "attribute", "changed")
    os.kill(first.facts.pid, signal.SIGSTOP)
    assert second.lease.evict(seconds=0.3) == "SIGKILL"
    second.lease.take("restore", 60)
    second.undo()
    assert (tmp_path / "attribute").read_text() == "was"
