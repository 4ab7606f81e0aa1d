"""results.json, schema 2: the checked model and its JSON Schema; `reading` reads older files too.

``t_ms`` and every other ``_ms`` moment count from when ``migrate`` was asked for, in the peer's
clock.  ``frame_bytes`` is the whole Ethernet frame without its checksum.

A new name with a default is added without a new number, and readers ignore the names that they do
not know.  The number changes when a reader of this schema would misread a file.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field

from harness.analysis.measured import Direction
from harness.analysis.verdict import Word

FILE = "results.json"
SCHEMA: Literal[2] = 2


class Model(BaseModel):
    """An object of results.json is frozen; a reader ignores names that it does not know."""

    model_config = ConfigDict(extra="ignore", frozen=True, populate_by_name=True)


class Outage(Model):
    """An outage of a flow; end_ms is null where nothing ever arrived again.

    phase       the phase in which the outage began
    candidates  every phase in which it may have begun by its error bar and the clocks, in order of
                time; null where nobody recorded that (schema 1)
    """

    start_ms: float
    end_ms: float | None
    lost: int
    phase: str
    candidates: tuple[str, ...] | None

    @property
    def length_ms(self) -> float | None:
        """None where it is open."""
        return None if self.end_ms is None else self.end_ms - self.start_ms


class Instrument(Model):
    """How good the harness itself was while it measured this flow.

    sender_notes  sentences of the sender on what was not as asked for
    """

    sender_late_max_ms: float
    receiver_dropped: int
    sender_notes: tuple[str, ...] = ()


class Flow(Model):
    """longest_outage_ms and total_outage_ms are null where the flow never came back.

    resolution_ms  each end of an outage is known to within this
    """

    name: str
    direction: Direction
    frame_bytes: int
    rate_pps: float
    sent: int
    received: int
    lost: int
    duplicated: int
    reordered: int
    corrupted: int
    resolution_ms: float
    longest_outage_ms: float | None
    total_outage_ms: float | None
    outages: list[Outage]
    instrument: Instrument


class Qemu(Model):
    """QEMU's own figures; null where it gave none."""

    downtime_ms: float | None
    total_ms: float | None
    setup_ms: float | None
    transferred_bytes: int | None
    passes: int | None


class Phase(Model):
    """One stretch of the migration; contiguous with the next.

    uncertainty_ms  start_ms is known to within this; null where nobody recorded that (schema 1)
    """

    name: str
    start_ms: float
    end_ms: float
    uncertainty_ms: float | None


class Bme(Model):
    """One sample of a VF's command register; 65535 says that no function answered."""

    t_ms: float
    host: str
    vf: str
    command: int
    bme: bool
    via: Literal["vfio", "sysfs", "device", "monitor"]


class TimelineEvent(Model):
    """Something seen, in the peer's clock, give or take uncertainty_ms."""

    t_ms: float
    uncertainty_ms: float
    source: str
    name: str
    data: dict[str, Any]


class Expected(Model):
    """A test expected this verdict, and that its reasons contain the texts of *because*."""

    verdict: Word
    because: tuple[str, ...]


class Migration(Model):
    """One migration of a guest.

    status       QEMU's word, or ``refused`` where QEMU would not begin
    verdict, reasons   what the migration came to, and of no pass why, a sentence each
    expected     what the test said that the migration is to come to; null where the test could not
                 say, where the migration was made again, and in a run of schema 1
    as_expected  whether the migration came to that; true where *expected* is null, but in a run of
                 schema 1 whether it passed
    qemu_reason  what QEMU gave as the reason of its status; null if nothing
    excerpt      the lines of the timeline that a broken order of DMA is about
    """

    scheme: str
    trigger: str | None
    source: str
    destination: str
    status: str
    verdict: Word
    reasons: tuple[str, ...]
    expected: Expected | None
    as_expected: bool
    qemu_reason: str | None
    qemu: Qemu
    flows: list[Flow]
    phases: list[Phase]
    bme: list[Bme]
    events: list[TimelineEvent]
    excerpt: tuple[str, ...] = ()

    @property
    def counts_as(self) -> Word:
        """The word with which the migration counts for its test; see `CaseResult`."""
        if self.as_expected:
            return "pass"
        return "fail" if self.verdict == "pass" else self.verdict


