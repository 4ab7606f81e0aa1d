"""Changes to a host with a way back: journalled on it first, undone in reverse, then compared."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

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
