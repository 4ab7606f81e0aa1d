"""Tests get one guest at a time, and modules that ask for the same kind of guest share it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING, Any

import pytest

from harness.errors import RestoreError, UsageError
from harness.plugin.ending import at_fault
from harness.plugin.hooks import RECORD

if TYPE_CHECKING:
    from harness.run.lab import Lab
    from harness.run.moving import MovingGuest


class Guests:
    """The guests of a run on *lab*: all have one address, so no two of them can be there at once.

    To boot a guest takes longer than many a test, so a guest that is left over is used again.
    """

    def __init__(self, config: pytest.Config, lab: Lab) -> None:
        self._config = config
        self._lab = lab
        self._left: MovingGuest | None = None
        self._kind: tuple[Any, ...] = ()
        self._ending = ExitStack()
        self._used = False

    @contextmanager
    def shared(
        self, ports: Mapping[str, str], *, vfs: int = 1, **kind: Any
    ) -> Iterator[MovingGuest]:
        """A guest of that *kind* (``GuestSpec.of``), left over by the body before or booted anew.

        A guest that the body before has lost is replaced.  On either host so many VFs of *ports*
        are lent to it.  The body leaves it as it was, for the next.
        """
        wanted = (tuple(ports.items()), vfs, tuple(kind.items()))
        if self._left is None or wanted != self._kind:
            self._left, self._kind = self._boot(ports, vfs, kind), wanted
        else:
            with at_fault(self._config, None):
                self._left.find_with_vf()
        self._used = True
        try:
            yield self._left
        finally:
            self._used = False

    @contextmanager
    def own(self, ports: Mapping[str, str], *, vfs: int = 1, **kind: Any) -> Iterator[MovingGuest]:
        """A guest as `shared` gives it, but booted for this body alone, and ended with it."""
        guest = self._boot(ports, vfs, kind)
        self._used = True
        try:
            yield guest
        finally:
            self._used = False
            self.end()

    def end(self) -> None:
        """End the guest that is there, if any, and put its VFs back.

        Raises UsageError for a guest that a body still has.
        """
        if self._used:
            raise UsageError(
                f"lab {self._lab.topology.name!r}: a fixture still has a guest",
                because="a test asks for another guest, or for ports without one, and all guests "
                "have one address",
                fix="use one of the fixtures for guests in a module, or move the test to another",
            )
        self._left = None
        with at_fault(self._config, RestoreError):
            self._ending.pop_all().close()

    def _boot(self, ports: Mapping[str, str], vfs: int, kind: Mapping[str, Any]) -> MovingGuest:
        from harness.guest.spec import GuestSpec
        from harness.run.moving import moving_guest
        from harness.run.provenance import guest_provenance

        self.end()
        record = self._config.stash[RECORD]
        logs = record.folder / "guests"
        logs.mkdir(parents=True, exist_ok=True)
        with at_fault(self._config, None), ExitStack() as preparing:
            spec = GuestSpec.of(self._lab.topology.guest, **kind)
            guest = preparing.enter_context(
                moving_guest(self._lab, spec, logs, vfs=vfs, ports=ports)
            )
            record.note_guest(guest_provenance(guest.machine))
            self._ending = preparing.pop_all()
        return guest
