"""Run the benchmarks, or the parts of them that are named, and write docs/benchmarks.md.

Each part starts the lab that it needs and ends it, so none may be up.  Its table is written as soon
as it is there: a part that fails ends the run, and the tables before it stay.
"""

from __future__ import annotations

import argparse
import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

from fuzz.chip_server import fuzz

from bench.chip import as_second_opinion, carrying, handing_over, most_vfs, read_of_port
from bench.daily import daily
from bench.dma_log import log_cost
from bench.fuzzed import fuzzed
from bench.kicked import kicked
from bench.known_outage import known_outages
from bench.looking import looking
from bench.losing import losing
from bench.observing import observing
from bench.rows import PAGE, Row, write_table
from bench.starting import demonstrating, starting
from bench.twin import twin
from harness.guest.spec import GuestSpec
from harness.lab import emulated
from harness.lab.chip_vf import chip_vf
from harness.lab.use import ready
from harness.run.lab import Lab, taken
from harness.run.moving import MovingGuest, moving_guest
from harness.topology import Topology, find, load

Say = Callable[[str], None]


def main() -> None:
    """Measure part by part."""
    parser = argparse.ArgumentParser(prog="bench", description=__doc__)
    parser.add_argument("parts", nargs="*", help=f"of {', '.join(PARTS)}; all without any")
    asked = parser.parse_args().parts or list(PARTS)
    if unknown := [each for each in asked if each not in PARTS]:
        parser.error(f"there is no part {unknown[0]!r}")
    if up := [lab for lab in LABS if emulated.status(load(find(lab))).is_up]:
        parser.error(f"lab {up[0]!r} is up; `vf-harness lab down --lab {up[0]}` ends it")
    began = time.monotonic()

    def say(text: str) -> None:
        print(f"{time.monotonic() - began:6.1f} s  {text}", file=sys.stderr, flush=True)

    kept = Path(tempfile.mkdtemp(prefix="vf-harness-bench-"))
    say(f"what is said to QEMU, and by it, goes to {kept} until this has come to its end")
    for part in asked:
        heading, measure = PARTS[part]
        write_table(heading, measure(kept, say))
    print(PAGE)
    shutil.rmtree(kept)  # not after an error: it is what is left to read then


def _starting(_: Path, say: Say) -> list[Row]:
    topology = load(find("emulated"))
    return [*starting(topology, say), *demonstrating(topology, say)]


def _chip(kept: Path, say: Say) -> list[Row]:
    rows = [read_of_port(), fuzzed("port and VFs at once", "chip_server.py", fuzz, say)]
    with _guest_of("emulated", kept, say) as (lab, guest):
        rows += carrying(guest, "emulated", say)
        rows.append(log_cost(guest, lab.device(guest.instance.vf), "chip", 200, say))
    return [*rows, most_vfs(load(find("emulated")), say), *as_second_opinion(kept, say)]


def _hand_off(kept: Path, say: Say) -> list[Row]:
    with _guest_of("emulated", kept, say) as (lab, guest):
        return handing_over(lab, guest, kept, say)


def _outages(kept: Path, say: Say) -> list[Row]:
    with _guest_of("emulated", kept, say) as (lab, guest):
        return known_outages(lab.topology, guest, say)


def _observer(kept: Path, say: Say) -> list[Row]:
    with _guest_of("emulated", kept, say) as (lab, guest):
        return observing(lab.topology, guest, kept, say)


def _losing(name: str, kept: Path, say: Say) -> list[Row]:
    with _guest_of(name, kept, say) as (lab, guest):
        return losing(lab, guest, kept, say)


def _looking(kept: Path, say: Say) -> list[Row]:
    with _guest_of("emulated", kept, say) as (lab, guest):
        return looking(lab, guest, kept, say)


def _twin(kept: Path, say: Say) -> list[Row]:
    return [*daily(say), *twin(load(find("twin")), kept, say)]


PARTS: dict[str, tuple[str, Callable[[Path, Say], list[Row]]]] = {
    "starting": ("Starting", _starting),
    "chip": ("The software 82599", _chip),
    "hand-off": ("The order of the hand-off", _hand_off),
    "outage": ("A known outage", _outages),
    "observer": ("The observer", _observer),
    "memory": ("Memory and clocks", _looking),
    "twin": ("The twin", _twin),
    "losing": ("Guests lost, 82599", partial(_losing, "emulated")),
    "losing-82576": ("Guests lost, 82576", partial(_losing, "emulated-82576")),
    "kicked": ("Guests lost, and what KVM and TCG can be told", kicked),
}
"""Each part's name, the heading of its table, and what measures it."""

LABS = ("emulated", "emulated-82576", "twin")
"""The labs that parts start as they need them."""


@contextmanager
def _guest_of(name: str, kept: Path, say: Say) -> Iterator[tuple[Lab, MovingGuest]]:
    topology: Topology = load(find(name))
    with (
        ready(topology, say) as (reached, image),
        taken(reached, image, say, partial(chip_vf, topology)) as lab,
        moving_guest(lab, GuestSpec.of(topology.guest), kept, vfs=1) as guest,
    ):
        yield lab, guest


if __name__ == "__main__":
    main()
