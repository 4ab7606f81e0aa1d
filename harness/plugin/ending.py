"""A run ends early and with an exit code of its own if the lab is at fault; a lab may be kept."""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING

import pytest

from harness.errors import LabError, RemoteError, WaitError

if TYPE_CHECKING:
    from harness.remote import Host
    from harness.run.lab import Lab

EXIT_CODE = pytest.StashKey[int]()
"""The run ends with this exit code, if the lab was at fault."""

MACHINES: pytest.StashKey[tuple[Host, ...]] = pytest.StashKey()
"""The run has these machines, from when the lab is taken until the lab is given back."""


@contextmanager
def at_fault(config: pytest.Config, otherwise: type[LabError] | None) -> Iterator[None]:
    """Let a lab that cannot be used, or not be put back, end the run with its own exit code.

    The run ends with the exit code of *otherwise* if a machine does not answer, or a state does not
    come.  With None that error passes on, since the guest may be its cause, which is under test.
    """
    try:
        yield
    except (LabError, RemoteError, WaitError) as error:
        kind = type(error) if isinstance(error, LabError) else otherwise
        if kind is None:
            raise
        config.stash[EXIT_CODE] = kind.exit_code
        pytest.exit(f"\n{error}")  # without a code: with one of ours, pytest tells no summary


def end_if_gone(session: pytest.Session) -> None:
    """End the run after the test that is under way, if a machine of its lab has gone.

    Each further test would fail for that one reason.
    """
    machines = session.config.stash.get(MACHINES, ())
    if gone := [machine.name for machine in machines if machine.is_gone]:
        session.config.stash[EXIT_CODE] = LabError.exit_code
        session.shouldstop = f"{' and '.join(gone)} went away, and each further test would fail"


def keep_lab(lab: Lab, stack: ExitStack, say: Callable[[str], None]) -> None:
    """Leave everything as it is until the leases end, and say how to look at it."""
    never_undo(stack.pop_all())
    for machine in lab.machines:
        machine.lease.linger()
        say(f"kept: {lab.topology.connection(machine.name).by_hand}  ({machine.name})")
    say("put back with `vf-harness restore --lab LAB`, or by the machines when the lease ends")


def never_undo(stack: ExitStack) -> None:
    """Keep what *stack* would undo.

    The interpreter closes the generators in a stack that is forgotten, at the latest when it ends.
    So *stack* gets a reference that nobody gives back.
    """
    ctypes.pythonapi.Py_IncRef(ctypes.py_object(stack))
