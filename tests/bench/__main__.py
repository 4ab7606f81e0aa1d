"""Run every benchmark in turn and write docs/benchmarks.md."""

from __future__ import annotations

import shutil
import sys
import tempfile
import time
from pathlib import Path

from bench.chip import as_second_opinion, carrying, handing_over, most_vfs, read_of_port
from bench.daily import daily
from bench.known_outage import known_outages
from bench.looking import looking
from bench.observing import observing
from bench.rows import write_page
from bench.starting import demonstrating, starting
from bench.twin import twin
from harness.guest.spec import GuestSpec
from harness.lab.accelerator import ANSWER
from harness.lab.use import ready
from harness.run.lab import taken
from harness.run.moving import moving_guest
from harness.topology import find, load


def main() -> None:
    """Measure; the lab is started and ended here, so it must not be up."""
    began = time.monotonic()

    def say(text: str) -> None:
        print(f"{time.monotonic() - began:6.1f} s  {text}", file=sys.stderr, flush=True)

    topology = load(find("emulated"))
    kept = Path(tempfile.mkdtemp(prefix="vf-harness-bench-"))
    say(f"what is said to QEMU, and by it, goes to {kept} until this has come to its end")
    tables = {"Starting": [*demonstrating(topology, say), *starting(topology, say)]}
    with (
        ready(topology, say) as (reached, image),
        taken(reached, image, say) as lab,
        moving_guest(lab, GuestSpec.of(topology.guest), kept, vfs=1) as guest,
    ):
        tables["The software 82599"] = [
            read_of_port(), *carrying(guest, topology.name, say),
            *handing_over(lab, guest, kept, say),
        ]  # fmt: skip
        tables["A known outage"] = known_outages(reached, guest, say)
        tables["The observer"] = observing(reached, guest, kept, say)
        tables["Memory and clocks"] = looking(lab, guest, kept, say)
    tables["The software 82599"] += [most_vfs(topology, say), *as_second_opinion(kept, say)]
    tables["The twin"] = [*daily(say), *twin(load(find("twin")), kept, say)]
    print(write_page(tables, ANSWER.read_text()))
    shutil.rmtree(kept)  # not after an error: it is what is left to read then


if __name__ == "__main__":
    main()
