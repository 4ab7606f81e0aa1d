"""A scheme refuses a guest that it cannot move, before anything is done."""

from __future__ import annotations

from dataclasses import replace

import pytest
from two_ends import SPEC, End
from two_ends import ends as ends

from harness.errors import UsageError
from harness.guest.spec import GuestSpec
from harness.host.vf import Vf
from harness.migration.plan import Plan, Quiesce, When
from harness.migration.scheme import Scheme
from harness.migration.schemes.failover import Failover
from harness.migration.schemes.inplace import InPlace
from harness.migration.schemes.plain import Plain
from harness.migration.schemes.vfio import VfioMigration

STANDBY, BARE = SPEC, replace(SPEC, standby=False)
STOPPED_TOO_LATE = Plan(Quiesce.UNBIND, When.AFTER_STOP)


@pytest.mark.parametrize(
    ("scheme", "spec", "has_vf", "words"),
    [
        (Failover(), BARE, True, "its VF has no standby"),
        (Failover(), STANDBY, False, "there is nothing to unplug"),
        (VfioMigration(), STANDBY, True, "the primary of a failover pair"),
        (VfioMigration(), BARE, False, "there is none to keep"),
        (InPlace(Plan()), STANDBY, True, "the primary of a failover pair"),
        (InPlace(Plan()), BARE, True, "its host lends VFs of ports"),
        (InPlace(Plan()), BARE, False, "the guest's VF is no twin"),
        (InPlace(STOPPED_TOO_LATE), BARE, True, "its processors are stopped then"),
        (Plain(), STANDBY, True, "alder lends it VF 0000:17:10.0"),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, Scheme) else None,
)
def test_a_guest_that_cannot_be_moved_is_refused(
    ends: tuple[End, End], scheme: Scheme, spec: GuestSpec, has_vf: bool, words: str
) -> None:
    """What QEMU would do instead is another migration, under the name of this one."""
    source, destination = _vfs(ends, has_vf=has_vf)
    with pytest.raises(UsageError, match=words) as refused:
        scheme.check(spec, source, destination)
    assert refused.value.fix


@pytest.mark.parametrize(
    ("scheme", "has_vf"), [(Failover(), True), (VfioMigration(), True), (Plain(), False)]
)
def test_a_guest_that_can_be_moved_is_not_refused(
    ends: tuple[End, End], scheme: Scheme, has_vf: bool
) -> None:
    """A check that refuses everything would pass the test above."""
    spec = BARE if isinstance(scheme, VfioMigration) else STANDBY
    scheme.check(spec, *_vfs(ends, has_vf=has_vf))


def _vfs(ends: tuple[End, End], *, has_vf: bool) -> tuple[Vf | None, Vf | None]:
    return (ends[0].vf, ends[1].vf) if has_vf else (None, None)
