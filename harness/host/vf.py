"""A VF as a guest owns it, whichever provider lends it.

A provider is a context manager that yields VFs and takes them back.  `sriov` lends a port's own,
through VFIO.
"""

from __future__ import annotations

from typing import Any, Protocol

from harness.remote import Host
from harness.topology import MacAddress, PciAddress

NO_MAC = MacAddress("00:00:00:00:00:00")
"""As the MAC of a VF it clears the filter on its port."""


class Vf(Protocol):
    """One virtual function, lent."""

    @property
    def host(self) -> Host:
        """The host that it is on."""

    @property
    def pci(self) -> PciAddress:
        """Its address there; what records and the observer call it."""

    @property
    def device(self) -> str:
        """QEMU's ``-device`` argument, without what depends on the guest: id, bus, pair."""

    def set_filter(self, mac: MacAddress) -> None:
        """Have frames for *mac* go to this VF; for nobody with NO_MAC."""

    def filter_action(self, mac: MacAddress) -> dict[str, Any]:
        """What an observer on its host does to the same end; see ``agent.observer``."""

    def is_master(self) -> bool:
        """Whether Bus Master Enable is set now; its user is not disturbed."""

    def wait_for_bme(self, *, seconds: float, fix: str) -> None:
        """Return once Bus Master Enable is set.  Raises WaitError if that takes longer."""
