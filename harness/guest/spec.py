"""What a guest is, apart from where it runs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum
from ipaddress import IPv4Interface
from pathlib import Path
from typing import Any

from harness.topology import GuestEntry, MacAddress


class Trigger(Enum):
    """What tells the guest to let the VF go."""

    ACPI = "acpi"
    """ACPI hot-plug: a notification from the chipset's hot-plug registers (q35's default)."""

    PCIE = "pcie"
    """Native PCIe hot-plug: the slot's attention button."""


@dataclass(frozen=True, slots=True, kw_only=True)
class GuestSpec:
    """A guest that owns a VF; with *standby*, also a virtio interface of the same address.

    *cpu* is its processor as QEMU's ``-cpu`` takes it; None: all that the host has.
    *shared_memory* says whether its memory can be mapped by other processes; None: if its VF needs
    that.  With *emulated_port* its way to the wire is a port of QEMU's own, with VFs that it makes
    for itself (`own_vf`), instead of a virtio interface.
    """

    name: str = "guest"
    memory_mib: int
    cpus: int
    cpu: str | None = None
    mac: MacAddress
    address: IPv4Interface
    mtu: int
    trigger: Trigger = Trigger.ACPI
    standby: bool = True
    shared_memory: bool | None = None
    emulated_port: bool = False

    @classmethod
    def of(
        cls,
        entry: GuestEntry,
        trigger: Trigger = Trigger.ACPI,
        *,
        standby: bool = True,
        emulated_port: bool = False,
    ) -> GuestSpec:
        """The guest that a topology describes."""
        return cls(
            memory_mib=entry.memory_mib,
            cpus=entry.cpus,
            cpu=entry.cpu,
            mac=entry.mac,
            address=entry.address,
            mtu=entry.mtu,
            trigger=trigger,
            standby=standby,
            emulated_port=emulated_port,
        )


@dataclass(frozen=True, slots=True)
class GuestImage:
    """Kernel and initramfs on the runner, and the keys by which the guest is reached over SSH.

    *digest* names their content: a host that has it already is not sent it again.
    """

    kernel: Path
    initramfs: Path
    digest: str
    identity: Path
    known_hosts: Path


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """Where one process of a guest runs, and with what; paths are the host's.

    *vf* is QEMU's ``-device`` for it, as properties, None for a guest without one.  *tap* is where
    its standby is, if it has one.  *incoming*: it waits for a migration, and with *paused* does not
    run on by itself when that is over.
    """

    qemu: str
    accelerator: str
    kernel: str
    initramfs: str
    folder: str
    tap: str | None
    vf: Mapping[str, Any] | None
    incoming: bool
    shared_memory: bool = False
    paused: bool = False
