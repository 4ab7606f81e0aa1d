"""The hand-off: which port's filter holds the guest's MAC address, and when.

While a port's filter gives the guest's address to a VF, frames for the guest go to that VF and to
nothing else: once the VF is unplugged they go into a pool that nobody reads, and the standby on
the same port never sees them.  So the filter has to follow the guest.  On the source the observer
clears it, within a millisecond of seeing Bus Master Enable fall.  On the destination a VF that is
reset without an address takes a random one, and the failover pair never forms: the address has to
be set before the guest's driver resets its new VF.  When that is done depends on the family of the
destination's port; see `Order`.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum
from typing import Any

from harness.host.vf import NO_MAC, Vf
from harness.topology import MacAddress

CLEARED, SET = "filter cleared", "filter set"


class Order(Enum):
    """The destination's filter is set at one of these moments."""

    BEFORE_OPEN = "before QEMU opens the VF"
    """The filter is set before the destination's QEMU starts, as libvirt does (82599).

    The function reset by which VFIO opens the VF takes the address out of the filter and leaves it
    on record, so the standby is served until the guest's own driver resets the VF, which puts the
    address back: nothing of ours races with that driver.  From the setting until QEMU opens the VF,
    as the memory's last page arrives, frames for the guest that come to the destination's port are
    lost; but the guest is at its source then, and a switch that has heard it sends none there.
    """

    AFTER_RESUME = "once the guest runs there"
    """The filter is set as soon as the destination says RESUME (82576).

    The filter of an 82576 keeps the address over a function reset.  Set earlier, the filter would
    send the guest's frames to a VF without a driver while the standby is to serve the guest.
    """

    @classmethod
    def of(cls, destination: Vf) -> Order:
        """Say which order a guest that is to get *destination* as its new VF needs."""
        return cls.AFTER_RESUME if destination.filter_survives_reset else cls.BEFORE_OPEN


@dataclass(frozen=True, slots=True)
class Step:
    """One change of a filter that we made: *t_ns* is our monotonic time when it was done."""

    t_ns: int
    took_ns: int
    host: str
    name: str
    data: Mapping[str, Any]


class HandOff:
    """The guest's address *mac* handed from one VF's filter to another's, in that *order*; once.

    *steps* are the filters that were set for the migration, in order of time.
    """

    def __init__(self, source: Vf, destination: Vf, mac: MacAddress, order: Order) -> None:
        self._source = source
        self._destination = destination
        self._mac = mac
        self._order = order
        self.steps: list[Step] = []

    def prepare(self) -> None:
        """Set the destination's filter now, in the order BEFORE_OPEN: its QEMU is started next."""
        if self._order is Order.BEFORE_OPEN:
            self._set(self._destination)

    def arrive(self) -> None:
        """Set the destination's filter now, in the order AFTER_RESUME: the guest runs there."""
        if self._order is Order.AFTER_RESUME:
            self._set(self._destination)

    def stay(self) -> None:
        """Set the source's filter again, for the VF's return: the guest runs on at the source."""
        self._set(self._source)

    def withdraw(self) -> None:
        """Clear the destination's filter where it was prepared: the guest did not come.

        Callers wait until no QEMU of the destination has the VF.  This is no step of the migration.
        """
        if self._order is Order.BEFORE_OPEN:
            self._destination.set_filter(NO_MAC)

    def _set(self, vf: Vf) -> None:
        before_ns = time.monotonic_ns()
        vf.set_filter(self._mac)
        after_ns = time.monotonic_ns()
        data = {"vf": vf.name, "mac": self._mac, "order": self._order.value}
        self.steps.append(Step(after_ns, after_ns - before_ns, vf.host.name, SET, data))
