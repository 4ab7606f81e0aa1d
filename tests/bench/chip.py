"""The software 82599 of an emulated host: what it carries, and what its parts cost."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from pathlib import Path

from bench.migrating import moved
from bench.register_read import register_read
from bench.rows import Row
from bench.twin import carried
from harness.chip.physical_function import PhysicalFunction
from harness.guest.spec import GuestSpec
from harness.host.port import find_port, port_up
from harness.lab.use import ready
from harness.migration.handoff import Order
from harness.report.entry import migration_result
from harness.run.lab import Lab, taken
from harness.run.moving import MovingGuest, moving_guest
from harness.topology import Topology, find, load
from harness.traffic.flow import Flow
from harness.uapi.ixgbe_pf import Register

MIGRATIONS, MOST_TRIES, MOST_VFS = 10, 60, 63
MAC = bytes.fromhex("525400825810")
RATES = {64: (500, 1000, 2000, 3000, 4000), 9014: (100, 200, 300, 400, 500, 700, 1000)}
PHASES = ("unplug", "pre-copy", "stop", "resume", "replug")


def read_of_port() -> Row:
    """Time one read of a register of the port."""
    port = PhysicalFunction(number=0, mac=MAC, vfs=8, to_wire=lambda _: True)
    what = "one register read of the port, server and socket without a machine"
    return register_read(port, Register.LINKS, what)


def most_vfs(topology: Topology, say: Callable[[str], None]) -> Row:
    """As many VFs as ixgbe makes, enabled and gone again; the lab is started and ended here."""
    say(f"{MOST_VFS} VFs")
    assert topology.emulation is not None
    emulation = topology.emulation.model_copy(update={"vfs": MOST_VFS})
    wide = topology.model_copy(update={"emulation": emulation})
    with ready(wide, say) as (reached, image), taken(reached, image, say) as lab:
        name, host = next(iter(lab.hosts.items()))
        port_name, entry = next(iter(reached.hosts[name].ports.items()))
        port = find_port(host, port_name, entry)
        with port_up(port, mtu=reached.guest.mtu):
            enabled_s = _written_s(lambda: _set_vfs(port.device, host.write_text, MOST_VFS))
        gone_s = _written_s(lambda: _set_vfs(port.device, host.write_text, 0))  # of a port down
    return Row(
        f"{MOST_VFS} VFs of one port enabled, and gone again",
        f"{enabled_s:.1f} s, {gone_s:.1f} s",
        "-",
        "one write of sriov_numvfs each, by ixgbe on an emulated host, SSH included; the port is "
        "up for the first, and down for the second",
    )


def _set_vfs(device: str, write: Callable[[str, str], None], count: int) -> None:
    if count:
        write(f"{device}/sriov_drivers_autoprobe", "0")
    write(f"{device}/sriov_numvfs", str(count))
    if not count:
        write(f"{device}/sriov_drivers_autoprobe", "1")


def _written_s(write: Callable[[], None]) -> float:
    began = time.monotonic()
    write()
    return time.monotonic() - began


def carrying(guest: MovingGuest, lab: str, say: Callable[[str], None]) -> list[Row]:
    """The rates at which a nested guest of *lab* gets every frame through its VF."""
    return [
        carried(
            guest, frame_bytes, rates, say,
            what=f"through VF and nested guest, lab {lab}", should=_should(frame_bytes),
        )
        for frame_bytes, rates in RATES.items()
    ]  # fmt: skip


def _should(frame_bytes: int) -> str:
    reached = 2000 if frame_bytes == 64 else 500
    return f"{reached} a second, or what lab emulated-82576 reaches"


def as_second_opinion(kept: Path, say: Callable[[str], None]) -> list[Row]:
    """The same rates on the lab with QEMU's own port, in the same run."""
    topology = load(find("emulated-82576"))
    with (
        ready(topology, say) as (reached, image),
        taken(reached, image, say) as lab,
        moving_guest(lab, GuestSpec.of(topology.guest), kept, vfs=1) as guest,
    ):
        return carrying(guest, topology.name, say)


def handing_over(lab: Lab, guest: MovingGuest, kept: Path, say: Callable[[str], None]) -> list[Row]:
    """Migrations with the destination's filter set before QEMU opens the VF, and after RESUME."""
    felt: dict[Order, list[float]] = {order: [] for order in Order}
    by_phase: dict[Order, dict[str, list[float]]] = {
        order: {name: [] for name in PHASES} for order in Order
    }
    number = lost = 0
    while min(map(len, felt.values())) < MIGRATIONS and number < MOST_TRIES:
        order = list(Order)[number // 2 % 2]  # two of each in turn: both directions with both
        number += 1
        say(f"hand-off {order.value}, {len(felt[order]) + 1} of {MIGRATIONS}")
        flow = Flow(f"hand-off-{number}", "round-trip", 9014, 100, 970 + number % 20)
        conducted, is_lost, _ = moved(guest, flow, kept, order=order)
        lost += is_lost
        if conducted is None or is_lost:
            continue
        entry = migration_result(conducted.measured, lab.limits).migration
        if entry.flows[0].total_outage_ms is None:
            continue  # its end was not seen
        felt[order].append(entry.flows[0].total_outage_ms)
        for name in PHASES:
            in_phase = [each for each in entry.flows[0].outages if each.phase == name]
            length = sum((each.end_ms or 0.0) - each.start_ms for each in in_phase)
            by_phase[order][name].append(length)
    how = f"9014 bytes, 100 a second; {lost} of {number} lost their guest"
    return [_handed_over(order, felt[order], by_phase[order], how) for order in Order]


def _handed_over(
    order: Order, felt: list[float], by_phase: dict[str, list[float]], how: str
) -> Row:
    what = f"hand-off: destination's filter set {order.value}"
    if not felt:
        return Row(what, "no migration came to its end", "before is not worse", how)
    phases = ", ".join(f"{name} {statistics.median(each):.0f}" for name, each in by_phase.items())
    return Row(
        what,
        f"users were cut off {statistics.median(felt):.0f} ms in all: {phases}",
        "before is not worse",
        f"medians of {len(felt)} migrations, {how}",
    )
