"""Where a guest's memory is in its host's, and which pages its hypervisor writes by itself."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from harness.errors import MigrationError
from harness.guest.command_line import MEMORY
from harness.guest.instance import Instance
from harness.guest.machine import GuestMachine
from harness.remote import Host
from harness.uapi.kvm_para import Msr, MsrFlag

PAGE = 4096
ABOVE = 4 << 30
"""Where the guest has what does not fit below the PCI hole."""

OWNERS = {
    Msr.WALL_CLOCK_NEW: "kvmclock's wall clock",
    Msr.SYSTEM_TIME_NEW: "kvmclock",
    Msr.ASYNC_PF_EN: "asynchronous page faults",
    Msr.STEAL_TIME: "steal time",
    Msr.PV_EOI_EN: "end of interrupt",
}
"""What KVM writes where each register says.  Ref: Linux, virt/kvm/x86/msr.rst.

The first is the one that was seen to differ: QEMU loads a guest's registers at its destination, and
KVM writes the wall clock anew as that one is written.
"""


@dataclass(frozen=True, slots=True)
class GuestMemory:
    """The memory of *instance*, one stretch of its process from *address* on, *size* bytes.

    The first *below* bytes of it are the guest's from 0 on, the others from 4 GiB on.
    """

    instance: Instance
    address: int
    size: int
    below: int

    @classmethod
    def of(cls, instance: Instance) -> GuestMemory:
        """Ask QEMU where it is.  Raises MigrationError if it does not tell."""
        size = instance.spec.memory_mib << 20
        address = _host_address(instance, 0)
        if size <= 2 << 30:  # less than any machine keeps below the hole
            return cls(instance, address, size, below=size)
        try:
            below = _host_address(instance, ABOVE) - address
        except MigrationError:  # nothing is there: all of it is below
            below = size
        return cls(instance, address, size, below)

    @property
    def pages(self) -> int:
        return self.size // PAGE

    def page_frame(self, page: int) -> int:
        """The guest's own number of *page*, which counts from the beginning of its memory."""
        at = page * PAGE
        return page if at < self.below else (at - self.below + ABOVE) // PAGE

    @property
    def _where(self) -> dict[str, Any]:
        """As ``harness.agent.process_memory`` has it."""
        if self.instance.place.shared_memory:
            return {"name": MEMORY}
        return {"address": self.address, "size": self.size}

    def host_address(self, page_frame: int) -> int:
        """Where the process has that page of the guest."""
        at = page_frame * PAGE
        return self.address + (at if at < self.below else at - ABOVE + self.below)

    def has(self, page_frame: int) -> bool:
        """Whether that number of the guest's is a page of memory."""
        at = page_frame * PAGE
        return 0 <= at < self.below or ABOVE <= at < ABOVE + self.size - self.below

    def read(self, address: int, size: int) -> bytes:
        """Read the guest's memory at its *address*; 64 KiB at most, below the hole or above it."""
        at = self.host_address(address // PAGE) + address % PAGE
        host, pid = self.instance.host, self.instance.pid
        return bytes.fromhex(host.ask("memory.read", pid=pid, address=at, size=size))

    def digest_pages(self, page_frames: Sequence[int]) -> list[int]:
        """A number for each of those pages."""
        host, pid = self.instance.host, self.instance.pid
        places = [self.host_address(each) for each in page_frames]
        return list(host.ask("memory.digest_pages", pid=pid, addresses=places))

    def newest_frame(self, flow: int) -> int | None:
        """The highest number of a frame of *flow* that is in it; None without any."""
        host, pid = self.instance.host, self.instance.pid
        found = host.ask("memory.newest_frame", seconds=120, pid=pid, flow=flow, **self._where)
        return None if found["newest"] is None else int(found["newest"])

    def digest(self, name: str, *, seconds: float) -> Digested:
        """Have its host digest each page; see ``harness.agent.memory_digest``."""
        host, pid = self.instance.host, self.instance.pid
        where = self._where
        path = host.scratch(f"memory-{pid}.digests")
        return Digested(
            path=path,
            **host.ask("memory.digest", seconds=seconds, pid=pid, path=path, digest=name, **where),
        )


@dataclass(frozen=True, slots=True)
class Digested:
    """A file of digests on the host, one for each of *pages*; made in *seconds*.

    Of *untouched* pages its process has none: they are zeroes.
    """

    path: str
    pages: int
    untouched: int
    seconds: float


def digest_speeds(host: Host) -> dict[str, float]:
    """How many bytes a second a host digests, by the digest's name."""
    return dict(host.ask("memory.speeds"))


def hypervisor_pages(guest: GuestMachine) -> Mapping[int, str]:
    """The guest's page frames that KVM writes by itself, with what it has there.

    Empty in a guest that lends it none, as one without KVM.
    """
    owners: dict[int, str] = {}
    for register, owner in OWNERS.items():
        for processor, value in enumerate(guest.host.ask("msr.read", register=register)):
            if value and (value & MsrFlag.ENABLED or register is Msr.WALL_CLOCK_NEW):
                page = value // PAGE
                name = f"{owner} of processor {processor}"
                owners[page] = f"{owners[page]}, {name}" if page in owners else name
    return owners


def _host_address(instance: Instance, address: int) -> int:
    """Ref: QEMU, HMP ``gpa2hva``: Host virtual address for 0x0 (ram) is 0x7f0c5be00000."""
    command = {"command-line": f"gpa2hva {address:#x}"}
    said = str(instance.qmp.execute("human-monitor-command", command)).strip()
    try:
        return int(said.rpartition(" is ")[2], 16)
    except ValueError:
        raise MigrationError(
            f"{instance.host.name}: QEMU does not tell where it has the guest's memory",
            because=f"asked for {address:#x} it says: {said or 'nothing'}",
            fix="see whether this QEMU knows gpa2hva",
        ) from None
