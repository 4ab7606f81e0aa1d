"""The way back, on the host's own disk, written and synced before each change.

``journal.jsonl`` only grows while it is in use::

    {"n": 1, "boot": "...", "what": "alder.p0: 2 VFs", "undo": {a step, see ``steps``}}
    {"n": 1, "settled": "undone"}

An entry without a line that settles it is *pending*.  A crash between any two system calls
leaves at worst an entry for a change that was not made, or one that is undone twice; so each
undo must do no harm when there is nothing to undo.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Callable

from harness.agent import files, steps
from harness.agent.errors import AgentError

Perform = Callable[[dict[str, Any]], None]


def boot_id() -> str:
    """Name this boot of this machine; another one after each reboot."""
    return Path("/proc/sys/kernel/random/boot_id").read_text().strip()


class Journal:
    """One host's journal, in the folder *state*; several agents may have it open."""

    def __init__(self, state: str) -> None:
        self._state = state
        self._path = Path(state, "journal.jsonl")

    def change(self, what: str, undo: dict[str, Any], do: dict[str, Any], perform: Perform) -> int:
        """Record *undo*, then carry out *do*; the entry's number.

        A write that the kernel refuses changed nothing, so its entry is withdrawn: undoing it
        could spoil what is not ours.  A command that fails may have done half, so its entry stays.
        """
        steps.check(do)
        number = self.record(what, undo)
        try:
            perform(do)
        except AgentError:
            if do["kind"] == "write":
                self._settle(number, "not done")
            raise
        return number

    def record(self, what: str, undo: dict[str, Any]) -> int:
        """Write one entry and sync it, file and folder; its number."""
        steps.check(undo)
        with self._held() as (file, lines):
            number = 1 + max((line["n"] for line in lines), default=0)
            self._append(file, {"n": number, "boot": boot_id(), "what": what, "undo": undo})
            if not lines:
                files.sync_folder(self._state)
                files.sync_folder(str(Path(self._state).parent))
        return number

    def undo(self, perform: Perform, down_to: int = 1, only: bool = False) -> list[dict[str, Any]]:
        """Undo what is pending, the last change first, down to entry *down_to*, or *only* that.

        Each entry is settled as soon as it is undone.  One that fails stays pending and the
        others go on.  Returns the failures: {"n", "what", "because"} of each.
        """
        failures = []
        for entry in reversed(self.pending()):
            if entry["n"] < down_to or (only and entry["n"] != down_to):
                continue
            if entry["boot"] != boot_id() and not steps.survives_reboot(entry["undo"]):
                self._settle(entry["n"], "the reboot undid it")
                continue
            try:
                perform(entry["undo"])
            except AgentError as error:
                failures.append({"n": entry["n"], "what": entry["what"], "because": str(error)})
            else:
                self._settle(entry["n"], "undone")
        return failures

    def pending(self) -> list[dict[str, Any]]:
        """List the entries that are not settled, {"n", "boot", "what", "undo"}, oldest first."""
        try:
            lines = _parse(self._path.read_bytes(), self._path)
        except FileNotFoundError:
            return []
        return _unsettled(lines)

    def begin(self) -> None:
        """Start afresh if nothing is pending; what was there becomes ``journal.previous.jsonl``."""
        with self._held() as (file, lines):
            if lines and not _unsettled(lines):
                Path(self._state, "journal.previous.jsonl").write_bytes(self._path.read_bytes())
                os.ftruncate(file, 0)
                os.fsync(file)

    def _settle(self, number: int, how: str) -> None:
        with self._held() as (file, _):
            self._append(file, {"n": number, "settled": how})

    @contextlib.contextmanager
    def _held(self) -> Iterator[tuple[int, list[dict[str, Any]]]]:
        """Open the journal for us alone: (file, its lines), without a line torn by a crash."""
        files.mkdir(self._state)
        try:
            file = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
        except OSError as error:
            raise files.refused(f"opening {self._path}", error) from error
        try:
            fcntl.flock(file, fcntl.LOCK_EX)
            data = self._path.read_bytes()
            whole = data.rfind(b"\n") + 1
            if whole < len(data):
                os.ftruncate(file, whole)
            yield file, _parse(data[:whole], self._path)
        finally:
            os.close(file)

    @staticmethod
    def _append(file: int, line: dict[str, Any]) -> None:
        data = json.dumps(line).encode() + b"\n"
        try:
            written = os.write(file, data)
            os.fsync(file)
        except OSError as error:
            raise files.refused("writing the journal", error) from error
        if written != len(data):
            raise AgentError(
                "the journal could not be written whole",
                because="the disk is full, so nothing was changed",
                fix="free space on the host's disk",
            )


def _parse(data: bytes, path: Path) -> list[dict[str, Any]]:
    whole = data[: data.rfind(b"\n") + 1]  # the rest is torn: its change was never made
    try:
        return [json.loads(line) for line in whole.splitlines()]
    except ValueError as error:
        raise AgentError(
            f"the journal {path} cannot be read: {error}",
            because="what was changed on this host is not known, so nothing more is",
            fix="read it, put the host back by hand or reboot it, then remove the file",
        ) from error


def _unsettled(lines: list[dict[str, Any]]) -> list[dict[str, Any]]:
    settled = {line["n"] for line in lines if "settled" in line}
    return [line for line in lines if "undo" in line and line["n"] not in settled]
