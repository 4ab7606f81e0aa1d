"""A run ends early and with an exit code of its own if the lab is at fault; a lab may be kept."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import pytest

from harness.errors import LabError, RemoteError, WaitError

if TYPE_CHECKING:
    from harness.remote import Host
    from harness.topology import Topology

EXIT_CODE = pytest.StashKey[int]()
"""The run ends with this exit code, if the lab was at fault."""

MACHINES: pytest.StashKey[tuple[Host, ...]] = pytest.StashKey()
"""The run has these machines, from when the lab is taken until the lab is given back."""

KEPT: pytest.StashKey[list[Host]] = pytest.StashKey()
"""The run keeps these machines as they are, once a test has failed and its lab is kept."""


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


def keep_lab(session: pytest.Session, say: Callable[[str], None]) -> None:
    """Have the machines of the lab kept as they are, and end the run after the test under way.

    A further test would change what somebody wants to look at.  A machine that cannot be kept is
    told; its agent puts that machine back.
    """
    stash = session.config.stash
    if KEPT in stash or MACHINES not in stash:
        return
    kept = stash[KEPT] = []
    for machine in stash[MACHINES]:
        try:
            machine.lease.linger()
            kept.append(machine)
        except RemoteError as error:
            say(f"not kept: {error.what}")
    if not session.shouldstop:
        session.shouldfail = "a test failed, and --keep-on-failure keeps its lab"


def how_to_look(topology: Topology, kept: Iterable[Host]) -> str:
    """Say how to log in to the machines that are kept, and how to put them back."""
    ways = [f"kept: {topology.connection(each.name).by_hand}  ({each.name})" for each in kept]
    back = f"put back with `vf-harness restore --lab {topology.file}`, or by the machines in time"
    return "\n  ".join([*ways, back])
