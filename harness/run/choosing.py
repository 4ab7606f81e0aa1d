"""The VFs that a guest is lent decide which scheme moves the guest, and which hand-off it needs."""

from __future__ import annotations

from harness.errors import UsageError
from harness.guest.instance import Instance
from harness.guest.machine import GuestMachine
from harness.host.sriov import VirtualFunction
from harness.host.twin import Twin
from harness.host.vf import Vf
from harness.migration.comparison import Comparison
from harness.migration.handoff import HandOff, Order
from harness.migration.memory import LoggedComparison
from harness.migration.plan import Plan
from harness.migration.scheme import Scheme
from harness.migration.schemes.driven import Driven
from harness.migration.schemes.failover import Failover
from harness.migration.schemes.inplace import Inplace
from harness.migration.schemes.plain import Plain


def hand_off_of(source: Instance, destination: Vf | None, order: Order | None) -> HandOff | None:
    """Return the hand-off of the guest's MAC filter; None for a guest that no host lends a VF.

    Without *order* the hand-off has the order that the destination's family needs.  The driver of a
    guest that keeps its VF does not reset the VF, so nothing would put back an address that opening
    the VF took out: there the address is set once the guest runs.
    """
    if source.vf is None or destination is None:
        return None
    needed = Order.of(destination) if source.spec.standby else Order.AFTER_RESUME
    return HandOff(source.vf, destination, source.spec.mac, order or needed)


def scheme_of(
    guest: GuestMachine,
    source: Instance,
    destination: Vf | None,
    hand_off: HandOff | None,
    plan: Plan | None,
    comparison: Comparison | None,
) -> Scheme:
    """Return the scheme that moves the guest at *source* to *destination*.

    Raises UsageError for a *plan* where a VF is no twin.
    """
    if hand_off and source.spec.standby:
        return Failover(hand_off, source.spec.trigger, comparison)
    if hand_off:
        return Driven(hand_off, comparison)
    if plan is None:
        return Plain(comparison)
    assert isinstance(comparison, LoggedComparison)
    return Inplace(plan, guest, as_twin(source.vf), as_twin(destination), comparison)


def as_twin(vf: Vf | None) -> Twin:
    """Give *vf* as the twin that it is.  Raises UsageError if it is none."""
    if not isinstance(vf, Twin):
        whose = f"{vf.host.name}: VF {vf.name}" if vf else "the guest's VF"
        raise UsageError(
            f"{whose} is no twin",
            because="its host lends VFs of ports, or none",
            fix='mark the test `needs("twin")`',
        )
    return vf


def as_function_of_port(vf: Vf | None) -> VirtualFunction:
    """Give *vf* as the VF of a port that it is.  Raises UsageError if it is none."""
    if not isinstance(vf, VirtualFunction):
        whose = f"{vf.host.name}: VF {vf.name}" if vf else "the guest's VF"
        raise UsageError(
            f"{whose} belongs to no port",
            because="its host lends twins, or nothing",
            fix='mark the test `needs("sriov")`',
        )
    return vf
