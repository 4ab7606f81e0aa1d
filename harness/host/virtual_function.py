"""A VF of a port, as a guest owns it through VFIO; the provider ``sriov`` lends it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from harness.agent import vf_filter
from harness.errors import RemoteError, UsageError, WaitError
from harness.host.port import Port, VfTraffic
from harness.host.sriov_port_side import VfPortSide
from harness.host.vf import NO_MAC, Observed, Ring, Vf, note_not_there, words_for
from harness.remote import Host, Recorder
from harness.topology import Capabilities, MacAddress, PciAddress
from harness.uapi.ixgbe_vf import DESCRIPTOR_BYTES, QueueControl, QueueRegister
from harness.uapi.pci_regs import NO_ANSWER, NO_ANSWER_32, Command, Register

_SET_MASTER = """
import os, sys
path, at, bit = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
config = os.open(path, os.O_RDWR)
command = int.from_bytes(os.pread(config, 2, at), "little") | bit
os.pwrite(config, command.to_bytes(2, "little"), at)
"""

VFIO = "vfio-pci"

_RING_REGISTERS = (
    *(QueueRegister.BAL, QueueRegister.BAH, QueueRegister.LEN),
    *(QueueRegister.HEAD, QueueRegister.TAIL, QueueRegister.DCTL),
)
"""At the same places in each family's queues; where those begin is in its profile."""


@dataclass(frozen=True, slots=True)
class Inspected:
    """What VFIO says of a VF; see ``harness.agent.inspect_vf``."""

    flags: list[str]
    region_bytes: dict[str, int]
    interrupts: dict[str, int]
    migration: list[str]
    migration_state: str | None
    command_opened: int
    command_mastering: int
    command_reset: int


