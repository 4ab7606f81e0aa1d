"""The right to change this host: one holder at a time, with a deadline, and fenced.

``lease.lock``   held by flock for as long as the holder's agent has the lease; the kernel lets
                 go of it when that agent dies, however it dies
``lease.json``   who, since when, until when, and the number, which only ever grows

A holder that lost its lease can change nothing more: each change names the number it was given.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import threading
import time
from collections.abc import Iterator
from datetime import datetime, timezone
from pathlib import Path
from typing import Any, Callable

from harness.agent import files
from harness.agent.errors import AgentError
from harness.agent.journal import boot_id
from harness.agent.processes import start_time


class Lease:
    """Our side of the lease of the host whose notes are in the folder *state*."""

    def __init__(self, state: str, when_expired: Callable[[], object]) -> None:
        """*when_expired* is called from a thread of ours; it puts the host back and `release`s."""
        self._state = state
        self._when_expired = when_expired
        self._changed = threading.Condition()
        self._lock_file = -1
        self._note: dict[str, Any] = {}  # ours, as in lease.json; empty without a lease
        self._fenced = False
        self._admitted = 0
        self.lingering = False

    def take(self, holder: str, seconds: float) -> int:
        """Take the lease for *holder*, a text for people; its number.

        Raises AgentError, busy, while another agent has it, saying who and since when.
        """
        with self._changed:
            if self._note:
                raise _busy(self._note)
            files.mkdir(self._state)
            lock = os.open(
                Path(self._state, "lease.lock"), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600
            )
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                os.close(lock)
                raise _busy(self.show()) from None
            self._lock_file = lock
            self._fenced = self.lingering = False
            self._note = {
                "number": self.show().get("number", 0) + 1,
                "holder": holder,
                "since": datetime.now(timezone.utc).isoformat(timespec="seconds"),
                "deadline_ns": _deadline_ns(seconds),
                "boot": boot_id(),
                "pid": os.getpid(),
                "started": start_time(os.getpid()),
                "held": True,
            }
            self._save()
            number = int(self._note["number"])
        threading.Thread(target=self._expire, args=(number,), daemon=True).start()
        return number

    def renew(self, number: int, seconds: float) -> None:
        """Move the deadline to *seconds* from now.  Raises AgentError once it has passed."""
        with self._changed:
            self._check(number)
            self._note["deadline_ns"] = _deadline_ns(seconds)
            self._save()
            self._changed.notify_all()

    def linger(self, number: int) -> None:
        """Keep the host as it is until the deadline, even when the controller goes away."""
        with self._changed:
            self._check(number)
            self.lingering = True

    @contextlib.contextmanager
    def admit(self, number: int) -> Iterator[None]:
        """Let one change through; *number* is 0 from a caller that has no lease.

        Raises AgentError if someone else has the lease, or the caller lost it.
        """
        with self._changed:
            self._check(number)
            self._admitted += 1
        try:
            yield
        finally:
            with self._changed:
                self._admitted -= 1
                self._changed.notify_all()

    def fence(self, seconds: float) -> bool:
        """Admit nothing more and wait until what was admitted is over; whether we have the lease.

        What is not over after *seconds* is stuck in the kernel; it is not waited for.
        """
        with self._changed:
            self._fenced = True
            self._changed.wait_for(lambda: self._admitted == 0, seconds)
            return bool(self._note)

    def release(self) -> None:
        """Let go of the lease, if we have it."""
        with self._changed:
            if self._note:
                self._note["held"] = False
                self._save()
                self._note = {}
                os.close(self._lock_file)
                self._changed.notify_all()

    def wait(self) -> None:
        """Wait until we do not have the lease."""
        with self._changed:
            self._changed.wait_for(lambda: not self._note)

    def show(self) -> dict[str, Any]:
        """Read the newest lease: number, holder, since, left_s, pid, started, held; {} before any.

        It is not held if it is of an earlier boot.
        """
        try:
            note = json.loads(Path(self._state, "lease.json").read_text())
        except FileNotFoundError:
            return {}
        note["held"] = note["held"] and note["boot"] == boot_id()
        note["left_s"] = max(0.0, (note["deadline_ns"] - time.monotonic_ns()) / 1e9)
        return dict(note)

    def _check(self, number: int) -> None:
        ours = self._note.get("number", 0)
        if ours:
            passed = time.monotonic_ns() >= self._note["deadline_ns"]
            if number == ours and not (passed or self._fenced):
                return
            lost = "its deadline has passed" if number == ours else f"the host's is now {ours}"
        else:
            newest = self.show()
            if not number and not newest.get("held"):
                return
            lost = f"it is lent to {newest['holder']}" if newest.get("held") else "it has ended"
        raise AgentError(
            f"lease {number} does not hold: {lost}" if number else f"a lease is needed: {lost}",
            because="only who holds a host's lease may change it, so nothing was changed",
            fix="take the lease again and start anew: the host was put back meanwhile",
        )

    def _expire(self, number: int) -> None:
        with self._changed:
            while self._note.get("number") == number:
                left_ns = self._note["deadline_ns"] - time.monotonic_ns()
                if left_ns <= 0:
                    break
                self._changed.wait(left_ns / 1e9)
            else:
                return
        self._when_expired()

    def _save(self) -> None:
        new = Path(self._state, "lease.json.new")
        with open(new, "w", opener=_owner_only) as file:
            json.dump(self._note, file)
            file.flush()
            os.fsync(file.fileno())
        new.replace(Path(self._state, "lease.json"))
        files.sync_folder(self._state)


def _owner_only(path: str, flags: int) -> int:
    return os.open(path, flags, 0o600)


def _deadline_ns(seconds: float) -> int:
    return time.monotonic_ns() + int(seconds * 1e9)


def _busy(note: dict[str, Any]) -> AgentError:
    left_s = max(0.0, (note["deadline_ns"] - time.monotonic_ns()) / 1e9)
    until = f"for at most {left_s:.0f} s more" if left_s else "and is being put back just now"
    return AgentError(
        f"lent to {note['holder']} since {note['since']}, {until}",
        because="two runs on one host would spoil each other's results",
        fix="wait, or ask them; `vf-harness restore --lab LAB` ends their run and puts the host "
        "back",
        busy=True,
    )
