"""A VF as a guest owns it, whichever provider lends it.

A provider is a context manager that yields VFs and takes them back.  `sriov` lends a port's own,
through VFIO; `twin` lends software ones, over vfio-user.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from harness.agent.vf_filter import NOT_THERE
from harness.host.port_side import PortSide
from harness.remote import Host
from harness.topology import Capabilities, MacAddress
from harness.uapi.ixgbe_vf import DESCRIPTOR_BYTES

NO_MAC = MacAddress("00:00:00:00:00:00")
"""As the MAC of a VF it clears the filter on its port."""


_commands = logging.getLogger("harness.commands")


def note_not_there(vf: Vf) -> None:
    """Note among the commands that the filter of *vf*, which was to be cleared, was empty."""
    _commands.info("[%s] # %s: %s", vf.host.name, vf.name, NOT_THERE)


def words_for(vf: Vf | None) -> str:
    """Return how an error calls *vf*, which a guest may not have."""
    return f"{vf.host.name}: VF {vf.name}" if vf else "the guest's VF"


@dataclass(frozen=True, slots=True)
class Observed:
    """What an observer saw: its *lines* (see ``agent.observer``) and its *summary* of itself.

    *registers* are the lines of described capabilities (see ``agent.registers``).
    """

    lines: list[dict[str, Any]]
    registers: list[dict[str, Any]]
    summary: dict[str, Any]

    @classmethod
    def of(cls, written: Iterable[dict[str, Any]], summary: dict[str, Any]) -> Observed:
        """Tell the two kinds of lines of one record apart."""
        both: tuple[list[dict[str, Any]], list[dict[str, Any]]] = [], []
        for line in written:
            both["capability" in line].append(line)
        return cls(*both, summary)


@dataclass(frozen=True, slots=True)
class Ring:
    """*count* receive descriptors at the guest's *address*; *head* to *tail* are the VF's.

    Each is 16 bytes; of one that is the VF's the first eight are the guest's address of a buffer.
    Ref: 82599 datasheet, 7.1.6.1, advanced receive descriptors, read format; 82576 alike.
    """

    address: int
    count: int
    head: int
    tail: int

    @property
    def memory(self) -> range:
        """The guest's addresses of the descriptors."""
        return range(self.address, self.address + self.count * DESCRIPTOR_BYTES)


class Observation(Protocol):
    """An observer of Bus Master Enable, at work until it is stopped."""

    def stop(self) -> Observed:
        """End it, and give what it saw."""


class Vf(Protocol):
    """One virtual function, lent."""

    @property
    def host(self) -> Host:
        """The host that it is on."""

    @property
    def name(self) -> str:
        """What records call it: its PCI address there, if it has one."""

    @property
    def device(self) -> Mapping[str, Any]:
        """QEMU's ``-device`` as properties, without what depends on the guest: id, bus, pair."""

    @property
    def has_memory_enable(self) -> bool:
        """Whether its COMMAND has a Memory Enable of its own."""

    @property
    def filter_survives_reset(self) -> bool:
        """Whether a function reset of this VF leaves its address in the port's filter."""

    @property
    def needs_shared_memory(self) -> bool:
        """Whether it can work only in a guest whose memory is shared."""

    @property
    def port_side(self) -> PortSide:
        """The port that lends the VF, where an administrator sets things for the VF."""

    def set_filter(self, mac: MacAddress) -> None:
        """Have frames for *mac* go to this VF; for nobody with NO_MAC.

        A filter that is empty already, by a reset, counts as cleared, and that is noted in the log
        of commands.  Raises RemoteError if the port refuses anything else.
        """

    def observe(
        self,
        *,
        qemu_pid: int,
        rate_per_s: int,
        path: str,
        on_release: str | None,
        capabilities: Capabilities,
    ) -> Observation:
        """Record Bus Master Enable into the file *path* on the host; it does when this returns.

        So are the registers of *capabilities*.

        With *on_release* the observer clears the filter when the VF is released, and has an event
        of that name.
        """

    def receive_rings(self, *, qemu_pid: int) -> list[Ring]:
        """Where its driver has put its receive descriptors; none of a queue that is off."""

    def set_master(self, on: bool, *, qemu_pid: int) -> None:
        """Set or clear Bus Master Enable as a host can; the guest is told nothing."""

    def master_unowned(self) -> None:
        """Set Bus Master Enable though no QEMU has the VF, as if its guest had never let it go."""

    def reset(self, *, qemu_pid: int) -> None:
        """Reset the function under its guest, as VFIO's user can."""

    def is_master(self) -> bool:
        """Whether Bus Master Enable is set now; its user is not disturbed."""

    def wait_for_bme(self, *, seconds: float, fix: str) -> None:
        """Return once Bus Master Enable is set.  Raises WaitError if that takes longer."""
