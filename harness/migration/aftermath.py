"""After a migration it is seen whether guest and VF are there, and whether users are served."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import replace

from harness.analysis.measured import NOT_TAKEN_UP
from harness.errors import GuestError, RemoteError, WaitError
from harness.guest.instance import Instance
from harness.guest.machine import GuestMachine
from harness.migration.outcome import GONE, Note, Outcome, state_of
from harness.traffic.flow import Flow
from harness.traffic.running import RunningFlow

NOT_REACHED = "guest not reached"
"""The name of a note: the guest ended on its way, or does not answer where it went."""


def taken_up(outcome: Outcome, successor: Instance, seconds: float) -> Outcome:
    """Wait until the guest drives its new VF; that the guest never does is a note, and no error."""
    if successor.vf is None:
        return outcome
    try:
        successor.vf.wait_for_bme(
            seconds=seconds,
            fix="see the guest's console: its driver must find the VF and its address",
        )
    except WaitError as late:
        seen = f"{late.what}; {late.because}; {successor.last_words}"
        note = Note(time.monotonic_ns(), NOT_TAKEN_UP, seen)
        return replace(outcome, notes=(*outcome.notes, note))
    return outcome


def follow(
    guest: GuestMachine, successor: Instance, flows: Sequence[Flow], outcome: Outcome
) -> None:
    """Reach the guest where it is now.

    A guest that hangs does not answer its users either, and a guest that ended with its QEMU never
    will: what the peer recorded shows both.  Raises GuestError if a guest that cannot be reached
    serves its users all the same, or if a record of *flows* is lost with the guest.
    """
    try:
        guest.follow(successor)
    except RemoteError:
        cut_off = {note.name for note in outcome.notes} >= {_cut_off(flow) for flow in flows}
        ended = state_of(successor) == GONE
        if flows and (cut_off or ended) and all(flow.at_peer for flow in flows):
            return
        raise GuestError(
            f"{successor.host.name}: the guest cannot be logged in to after its migration",
            because=f"{guest.lost}; {successor.last_words}",
            fix="see its console there; a flow that begins or ends in it has its record in it, and "
            "one that still returns is served by a guest that only its SSH server left",
        ) from None


def give_up(guest: GuestMachine, source: Instance, flows: Sequence[Flow]) -> None:
    """Note that the guest has ended where it was.  Raises GuestError if records went with it."""
    guest.lose(f"{source.host.name}: its QEMU has ended, and it never ran elsewhere")
    if not all(flow.at_peer for flow in flows):
        raise GuestError(
            f"{source.host.name}: the guest ended while it was migrated",
            because=source.last_words,
            fix="see its console there; a flow that begins or ends in it has its record in it",
        )


def lost_noted(outcome: Outcome, guest: GuestMachine, successor: Instance) -> Outcome:
    """Return *outcome* with a note that the guest is lost, if it is."""
    if not guest.lost:
        return outcome
    seen = f"{guest.lost}; {guest.instance.last_words}"
    note = Note(time.monotonic_ns(), NOT_REACHED, seen)
    state = state_of(successor)  # it may have ended since
    return replace(outcome, destination_state=state, notes=(*outcome.notes, note))


def _cut_off(flow: Flow) -> str:
    return f"flow {flow.name} is cut off"


def served(outcome: Outcome, running: Sequence[RunningFlow], seconds: float) -> Outcome:
    """Wait until the flows are served, so that none is stopped in the middle of an outage.

    A flow that is not served within *seconds* is noted: its last outage has an open end.
    """
    for each in running:
        if each.flow.direction == "to-guest":
            continue  # the guest would have to be asked, while it is measured
        try:
            each.wait_until_served(seconds)
        except WaitError as late:
            note = Note(time.monotonic_ns(), _cut_off(each.flow), late.what)
            outcome = replace(outcome, notes=(*outcome.notes, note))
    return outcome
