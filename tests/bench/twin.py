"""The twin: what it carries, what a register costs, and what its migrations come to."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Sequence
from pathlib import Path

from fuzz.twin_server import fuzz

from bench.dma_log import log_cost
from bench.fuzzed import fuzzed
from bench.register_read import register_read
from bench.rows import Row
from harness.analysis.measured import DIGESTED, MEMORY_COMPARED
from harness.guest.spec import GuestSpec
from harness.lab.use import ready
from harness.migration.experiment import Conducted
from harness.migration.plan import Plan, Quiesce, When
from harness.migration.raw import Raw
from harness.migration.scheme import Scheme
from harness.migration.schemes.failover import Failover
from harness.migration.schemes.inplace import InPlace
from harness.report.entry import migration_result
from harness.run.lab import Lab, taken
from harness.run.moving import MovingGuest, moving_guest
from harness.topology import Topology
from harness.traffic.flow import Flow
from harness.twin.device import Device
from harness.twin.port import Port
from harness.uapi.ixgbe_vf import Register

RATES = {
    64: (2000, 4000, 5000, 6000, 7000, 8000, 10_000),
    9014: (500, 1000, 1500, 2000, 2500, 3000, 4000),
}
RATE_SECONDS, TRIES = 5.0, 2
MIGRATIONS = 3


def twin(topology: Topology, kept: Path, say: Callable[[str], None]) -> list[Row]:
    """Measure on a lab of twins, which is started and ended here."""
    device = Device(port=Port(), send=lambda _: True)
    what = "one register read, server and socket without a guest"
    rows = [
        register_read(device, Register.VFLINKS, what),
        fuzzed("the twin's server", "twin_server.py", fuzz, say),
    ]
    with ready(topology, say) as (reached, image), taken(reached, image, say) as lab:
        with moving_guest(lab, _spec(topology, standby=False), kept, vfs=1) as guest:
            rows += [
                carried(guest, frame_bytes, rates, say, what="through twin and guest",
                        should="5000 a second" if frame_bytes == 64 else "500 a second")
                for frame_bytes, rates in RATES.items()
            ]  # fmt: skip
            rows.append(log_cost(guest, guest.twin, "twin", 1500, say))
        rows += [_moved(lab, scheme, kept, say) for scheme in (Failover(), ASLEEP)]
    return rows


ASLEEP = InPlace(Plan(Quiesce.ACPI_SUSPEND, When.BEFORE))


def _spec(topology: Topology, *, standby: bool) -> GuestSpec:
    return GuestSpec.of(topology.guest, standby=standby)


def carried(
    guest: MovingGuest,
    frame_bytes: int,
    rates: Sequence[int],
    say: Callable[[str], None],
    *,
    what: str,
    should: str,
) -> Row:
    """The highest of the rates at which every round trip came back, up to the first that lost."""
    whole = 0
    for rate_pps in rates:
        say(f"{rate_pps} round trips a second of {frame_bytes} bytes")
        if not any(_all_came_back(guest, frame_bytes, rate_pps) for _ in range(TRIES)):
            break
        whole = rate_pps
    return Row(
        f"round trips of {frame_bytes} bytes {what}, none lost",
        f"{whole} a second",
        should,
        f"{RATE_SECONDS:g} s each of {', '.join(map(str, rates))} a second, up to the first that "
        f"lost one in each of {TRIES} tries",
    )


def _all_came_back(guest: MovingGuest, frame_bytes: int, rate_pps: int) -> bool:
    flow = Flow(f"carried-{rate_pps}", "round-trip", frame_bytes, rate_pps, 900)
    records = guest.stay(flow, RATE_SECONDS)
    return records.receiver.received == records.sender.sent and not records.sender.unsent


def _moved(lab: Lab, scheme: Scheme, kept: Path, say: Callable[[str], None]) -> Row:
    """Migrations of one scheme: what users felt, what QEMU says, and pages lost."""
    compares = scheme.always_compares
    felt, said, compared, lost = [], [], [], 0
    for number in range(MIGRATIONS):
        say(f"{scheme.name}, {number + 1} of {MIGRATIONS}")
        flow = Flow(f"{scheme.name}-{number}", "round-trip", 9014, 300, 930 + number)
        spec = _spec(lab.topology, standby=scheme.vf == "replaced")
        with moving_guest(lab, spec, kept, vfs=1) as guest:
            raw = Raw()
            conducted = guest.migrate([flow], raw, by=scheme)
        raw.write(kept)
        entry = migration_result(conducted.measured, lab.limits).migration
        felt.append(entry.flows[0].longest_outage_ms or float("inf"))
        said.append(entry.qemu.downtime_ms or 0.0)
        compared += _data(conducted, DIGESTED, "took_ms")
        lost += int(sum(_data(conducted, MEMORY_COMPARED, "differ")))
    pages = ""
    if compares:
        pages = f", {statistics.median(compared):.0f} ms was for comparing; {lost} pages lost"
    return Row(
        f"`{scheme.name}` under 9014-byte round trips, 512 MiB",
        f"users felt {statistics.median(felt):.0f} ms, QEMU says {statistics.median(said):.0f} ms"
        + pages,
        "every flow back" + (", no page lost" if compares else ""),
        f"medians of {MIGRATIONS}" + (", suspended to RAM by ACPI meanwhile" if compares else ""),
    )


def _data(conducted: Conducted, name: str, key: str) -> list[float]:
    """What each event of that name says."""
    return [each.data[key] for each in conducted.measured.events if each.name == name]
