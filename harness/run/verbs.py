"""What a test does with a guest has these types; fixtures of the plugin give the verbs to tests."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

from harness.analysis.audit import Audited
from harness.analysis.expectation import PASS, Expectation
from harness.analysis.measured import Direction
from harness.analysis.verdict import Limits
from harness.audit.ways import Way
from harness.migration.move import Fault, Moment
from harness.migration.scheme import Scheme
from harness.run.moving import MovingGuest
from harness.run.record import Moved
from harness.traffic.flow import Flow


class MakeFlow(Protocol):
    """The fixture ``flow`` makes a flow of frames of one size."""

    def __call__(
        self, frame_bytes: int, direction: Direction = "round-trip", rate_pps: float = 0
    ) -> Flow:
        """Return a flow of frames with *frame_bytes* each, without their checksum.

        The lab's topology names the rate if *rate_pps* is 0.
        """


class Migrate(Protocol):
    """The fixture ``migrate`` moves a guest to the other host under flows, and judges that."""

    def __call__(
        self,
        guest: MovingGuest,
        *flows: Flow,
        by: Scheme,
        at: Mapping[Moment, Fault] | None = None,
        observe: bool = True,
        tries: int = 0,
        compare_memory: bool = False,
        expect: Expectation | None = PASS,
        limits: Limits | None = None,
    ) -> Moved:
        """Return the migration, judged and kept; every try is in the report.

        by       the scheme, such as `Failover()`; it refuses a guest that it cannot move
        at       faults that the test puts in, by the moment: ``{Moment.PRECOPY: master_unowned}``
        observe  whether configuration space and hand-off are watched
        tries    how often a migration that loses its guest is made before that is its result; the
                 topology says how often if *tries* is 0.  A migration without a result is measured
                 again where the topology says so (``measure_tries``)
        compare_memory  whether both memories are compared, which lengthens the stop
        expect   what the migration is to come to: the test fails at once if it comes to another
                 verdict, or to that verdict for other reasons.  None: the test cannot say, and
                 judges by itself
        limits   by these the migration is judged, and by the lab's own (`Lab.limits`) without them
        """


class StopVf(Protocol):
    """The fixture ``audit`` stops a guest's VF in one way, and looks at what the VF does then."""

    def __call__(self, guest: MovingGuest, way: Way) -> Audited:
        """Return what came of it, kept and reported; 9014-byte frames are sent meanwhile.

        The guest is replaced where the audit broke off or its VF did not come back.  Raises
        MeasurementError, with what was recorded kept, where it cannot be told what the VF did.
        """
