"""Our model of the port's driver is held against the driver, message by message."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest

from harness.host.port import find_port, port_up
from harness.host.software_vf import misbehaving
from harness.host.sriov import virtual_functions
from harness.mailbox.driver import DriverPlayer, driver_player
from harness.mailbox.model import ModelPlayer
from harness.mailbox.sequences import PORT_MTU, sequences
from harness.mailbox.transcript import Transcript, differences
from harness.twin.driver import of_kernel

if TYPE_CHECKING:
    from harness.remote import Host
    from harness.run.lab import Lab
    from harness.run.record import Case

pytestmark = [pytest.mark.usefixtures("no_guest"), pytest.mark.needs("sriov", "iommu", "82599")]

FILE = "port-driver.json"
"""The transcript among a test's artifacts; tests/recorded keeps one of each driver."""


@pytest.fixture
def player(lab: Lab, hosts: list[Host]) -> Iterator[DriverPlayer]:
    """Yield a player for the driver of the first host's first port, which has all its VFs."""
    host = hosts[0]
    name, entry = next(iter(lab.topology.hosts[host.name].ports.items()))
    port = find_port(host, name, entry)
    with (
        port_up(port, mtu=PORT_MTU),
        virtual_functions(port, entry.vfs) as (vf, *_),
        driver_player(vf) as player,
    ):
        yield player


@pytest.mark.parametrize(
    "is_long", [False, pytest.param(True, marks=pytest.mark.nightly)], ids=["short", "all"]
)
def test_the_model_answers_as_the_ports_driver(
    player: DriverPlayer, lab: Lab, case: Case, is_long: bool
) -> None:
    """After every step the model has the same replies, refusals, messages and filters as ixgbe."""
    vfs = player.vf.port.virtual_functions
    model = ModelPlayer(of_kernel(player.release), vfs)
    played, wrong = {}, {}
    for sequence in sequences():
        if sequence.is_long and not is_long:
            continue
        lab.renew()
        played[sequence.name] = player.play(sequence)
        wrong[sequence.name] = list(differences(played[sequence.name], model.play(sequence)))
    Transcript(player.driver, vfs, played).write(case.folder / FILE)
    assert {name: lines for name, lines in wrong.items() if lines} == {}


@pytest.mark.nightly
@pytest.mark.faults
@pytest.mark.about("a port that loses resets")
@pytest.mark.needs("software-vf")
def test_a_driver_that_never_hears_of_a_reset_answers_otherwise(
    player: DriverPlayer, lab: Lab
) -> None:
    """The chip tells the driver nothing in VFLRE, and the comparison with the model shows that."""
    (sequence,) = (each for each in sequences() if each.name == "reset by function")
    vfs = player.vf.port.virtual_functions
    expected = ModelPlayer(of_kernel(player.release), vfs).play(sequence)
    assert not list(differences(player.play(sequence), expected))
    with misbehaving(lab.device(player.vf), loses_resets=True):
        assert list(differences(player.play(sequence), expected))
