"""Changes to a host with a way back: journalled on it first, undone in reverse, then compared."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from harness.remote import Host


@contextmanager
def changed_back(host: Host) -> Iterator[Host]:
    """Undo, on the way out, every journalled change made to *host* in the body, last one first.

    Raises RestoreError, naming each change that could not be undone; it stays in the journal.
    """
    first = 1 + max((entry["n"] for entry in host.pending()), default=0)
    try:
        yield host
    finally:
        host.undo(down_to=first)


def set_attribute(host: Host, path: str, text: str) -> None:
    """Write a sysfs attribute, with what it reads now as the way back."""
    host.change(
        f"{path} = {text}",
        do={"kind": "write", "path": path, "text": text},
        undo={"kind": "write", "path": path, "text": host.read_text(path).strip()},
    )


def changed_again(host: Host, what: str, *, do: dict[str, Any], undo: dict[str, Any]) -> None:
    """Carry out *do*, which may be one of several changes of the same thing.

    Only the first of them is journalled: *undo* is left out where the journal leads back to an
    earlier state already, as a write to the same file does, or the same command.
    """
    if not any(_leads_as_far(entry["undo"], undo) for entry in host.pending()):
        host.change(what, do=do, undo=undo)
    elif do["kind"] == "write":
        host.write_text(do["path"], do["text"])
    else:
        host.run(*do["argv"], changes=True)


def _leads_as_far(earlier: dict[str, Any], undo: dict[str, Any]) -> bool:
    target = "path" if undo["kind"] == "write" else "argv"
    return earlier["kind"] == undo["kind"] and bool(earlier[target] == undo[target])
