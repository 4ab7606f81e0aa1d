"""One change to a host, as data: what a journal can hold and a later agent can carry out.

::

    {"kind": "write", "path": P, "text": T}            one write(2), as sysfs wants it
    {"kind": "run", "argv": [..], "seconds": 30}       fails unless its status is 0
    {"kind": "remove", "path": P}                      a file, a link or an empty folder
    {"kind": "end", "pid": N, "started": N}            a process, known by its start time

Each may say ``"unless": {"path": P, "text": T}``: not carried out where P already reads T (a
link: points to something named T; T null: P is not there).  It makes a step that the kernel
refuses the second time, such as a bind, safe to repeat.
"""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Any

from harness.agent import files
from harness.agent.commands import Commands, last_words
from harness.agent.errors import AgentError
from harness.agent.processes import Spawned

_PARTS: dict[str, dict[str, type]] = {
    "write": {"path": str, "text": str},
    "run": {"argv": list},
    "remove": {"path": str},
    "end": {"pid": int, "started": int},
}
_GONE_AFTER_REBOOT = ("/sys/", "/proc/", "/dev/", "/run/")


def check(step: dict[str, Any]) -> None:
    """Raise AgentError unless *step* is one of the kinds and has its parts."""
    parts = _PARTS.get(step.get("kind", ""))
    if parts is None:
        wrong = ["kind"]
    else:
        wrong = [name for name, kind in parts.items() if not isinstance(step.get(name), kind)]
    if "unless" in step and set(step["unless"]) != {"path", "text"}:
        wrong.append("unless")
    if wrong:
        raise AgentError(
            f"{step!r} is not a step: {', '.join(wrong)} missing or of a wrong type",
            because="nothing was recorded and nothing was done",
            fix=f"kinds and their parts are {_describe_kinds()}",
        )


def survives_reboot(step: dict[str, Any]) -> bool:
    """Tell whether what *step* undoes is still there after a reboot.

    True of files on a disk, and of what says ``"durable": true``.  A reboot itself puts back
    sysfs, links and processes; writing to them then would spoil what the host set up anew.
    """
    if step["kind"] in ("write", "remove"):
        return not step["path"].startswith(_GONE_AFTER_REBOOT)
    return bool(step.get("durable"))


class Steps:
    """Carries out steps."""

    def __init__(self, commands: Commands, spawned: Spawned) -> None:
        self._commands = commands
        self._spawned = spawned

    def perform(self, step: dict[str, Any]) -> None:
        """Carry out one checked step.  Raises AgentError if it could not be."""
        if "unless" in step and _is_so(step["unless"]):
            return
        kind = step["kind"]
        if kind == "write":
            files.write(step["path"], step["text"])
        elif kind == "run":
            self._run(step["argv"], step.get("seconds", 30.0))
        elif kind == "remove":
            files.remove(step["path"])
        elif kind == "end":
            self._spawned.end(step["pid"], step["started"])

    def _run(self, argv: list[str], seconds: float) -> None:
        result = self._commands.run(argv, seconds=seconds)
        if result["status"] != 0:
            raise AgentError(
                f"`{shlex.join(argv)}` ended with status {result['status']}",
                because=last_words(result["stderr"].encode()),
                fix="run it by hand on the host to see more",
            )


def _is_so(state: dict[str, Any]) -> bool:
    path = Path(state["path"])
    if path.is_symlink():
        return bool(path.readlink().name == state["text"])
    if not path.exists():
        return state["text"] is None
    return state["text"] is not None and files.read(str(path)).strip() == state["text"].strip()


def _describe_kinds() -> str:
    return "; ".join(f"{kind}: {', '.join(parts)}" for kind, parts in _PARTS.items())
