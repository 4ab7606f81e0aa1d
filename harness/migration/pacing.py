"""How fast QEMU copies, and when it waits for us: so that a step falls where a plan has it.

Ref: QEMU, docs/devel/migration/main.rst, ``pause-before-switchover``; qapi/migration.json,
``max-bandwidth`` and ``downtime-limit``.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from harness.guest.instance import Instance
from harness.guest.machine import GuestMachine
from harness.migration.outcome import state_of
from harness.waiting import Deadline, wait_for

DOWNTIME_MS = 300
"""QEMU's own default: below this the rest is copied while the guest stands still."""

HELD_BYTES_PER_S = 1 << 20
"""How fast memory is copied while the guest takes a step: too slowly to come to an end."""

SLOW_BYTES_PER_S = 16 << 20
"""How fast memory is copied while a whole pass is waited for: slower than a busy guest writes."""

_BUSY = (
    'set -- "$1" /usr/bin/python3; touch "$1"; '
    '(while [ -e "$1" ]; do cat "$2" "$2" "$2" > "$1.data"; sleep 0.05; done; '
    'rm "$1.data") >&- 2>&- <&- &'
)
"""The guest writes some 20 MB again and again, and no zeroes, which QEMU copies at no cost.

To copy them takes more than a second at SLOW_BYTES_PER_S.  QEMU stops a guest that writes nothing
meanwhile, as on a busy machine a guest may that waits for a processor.
"""


def pause_before_switchover(source: Instance) -> None:
    """Have QEMU stop the guest, and then wait until it is told to go on."""
    capability = {"capability": "pause-before-switchover", "state": True}
    source.qmp.execute("migrate-set-capabilities", {"capabilities": [capability]})


def make_passes_without_end(source: Instance) -> None:
    """One after the other until nothing at all is left to copy."""
    _set_parameter(source, "downtime-limit", 0)


def make_last_pass_soon(source: Instance) -> None:
    """Stop the guest as soon as the rest takes DOWNTIME_MS or less."""
    _set_parameter(source, "downtime-limit", DOWNTIME_MS)


def wait_for_half(source: Instance, deadline: Deadline) -> None:
    """Return when half of the memory is copied: what is written there then is not, by itself."""
    wait_for(
        f"{source.host.name}: half of the guest's memory to be copied",
        lambda: source.qmp.execute("query-migrate").get("ram", {}),
        within=deadline,
        until=lambda ram: (
            ram and (ram["dirty-sync-count"] > 1 or 2 * ram["remaining"] < ram["total"])
        ),
        every_s=0.1,
        fix="see the source's QMP log among the artifacts",
    )


@contextmanager
def held(source: Instance) -> Iterator[None]:
    """Do not let the migration, if one is under way, stop the guest while it takes a step."""
    with _copying_at(source, HELD_BYTES_PER_S):
        yield


@contextmanager
def slowed(source: Instance) -> Iterator[None]:
    """Copy so slowly that a guest which is `busy` writes more than is copied in each pass."""
    with _copying_at(source, SLOW_BYTES_PER_S):
        yield


@contextmanager
def busy(source: Instance, guest: GuestMachine) -> Iterator[None]:
    """Let the guest write to its memory all the time.

    A guest that is quiet, as one without its VF is, leaves nothing to copy, and QEMU would stop it.
    A guest that QEMU has stopped all the same goes on writing wherever it runs again.
    """
    flag = guest.scratch("busy")
    guest.host.run("sh", "-c", _BUSY, "sh", flag)
    try:
        yield
    finally:
        # A guest that QEMU has stopped does not answer, and that error would hide the reason.
        if state_of(source) == "running":
            guest.host.unlink(flag)


@contextmanager
def _copying_at(source: Instance, bytes_per_s: int) -> Iterator[None]:
    usual = source.qmp.execute("query-migrate-parameters")["max-bandwidth"]
    _set_parameter(source, "max-bandwidth", bytes_per_s)
    try:
        yield
    finally:
        _set_parameter(source, "max-bandwidth", usual)


def _set_parameter(source: Instance, name: str, value: int) -> None:
    source.qmp.execute("migrate-set-parameters", {name: value})
