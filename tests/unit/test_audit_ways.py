"""The audit expects of each way to stop a VF what the VF's family allows."""

from __future__ import annotations

from pathlib import Path

import pytest

from harness.audit.ways import Way
from harness.devices import PROFILES
from harness.topology import TOPOLOGIES, load

TWINS = (TOPOLOGIES / "twin.toml").read_text()


@pytest.mark.parametrize("family", PROFILES)
@pytest.mark.parametrize("way", Way)
def test_every_way_stops_a_vf_but_a_reset_that_does_not_reach_it(way: Way, family: str) -> None:
    """VFIO leaves out a guest's own reset of an 82599 VF; of X540 and X550 nothing is known.

    An audit that wanted a silence there would be red on hardware, and tell nothing of the VF.
    """
    reached = {"82599": False, "82576": True}.get(family)
    resets = {Way.GUEST_RESET: reached, Way.VFIO_RESET: True, Way.SYSFS_RESET: True}
    assert way.resets(PROFILES[family]) is resets.get(way, False)
    stops = {Way.NOTHING: False, Way.GUEST_RESET: True if reached else None}
    assert way.stops(PROFILES[family]) is stops.get(way, True)


@pytest.mark.parametrize(("said", "resets"), [("", False), ("erratum_35 = false\n", True)])
def test_a_twin_is_as_an_82599_unless_its_topology_has_it_say_what_it_can(
    tmp_path: Path, said: str, resets: bool
) -> None:
    """One key of the topology says what twins can, and what tests expect of twins."""
    path = tmp_path / "twins.toml"
    path.write_text(TWINS.replace('interface = "p0"\n', f'interface = "p0"\n{said}'))
    assert Way.GUEST_RESET.resets(load(path).vf_profile) is resets
