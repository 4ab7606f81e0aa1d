"""Two made-up hosts migrate a guest between QEMUs that behave as real ones do over QMP."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, closing
from ipaddress import IPv4Interface
from pathlib import Path
from typing import TYPE_CHECKING, cast

import pytest
from made_up_host import ENTRY, INTERFACE, Machine, made_up_host, vf_address
from qmp_server import Monitor, connected

from harness.guest.instance import Instance
from harness.guest.qmp import Qmp
from harness.guest.spec import GuestSpec, Place
from harness.host.port import find_port
from harness.host.virtual_function import VirtualFunction
from harness.migration import move
from harness.migration.comparison import Comparison
from harness.migration.handoff import HandOff
from harness.migration.move import Fault, Moment, Move
from harness.migration.outcome import Outcome
from harness.migration.scheme import Scheme
from harness.migration.schemes.plain import Plain
from harness.topology import MacAddress, PciAddress

if TYPE_CHECKING:
    from harness.guest.machine import GuestMachine

MAC = MacAddress("52:54:00:12:34:56")
ADDRESS = ("198.19.0.2", 4444)
SPEC = GuestSpec(memory_mib=256, cpus=1, mac=MAC, address=IPv4Interface("198.18.0.2/24"), mtu=9000)
PLACE = Place(
    qemu="qemu-system-x86_64",
    accelerator="tcg",
    kernel="/vmlinuz",
    initramfs="/initramfs",
    folder="/run/vf-harness/guest",
    tap="vfh0-guest",
    vf=None,
    incoming=False,
)


class End:
    """An end of a migration is a host with a port, and a QEMU."""

    def __init__(self, name: str, state: str, folder: Path, stack: ExitStack) -> None:
        self.machine = Machine(folder / name)
        self.monitor = stack.enter_context(closing(Monitor(name, state=state)))
        self._qmp = stack.enter_context(closing(Qmp(name, self.monitor.near)))
        host = made_up_host(self.machine, name, folder=str(folder / f"{name}.d"))
        port = find_port(host, "p0", ENTRY.ports["p0"])
        host.write_text(f"{port.device}/sriov_numvfs", "1")
        self.vf = VirtualFunction(port, 0, PciAddress(vf_address(0)))
        self.instance = Instance(SPEC, self.vf, PLACE, host, 1, self._qmp)

    @property
    def asked(self) -> list[str]:
        return [command for command, _ in self.monitor.asked]


@pytest.fixture
def ends(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[End, End]]:
    """Yield source and destination with a cable between them; a migration has 3 s to end."""
    monkeypatch.setattr(move, "SECONDS_AT_LEAST", 3)
    monkeypatch.setattr(move, "SECONDS_PER_GUEST_GIB", 0)
    with ExitStack() as stack:
        source = End("alder", "running", tmp_path, stack)
        destination = End("birch", "inmigrate", tmp_path, stack)
        connected(source.monitor, destination.monitor)
        yield source, destination


def move_between(
    ends: tuple[End, End],
    hand_off: HandOff | None = None,
    comparison: Comparison | None = None,
    faults: Mapping[Moment, Fault] | None = None,
) -> Move:
    """Make the move of a guest from one end to the other; nobody asks the guest itself."""
    source, destination = (end.instance for end in ends)
    guest = cast("GuestMachine", None)
    return Move(source, destination, ADDRESS, guest, hand_off, comparison, faults or {})


def migrated(
    ends: tuple[End, End], way: Scheme | None = None, hand_off: HandOff | None = None
) -> Outcome:
    return (way or Plain()).migrate(move_between(ends, hand_off))


def gets_stuck(end: End, *, until_cancelled: Callable[[], None]) -> None:
    """Let a migration from this end wait for its guest's VF until it is cancelled."""
    monitor = end.monitor
    monitor.reacts["migrate"] = lambda _: monitor.then.append(lambda: monitor.step("wait-unplug"))
    monitor.reacts["migrate_cancel"] = lambda _: monitor.then.append(until_cancelled)


def filters_set(end: End) -> list[str]:
    """List the addresses that the filter of this end's VF was given."""
    prefix = f"ip link set dev {INTERFACE} vf 0 mac "
    return [each.removeprefix(prefix) for each in end.machine.changes if each.startswith(prefix)]
