"""The quiesce audit: what each way to stop a VF does, by its register, its frames, its memory.

Nothing is taken from a driver's word.  ``pytest tests/lab/test_quiesce_audit.py`` makes the whole
table, on twins with ``--lab twin``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from harness.analysis.audit_records import NOT_BACK
from harness.audit.conduct import SILENT_S
from harness.audit.ways import Way
from harness.guest.spec import Trigger
from harness.run.moving import MovingGuest
from harness.run.verbs import StopVf

if TYPE_CHECKING:
    from harness.run.lab import Lab

pytestmark = [
    *(pytest.mark.bme, pytest.mark.dma, pytest.mark.jumbo),
    pytest.mark.needs("vf", "peer", "jumbo"),
]

CLEARS_BME = (Way.UNBIND, Way.REMOVED, Way.UNPLUG, Way.BME_CLEARED)
"""The others leave it set, or put it back: drivers of today stop a VF and do not clear BME.

Ref: Linux, the change "ixgbevf: use generic power management" of 2020, and igbvf's alike.
"""

RESETS = (Way.VFIO_RESET, Way.SYSFS_RESET, Way.GUEST_RESET)
"""After these a driver may be back at any time: ixgbevf looks at its VF by a timer."""

PAUSE_MS = SILENT_S * 1e3
"""An audit waits for so long a silence, or gives up: a VF that was stopped has had one."""

DAILY = (Way.DEVICE_SUSPEND, Way.UNBIND, Way.BME_CLEARED)
NEEDS = {Way.SYSFS_RESET: "sriov", Way.UNPLUG: "sriov"}
"""QEMU 11.1 aborts when a vfio-user device is unplugged: memory_region_del_subregion()."""


def case_of(way: Way) -> object:
    about = pytest.mark.about(f"audit of {way.value}")
    marks = [about, pytest.mark.needs(NEEDS[way])] if way in NEEDS else []
    marks += [] if way in DAILY else [pytest.mark.nightly]
    return pytest.param(way, id=way.value, marks=marks)


@pytest.mark.parametrize("way", [*map(case_of, Way)])
def test_what_a_way_to_stop_a_vf_does(
    lab: Lab, staying_guest: MovingGuest, audit: StopVf, way: Way
) -> None:
    """A VF that may not master the bus is silent; each way stops it, and it can be had back.

    One that is not stopped at all shows that frames and pages are seen.  A guest's own reset that
    does not reach its VF leaves the rings where they are, and may or may not leave it silent.
    """
    profile = lab.topology.vf_profile
    stops = way.stops(profile)
    found = audit(staying_guest, way)
    assert found.faults == []
    assert (found.evidence.accesses is not None) == ("dma-log" in lab.topology.offered)
    assert stops is None or (found.paused_ms >= PAUSE_MS) == stops, found
    assert found.is_silent == stops or way in RESETS, found
    if way is Way.GUEST_RESET and way.resets(profile) is False:
        assert found.evidence.has_rings, found
    assert found.is_master == (way not in CLEARS_BME), found
    assert found.back != NOT_BACK


@pytest.mark.nightly
@pytest.mark.about("native hot-plug")
@pytest.mark.needs("sriov")
@pytest.mark.parametrize("staying_guest", [Trigger.PCIE], indirect=True, ids=["pcie"])
def test_a_vf_that_is_unplugged_by_native_hot_plug_is_gone(
    staying_guest: MovingGuest, audit: StopVf
) -> None:
    """The slot's attention button: the guest waits five seconds before it lets go.

    Ref: PCI Express Base Specification, 6.7.1.5: the operator may change his mind for so long.
    """
    found = audit(staying_guest, Way.UNPLUG)
    assert found.faults == []
    assert found.is_silent, found
    assert not found.is_master, found
    assert found.back != NOT_BACK
