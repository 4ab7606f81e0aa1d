"""A scheme is a way to migrate, which a test names; all schemes have this in common."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import ClassVar

from harness.analysis.scheme import Fate, Mark, SchemeRecord
from harness.errors import UsageError
from harness.guest.instance import Instance
from harness.guest.spec import GuestSpec
from harness.host.software_vf import Logged
from harness.host.vf import Vf
from harness.migration.comparison import Comparison
from harness.migration.handoff import HandOff
from harness.migration.move import Move
from harness.migration.outcome import Outcome
from harness.migration.witness import WitnessedComparison


@dataclass(frozen=True, slots=True)
class Patience:
    """How long the harness waits for what should come after a migration.

    attach_s  for the guest to take up its VF
    after_s   to see what lasts, also where QEMU refused
    served_s  for a flow that is cut off at the end: the longer, the fewer outages have an open end
    """

    attach_s: float = 60
    after_s: float = 5
    served_s: float = 20


@dataclass(frozen=True, kw_only=True)
class Scheme(ABC):
    """A way to migrate; one object can move any number of guests, one after the other.

    A scheme is one file in ``harness.migration.schemes``, and a line there for its marker.
    `name`, `vf`, `phases` and `must_show` are those of `SchemeRecord`.
    """

    patience: Patience | None = None
    """None: the scheme's `usual_patience`."""

    name: ClassVar[str]
    vf: ClassVar[Fate]
    phases: ClassVar[tuple[tuple[str, Mark], ...]]
    must_show: ClassVar[tuple[Mark, ...]] = ()

    @abstractmethod
    def check(self, spec: GuestSpec, vf: Vf | None, destination: Vf | None) -> None:
        """Raise UsageError for a guest that the scheme cannot move, before anything is done.

        *vf* is what the guest has now, *destination* what its next host lends.
        """

    @abstractmethod
    def migrate(self, move: Move) -> Outcome:
        """Make *move*; returns when both ends have come to an end, well or not."""

    def hand_off(self, source: Instance, destination: Vf | None) -> HandOff | None:
        """Return the hand-off of the guest's MAC filter; None if the scheme sets no filter."""
        del source, destination
        return None

    def comparison(self, source: Instance, log: Logged | None) -> Comparison:
        """Return how both memories are compared; *log* is that of the device of the source's VF."""
        del source
        return Comparison() if log is None else WitnessedComparison(log)

    @property
    def usual_patience(self) -> Patience:
        """How long the harness waits after the migration, unless a test says otherwise."""
        return Patience()

    @property
    def always_compares(self) -> bool:
        """Whether both memories are compared without being asked for."""
        return False

    def trigger(self, spec: GuestSpec) -> str | None:
        """Return what tells the guest to let its VF go, or how the VF is stopped; None without."""
        del spec
        return None

    def record(self, spec: GuestSpec) -> SchemeRecord:
        """Return what the analysis has to know of this scheme, for a guest as *spec* says."""
        return SchemeRecord(self.name, self.trigger(spec), self.vf, self.phases, self.must_show)


def cannot_move(scheme: Scheme, because: str, fix: str) -> UsageError:
    """Return the error of a scheme that cannot move a guest."""
    return UsageError(f"{type(scheme).__name__}() cannot move this guest", because=because, fix=fix)