class Audit(Model):
    """One way to stop a VF; times are ms since the step was asked for, in the peer's clock.

    step_ms, looked_ms     how long the step took; the stretch in which the VF was looked at
    cleared_ms, set_again_ms   when BME was first seen clear, and set again after that; before 0
                           where it was clear already
    memory_cleared_ms      when Memory Enable was; own_memory_enable: whether it has that bit
    master, gone           whether it might do DMA while it was looked at, or was not there
    silent                 whether nothing came in then, by any sign
    sent, returned         frames sent meanwhile, and what came back meanwhile
    let_in                 frames that were sent and came back while BME was surely clear
    newest_ms              when the newest frame that is in the guest's memory was sent
    paused_ms              the longest stretch without a frame, from the step to the look's end
    pages_watched, pages_changed    those under the receive rings
    has_rings              whether the VF still had these; else they are those that it had before
    accesses               the device's own to memory meanwhile; null where it keeps no log
    back, back_ms          what gave the VF back ("no": nothing), and how long that took
    trouble                what went wrong as it was given back
    faults                 what no VF may do, and this one did
    """

    way: str
    trigger: str | None
    host: str
    vf: str
    driver: str
    uncertainty_ms: float
    step_ms: float
    looked_ms: tuple[float, float]
    bme: list[Bme]
    cleared_ms: float | None
    set_again_ms: float | None
    own_memory_enable: bool
    memory_cleared_ms: float | None
    master: bool
    gone: bool
    silent: bool
    sent: int
    returned: int
    let_in: int
    newest_ms: float
    paused_ms: float
    pages_watched: int
    pages_changed: int
    has_rings: bool
    accesses: int | None
    back: str
    back_ms: float | None
    trouble: str
    faults: list[str]


class CaseResult(Model):
    """One test.  *artifacts* is its folder within the run's.

    verdict  pass if all its migrations were as expected, else the worst verdict of the others; fail
             for one that passed and was not to.  Null: nothing was measured
    """

    nodeid: str
    outcome: str
    verdict: Word | None
    artifacts: str
    migrations: list[Migration]
    audits: list[Audit] = []


class Lab(Model):
    """Where the run took place; *topology* is the file that describes it."""

    name: str
    emulated: bool
    topology: str


class HostProvenance(Model):
    """What ran on one host; null where it has no such thing."""

    kernel: str | None
    qemu: str | None
    pf_driver: str | None
    pf_device: str | None
    firmware: str | None


class GuestProvenance(Model):
    """What ran in the guest: its kernel's release, and the driver under test as ethtool tells it.

    The driver is that of its VF; null for a guest without one.
    """

    kernel: str
    vf_driver: str | None


class Provenance(Model):
    """What exactly was running: the harness, each host by its name, and the guest.

    *guest* is null where none was booted; all guests of a run boot the same.
    """

    harness: str
    hosts: dict[str, HostProvenance]
    guest: GuestProvenance | None = None


class Results(Model):
    """A run leaves this object in its results.json, in schema 2.

    A reader ignores names that it does not know: a later harness may add a name with a default and
    keep the number.  The number changes when a reader would misread the file.
    """

    schema_version: Literal[2] = Field(default=SCHEMA, alias="schema")
    run: str
    started: AwareDatetime
    lab: Lab
    provenance: Provenance
    tests: list[CaseResult]


def results_schema() -> dict[str, Any]:
    """Give the JSON Schema of results.json."""
    return Results.model_json_schema(by_alias=True)


def write_results(results: Results, folder: Path) -> Path:
    """Write results.json into the run's *folder*, whole or not at all; returns its path."""
    path = folder / FILE
    new = path.with_suffix(".json.new")
    new.write_text(results.model_dump_json(by_alias=True, indent=1) + "\n")
    return new.replace(path)
