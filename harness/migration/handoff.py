"""The hand-off: which port's filter holds the guest's MAC address, and when.

While a port's filter gives the guest's address to a VF, frames for the guest go to that VF and to
nothing else: once the VF is unplugged they go into a pool that nobody reads, and the standby on
the same port never sees them.  So the filter has to follow the guest::

    source        set while the guest has the VF; cleared the moment the VF is released
    destination   clear until the guest runs there; set before its driver resets the new VF

The source's step is taken by the observer on the source itself, within a millisecond of seeing
Bus Master Enable fall.  The destination's cannot wait for the driver to show itself: a VF that is
reset without an address takes a random one, and the failover pair never forms.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from harness.host.vf import Vf
from harness.topology import MacAddress

CLEARED, SET = "filter cleared", "filter set"


@dataclass(frozen=True, slots=True)
class Step:
    """One change of a filter that we made: *t_ns* is our monotonic time when it was done."""

    t_ns: int
    took_ns: int
    host: str
    name: str
    data: Mapping[str, Any]


class HandOff:
    """The guest's address *mac* handed from one VF's filter to another's; once."""

    def __init__(self, source: Vf, destination: Vf, mac: MacAddress) -> None:
        self._source = source
        self._destination = destination
        self._mac = mac
        self.steps: list[Step] = []

    def arrive(self) -> None:
        """The guest runs on the destination: set the filter there."""
        self._set(self._destination)

    def stay(self) -> None:
        """The guest runs on at the source: set the filter there again, for the VF's return."""
        self._set(self._source)

    def _set(self, vf: Vf) -> None:
        before_ns = time.monotonic_ns()
        vf.set_filter(self._mac)
        after_ns = time.monotonic_ns()
        data = {"vf": vf.name, "mac": self._mac}
        self.steps.append(Step(after_ns, after_ns - before_ns, vf.host.name, SET, data))
