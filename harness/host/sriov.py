"""The provider ``sriov``: VFs of a port, made and bound to vfio-pci; taken back, it has none again.

Every change is in the host's journal before it is made, so the host itself can put them back.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from harness.agent import vf_filter
from harness.errors import HarnessError, LabError, RemoteError, UsageError, WaitError
from harness.host.changes import changed_back, set_attribute
from harness.host.port import Port, VfTraffic, wait_for_link
from harness.host.sriov_port_side import VfPortSide
from harness.host.vf import NO_MAC, Observed, Ring, Vf, note_not_there, words_for
from harness.remote import Host, Recorder
from harness.topology import Capabilities, MacAddress, PciAddress
from harness.uapi.ixgbe_vf import DESCRIPTOR_BYTES, QueueControl, QueueRegister
from harness.uapi.pci_regs import NO_ANSWER, NO_ANSWER_32, Command, Register
from harness.waiting import wait_for

_SET_MASTER = """
import os, sys
path, at, bit = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
config = os.open(path, os.O_RDWR)
command = int.from_bytes(os.pread(config, 2, at), "little") | bit
os.pwrite(config, command.to_bytes(2, "little"), at)
"""

VFIO = "vfio-pci"
APPEAR_SECONDS = 10

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


@contextmanager
def virtual_functions(port: Port, count: int) -> Iterator[list[VirtualFunction]]:
    """Lend *count* VFs of *port*; VF 0 first, none with a MAC filter yet.

    The port must be up: a VF made on one that is down gets no address and a late link.  It has its
    link again when this yields, which making VFs took away.  A port that already has VFs is not
    touched.  Raises LabError, also for a VF or a link that does not come.
    """
    if count > (allowed := port.vfs_allowed):
        raise LabError(
            f"{port.host.name}: {count} VFs are wanted on {port.pci}, {allowed} are allowed",
            because=f"its lab lends no more (`vfs` of port {port.name}), so nothing was changed",
            fix="ask for fewer, or have the topology allow more",
        )
    taken = port.virtual_functions
    if taken:
        raise LabError(
            f"{port.host.name}: {port.pci} already has {taken} VFs",
            because="someone may be using them, so nothing was changed",
            fix=f"free them, run `vf-harness restore --lab LAB {port.host.name}`, or name another "
            "port",
        )
    with changed_back(port.host) as host:
        # Without a driver of the host's own on them: the guest is to be their first user.
        set_attribute(host, f"{port.device}/sriov_drivers_autoprobe", "0")
        _undone_by(host, port, "up")
        try:
            set_attribute(host, f"{port.device}/sriov_numvfs", str(count))
        except RemoteError as refused:
            raise _no_vfs(port, count, refused) from None
        _undone_by(host, port, "down")
        lent = [_bound(port, index) for index in range(count)]
        wait_for_link(port)
        yield lent


def _undone_by(host: Host, port: Port, state: str) -> None:
    """Journal that undoing sets the port *state*, up or down, at this point; change nothing now.

    So VFs are taken away from a port that is down.  While ixgbe's port is up, the driver may count
    VFs' frames in records that it has just freed (ixgbe_update_stats and ixgbe_disable_sriov, Linux
    6.12: a kernel oops, after which the port gets no link any more).  It is done for every family,
    since making and taking VFs cuts their link in any case.
    """
    host.change(
        f"{port.interface} {state}, when its VFs are taken away",
        do={"kind": "run", "argv": ["true"]},
        undo={"kind": "run", "argv": ["ip", "link", "set", "dev", port.interface, state]},
    )


def _no_vfs(port: Port, count: int, refused: RemoteError) -> HarnessError:
    """Return the error that says why the kernel or the driver refused to make *count* VFs."""
    meant = next((_NO_VFS[name] for name in _NO_VFS if name in refused.what), None)
    if meant is None:
        return refused
    because, fix = meant
    driver, name = port.profile.pf_driver.value, refused.what.rpartition(": ")[2]
    return LabError(
        f"{port.host.name}: {driver} makes no {count} VFs on {port.interface}",
        because=f"it refused with {name}: {because}",
        fix=fix,
    )


_NO_VFS = {
    "EPERM": (
        "that is more than it allows, 63 on an 82599, 31 where the port has 2 to 4 traffic "
        "classes, 15 where it has more, and one less for each offloaded macvlan "
        "(ixgbe_pci_sriov_enable)",
        "ask for fewer, or take traffic classes (`tc qdisc show`) and macvlans off the port",
    ),
    "EINVAL": (
        "the driver makes no VFs while an XDP program is on the port (__ixgbe_enable_sriov)",
        "see the kernel log; `ip link show` names the program, `ip link set dev PORT xdp off` "
        "takes it off",
    ),
    "ENOMEM": (
        "the bridge above the port has no room for the VFs' registers or bus numbers "
        "(drivers/pci/iov.c, sriov_enable), or the kernel has no memory for their records",
        "see the kernel log; turn SR-IOV on in the firmware's set-up, or boot with "
        "pci=realloc,assign-busses",
    ),
}
"""Each errno of a write to ``sriov_numvfs`` has a meaning, and something to do."""


def _bound(port: Port, index: int) -> VirtualFunction:
    """VF *index* of *port*, once the kernel shows it and vfio-pci has it.

    The override goes with the VF, so it needs no way back of its own.
    """
    host = port.host
    link = f"{port.device}/virtfn{index}"
    wait_for(
        f"{host.name}: {link}", lambda: host.exists(link), within=APPEAR_SECONDS, error=LabError
    )
    pci = PciAddress(host.readlink(link).rpartition("/")[2])
    device = f"/sys/bus/pci/devices/{pci}"
    host.write_text(f"{device}/driver_override", VFIO)
    host.write_text("/sys/bus/pci/drivers_probe", pci)
    wait_for(
        f"{host.name}: {VFIO} to take {pci}",
        lambda: _driver(host, device),
        within=APPEAR_SECONDS,
        until=lambda driver: driver == VFIO,
        fix="`modprobe vfio-pci`, and see that the IOMMU is on (intel_iommu=on)",
        error=LabError,
    )
    vf = VirtualFunction(port, index, pci)
    node = f"/dev/vfio/{vf.iommu_group}"
    wait_for(f"{host.name}: {node}", lambda: host.exists(node), within=APPEAR_SECONDS)
    return vf


def _driver(host: Host, device: str) -> str:
    link = f"{device}/driver"
    return host.readlink(link).rpartition("/")[2] if host.exists(link) else "no driver"
