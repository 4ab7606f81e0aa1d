"""A vfio-user server serves one PCI function: a port or a VF."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

from harness.twin.memory import GuestMemory
from harness.twin.vectors import Vectors


class Configuration(Protocol):
    """A function's configuration space, 4096 bytes of it."""

    def read(self, offset: int, count: int) -> bytes:
        """Return *count* bytes from *offset* on."""

    def write(self, offset: int, data: bytes) -> None:
        """Write what can be written there; the rest is ignored."""


class Function(Protocol):
    """A PCI function with registers in BAR 0, MSI-X vectors, and memory that it may access."""

    @property
    def regions(self) -> Mapping[int, int]:
        """The size in bytes of each region that is there, by its number in ``PciRegion``."""

    @property
    def config(self) -> Configuration:
        """The function's configuration space."""

    @property
    def memory(self) -> GuestMemory:
        """The memory that the function's client lends."""

    @property
    def vectors(self) -> Vectors:
        """The function's MSI-X vectors."""

    def read(self, offset: int) -> int:
        """Read a register of BAR 0, 32 bits."""

    def write(self, offset: int, value: int) -> None:
        """Write a register of BAR 0, 32 bits."""

    def connect(self) -> None:
        """Be as after power-on: a client has come."""

    def reset(self) -> None:
        """Do what a function level reset does."""
