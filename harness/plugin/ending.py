"""A run ends with the exit code of the lab that was at fault, and may leave the lab as it is."""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING

import pytest

from harness.errors import LabError, RemoteError
from harness.plugin.hooks import EXIT_CODE

if TYPE_CHECKING:
    from harness.run.lab import Lab


@contextmanager
def at_fault(config: pytest.Config, otherwise: type[LabError] | None) -> Iterator[None]:
    """Let a lab that cannot be used, or not be put back, end the run with its own exit code.

    A machine that does not answer is a fault of *otherwise*, by what was being done with it; of
    None where it may be the guest, which is what is tested.
    """
    try:
        yield
    except (LabError, RemoteError) as error:
        kind = type(error) if isinstance(error, LabError) else otherwise
        if kind is None:
            raise
        config.stash[EXIT_CODE] = kind.exit_code
        pytest.exit(f"\n{error}")  # without a code: with one of ours, pytest tells no summary


def keep_lab(lab: Lab, stack: ExitStack, say: Callable[[str], None]) -> None:
    """Leave everything as it is until the leases end, and say how to look at it."""
    never_undo(stack.pop_all())
    for machine in (*lab.hosts.values(), lab.peer):
        machine.lease.linger()
        say(f"kept: {lab.topology.connection(machine.name).by_hand}  ({machine.name})")
    say("put back with `vf-harness restore --lab LAB`, or by the machines when the lease ends")


def never_undo(stack: ExitStack) -> None:
    """Keep what *stack* would undo.

    The interpreter closes the generators in a stack that is forgotten, at the latest when it ends.
    So *stack* gets a reference that nobody gives back.
    """
    ctypes.pythonapi.Py_IncRef(ctypes.py_object(stack))