@dataclass(frozen=True, slots=True)
class VirtualFunction:
    """VF number *index* of *port*, bound to vfio-pci; a ``Vf``."""

    port: Port
    index: int
    pci: PciAddress

    @classmethod
    def of(cls, vf: Vf | None) -> VirtualFunction:
        """Return *vf* as the VF of a port that it is.  Raises UsageError if it is none."""
        if not isinstance(vf, VirtualFunction):
            raise UsageError(
                f"{words_for(vf)} belongs to no port",
                because="its host lends twins, or nothing",
                fix='mark the test `needs("sriov")`',
            )
        return vf

    @property
    def host(self) -> Host:
        return self.port.host

    @property
    def name(self) -> str:
        return self.pci

    @property
    def device(self) -> Mapping[str, Any]:
        """QEMU opens the VF through VFIO."""
        return {"driver": VFIO, "host": self.pci}

    @property
    def has_memory_enable(self) -> bool:
        """Whether a VF of this family has a Memory Enable of its own."""
        return self.port.profile.vf_has_memory_enable.value

    @property
    def filter_survives_reset(self) -> bool:
        """Whether a VF of this family keeps its address in the port's filter over a reset."""
        return self.port.profile.filter_survives_reset.value

    @property
    def needs_shared_memory(self) -> bool:
        """The kernel pins whatever memory the guest has."""
        return False

    @property
    def iommu_group(self) -> str:
        """The number of its IOMMU group."""
        return self.host.readlink(f"/sys/bus/pci/devices/{self.pci}/iommu_group").rpartition("/")[2]

    @property
    def port_side(self) -> VfPortSide:
        return VfPortSide(self)

    def traffic(self) -> VfTraffic:
        """Read what its port has counted of it."""
        return self.port.vf_traffic(self.index)

    def set_filter(self, mac: MacAddress) -> None:
        """Give the port's filter for this VF the address *mac*; ``vf.NO_MAC`` clears it.

        It goes with the VF, whose making is journalled, so it needs no way back of its own.  See
        ``Vf`` for a filter that is empty already.
        """
        interface, vf = self.port.interface, str(self.index)
        argv = ("ip", "link", "set", "dev", interface, "vf", vf, "mac", mac)
        done = self.host.run(*argv, check=False, changes=True)
        if done.status == 0:
            return
        number = vf_filter.errno_said(done.stderr)
        if vf_filter.means_not_there(mac, number):
            note_not_there(self)
            return
        because, fix = vf_filter.meaning(number)
        raise RemoteError(
            f"{self.host.name}: the filter of VF {vf} of {interface} did not take {mac}",
            because=f"`ip` said {done.stderr.strip()!r}: {because}",
            fix=fix,
        )

    def observe(
        self,
        *,
        qemu_pid: int,
        rate_per_s: int,
        path: str,
        on_release: str | None,
        capabilities: Capabilities,
    ) -> Observing:
        """A program on the host reads the registers; see ``agent.observer``."""
        spec: dict[str, Any] = {
            "host": self.host.name, "vf": self.pci, "qemu_pid": qemu_pid, "path": path,
            "rate_per_s": rate_per_s,
        }  # fmt: skip
        if on_release:
            where = {"port": self.port.interface, "vf_index": self.index, "mac": NO_MAC}
            spec["on_release"] = [{"name": on_release, **where}]
        spans = {name: entry.span for name, entry in capabilities.items()}
        if spans:
            spec["capabilities"] = [
                {"name": name, "offset": offset, "length": length}
                for name, (offset, length) in spans.items()
            ]
        return Observing(self.host, path, self.host.start("observer", spec))

    def receive_rings(self, *, qemu_pid: int) -> list[Ring]:
        """Return the rings of queues that are on and have descriptors; none of a VF that is silent.

        An 82599's function reset leaves a queue on and takes its ring (quirk
        ``flr-keeps-queue-registers``): such a queue does not run.
        """
        queues = self.port.profile.vf_receive_queues.value
        offsets = [queue + register for queue in queues for register in _RING_REGISTERS]
        values = self.host.ask("vf.registers", pid=qemu_pid, address=self.pci, offsets=offsets)
        rings, each = [], len(_RING_REGISTERS)
        for first in range(0, len(values), each):
            low, high, length, head, tail, control = values[first : first + each]
            if control & QueueControl.ENABLE and control != NO_ANSWER_32 and length:
                rings.append(Ring(high << 32 | low, length // DESCRIPTOR_BYTES, head, tail))
        return rings

    def set_master(self, on: bool, *, qemu_pid: int) -> None:
        """Through VFIO's config region."""
        self.host.act("vf.set_master", pid=qemu_pid, address=self.pci, on=on)

    def master_unowned(self) -> None:
        """By sysfs, which does not ask for an owner."""
        config = f"/sys/bus/pci/devices/{self.pci}/config"
        argv = ["python3", "-c", _SET_MASTER, config, str(Register.COMMAND), str(Command.MASTER)]
        self.host.run(*argv, changes=True)

    def reset(self, *, qemu_pid: int) -> None:
        """VFIO_DEVICE_RESET."""
        self.host.act("vf.reset", pid=qemu_pid, address=self.pci)

    def reset_by_sysfs(self) -> None:
        """The kernel's own ``reset`` file: as VFIO's, and its user is not asked."""
        self.host.write_text(f"/sys/bus/pci/devices/{self.pci}/reset", "1")

    def inspect(self) -> Inspected:
        """Open this VF through VFIO, look, set BME and reset it; nobody may be using it."""
        return Inspected(**self.host.inspect_vf(self.pci))

    def is_master(self) -> bool:
        """Whether Bus Master Enable is set now, by sysfs, which does not disturb its user."""
        config = f"/sys/bus/pci/devices/{self.pci}/config"
        shown = self.host.run("od", "-An", "-tx2", f"-j{Register.COMMAND}", "-N2", config)
        return bool(int(shown.stdout, 16) & Command.MASTER)

    def wait_for_bme(self, *, seconds: float, fix: str) -> None:
        """Return once Bus Master Enable is set; the host waits, and is asked once.

        Raises WaitError if that takes longer than *seconds*.
        """
        command = self.host.wait_for_bme(self.pci, seconds=seconds)
        if command == NO_ANSWER or not command & Command.MASTER:
            raise WaitError(
                f"{self.host.name}: waited {seconds:g} s for the guest to take up VF {self.pci}",
                because=f"its COMMAND register read {command:#06x} at the end, without the Bus "
                "Master Enable that a driver sets",
                fix=fix,
            )


@dataclass(frozen=True, slots=True)
class Observing:
    """The observer of one VF, at work; an ``Observation``."""

    host: Host
    path: str
    recorder: Recorder

    def stop(self) -> Observed:
        summary = self.recorder.stop()
        lines = self.host.fetch(self.path).splitlines()
        return Observed.of(map(json.loads, lines), summary)
