"""The recorder ``observer``: when Bus Master Enable (BME) of one VF changed, seen from its host.

And when the registers of capabilities did that somebody described.

Spec::

    host, vf     names for the record; vf is a PCI address ("0000:01:10.0")
    path         where the record goes, one JSON line for each change, for the first and the last
                 sample, and for each that came more than ``bme.HOLE_NS`` after the one before
    qemu_pid     the process that owns the VF, or will; without it only sysfs is read
    rate_per_s   how often COMMAND is sampled (500), once somebody has opened the VF
    on_release   what to do when BME first falls, or the VF goes: a list of actions
    on_master    ... when BME first rises
    capabilities what else is read along with COMMAND, and each change of it written: a list of
                 {"name", "offset", "length"}; see ``registers`` for their lines

An action ``{"name", "port", "vf_index", "mac"}`` gives a VF of a port that MAC filter at once; with
a name alone it only notes the moment.  Each is an event in the summary.  So, among its *states*, is
each change of the VF's migration state, where the kernel offers migration and the owner's
descriptor is borrowed: while BME is set.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO

from harness.agent.bme import HOLE_NS, LOOK_EVERY_NS, CommandRegister, Sample, SysfsConfig
from harness.agent.device import VfioDevice
from harness.agent.errors import AgentError
from harness.agent.registers import Registers
from harness.agent.vf_filter import PortFilters
from harness.agent.vfio_owner import SYSFS, Owner
from harness.uapi.vfio import state_name

if TYPE_CHECKING:
    from harness.agent.channel import Channel

_NS_PER_S = 1_000_000_000


@dataclass(frozen=True)
class Spec:
    """What the recorder is asked to do; see the module."""

    host: str
    vf: str
    path: str
    qemu_pid: int | None = None
    rate_per_s: float = 500
    on_release: list[dict[str, Any]] = field(default_factory=list)
    on_master: list[dict[str, Any]] = field(default_factory=list)
    capabilities: list[dict[str, Any]] = field(default_factory=list)

    @classmethod
    def parse(cls, spec: dict[str, Any]) -> Spec:
        """Check the names.  Raises AgentError if one is missing or unknown."""
        try:
            return cls(**spec)
        except TypeError as error:
            raise AgentError(
                f"the observer cannot use its spec: {error}",
                because="controller and agent are of different versions",
                fix="run the agent that the controller sends",
            ) from error


class Action:
    """What is to be done the moment BME changes; whatever takes time is done beforehand."""

    def __init__(self, spec: dict[str, Any], stack: ExitStack) -> None:
        self._name: str = spec["name"]
        self._data = {key: value for key, value in spec.items() if key != "name"}
        self._filters = None
        if "port" in spec:
            self._filters = stack.enter_context(PortFilters(spec["port"]))

    def run(self, seen_ns: int) -> dict[str, Any]:
        """Act, and return the event; its time is when it was done.

        A refusal is part of the event (``error``): what is observed goes on all the same.  The
        event has a ``note`` where a filter that was to be cleared was empty already.
        """
        if self._filters is None:
            return {"t_ns": seen_ns, "name": self._name, "data": self._data}
        data: dict[str, Any] = {**self._data, "seen_ns": seen_ns}
        before_ns = time.monotonic_ns()
        try:
            if note := self._filters.set_mac(self._data["vf_index"], self._data["mac"]):
                data["note"] = note
        except AgentError as error:
            data["error"] = error.as_dict()
        done_ns = time.monotonic_ns()
        data["took_ms"] = (done_ns - before_ns) / 1e6
        return {"t_ns": done_ns, "name": self._name, "data": data}


class Trigger:
    """The first fall and the first rise of BME, and what each sets off."""

    def __init__(self, bme: bool, on_release: list[Action], on_master: list[Action]) -> None:
        self._bme = bme
        self._waiting = {False: on_release, True: on_master}
        self.events: list[dict[str, Any]] = []

    def see(self, sample: Sample) -> None:
        """Act if BME changed."""
        if sample.bme != self._bme:
            self._bme = sample.bme
            for action in self._waiting.pop(sample.bme, []):
                self.events.append(action.run(sample.t_ns))


class States:
    """The migration states of a VF that were seen, each change an event; the first is one too."""

    def __init__(self, vf: str) -> None:
        self._vf = vf
        self._last: int | None = None
        self.events: list[dict[str, Any]] = []

    def see(self, sample: Sample, gap_ns: int) -> None:
        """Note a change, which came within *gap_ns*; a state that could not be read is none."""
        if sample.state is None or sample.state == self._last:
            return
        was = None if self._last is None else state_name(self._last)
        data = {"vf": self._vf, "was": was, "gap_ns": gap_ns}
        name = f"vfio state {state_name(sample.state)}"
        self.events.append({"t_ns": sample.t_ns, "name": name, "data": data})
        self._last = sample.state


class Record:
    """The file of changes, and what the summary says of the sampling itself."""

    def __init__(self, file: TextIO, host: str, vf: str, first: Sample) -> None:
        self._file = file
        self._names = {"host": host, "vf": vf}
        self._first = self._last = self._written = first
        self._last_ns = first.t_ns
        self._longest_gap_ns, self._longest_gap_t_ns = 0, first.t_ns
        self._via = {"vfio": 0, "sysfs": 0, first.via: 1}
        self._write(first, 0)

    def count(self, t_ns: int) -> int:
        """Count a sample at *t_ns*, which found nothing new; the time since the one before."""
        gap_ns = self._count(t_ns)
        if gap_ns > HOLE_NS:
            self._last = self._last._replace(t_ns=t_ns)
            self._write(self._last, gap_ns)
        return gap_ns

    def _count(self, t_ns: int) -> int:
        gap_ns = t_ns - self._last_ns
        if gap_ns > self._longest_gap_ns:
            self._longest_gap_ns, self._longest_gap_t_ns = gap_ns, t_ns
        self._last_ns = t_ns
        self._via[self._last.via] += 1
        return gap_ns

    def add(self, sample: Sample) -> int:
        """Count a sample; write it if the register or the way to it changed, or after a hole.

        Returns the time since the one before.
        """
        self._last, was = sample, self._written
        gap_ns = self._count(sample.t_ns)
        if (sample.command, sample.via) != (was.command, was.via) or gap_ns > HOLE_NS:
            self._write(sample, gap_ns)
        return gap_ns

    def close(self) -> dict[str, Any]:
        """Write the last sample, unless it is written; how the sampling went."""
        if self._last is not self._written:
            self._write(self._last, 0)
        samples = sum(self._via.values())
        seconds = (self._last.t_ns - self._first.t_ns) / _NS_PER_S
        return {
            "samples": samples,
            "rate_per_s": (samples - 1) / seconds if seconds else 0.0,
            "longest_gap_ms": self._longest_gap_ns / 1e6,
            "longest_gap_t_ns": self._longest_gap_t_ns,
            "via": self._via,
        }

    def _write(self, sample: Sample, gap_ns: int) -> None:
        """Write a line; *gap_ns* is the time since the sample before: a change came within it."""
        line = {"t_ns": sample.t_ns, "command": sample.command, "bme": sample.bme}
        self.write_line({**line, "via": sample.via, "gap_ns": gap_ns})
        self._written = sample

    def write_line(self, line: dict[str, Any]) -> None:
        """Write whatever was seen of the VF."""
        self._file.write(json.dumps({**self._names, **line}) + "\n")
        self._file.flush()


def main(spec: dict[str, Any], channel: Channel) -> dict[str, Any]:
    """Observe until the channel ends; see the module for the spec.

    The summary holds samples, rate_per_s, longest_gap_ms and when it ended (longest_gap_t_ns), via
    (samples by either way), cpu_seconds, events and states.  Raises AgentError if the VF, the
    process or a port is not there at the start.
    """
    wanted = Spec.parse(spec)
    with ExitStack() as stack:
        config = stack.enter_context(SysfsConfig(SYSFS / wanted.vf / "config"))
        borrow = None
        if wanted.qemu_pid is not None:
            owner = stack.enter_context(Owner(wanted.qemu_pid))
            borrow = partial(VfioDevice.borrow_from, owner, wanted.vf)
        register = stack.enter_context(CommandRegister(config, borrow))
        on_release = [Action(action, stack) for action in wanted.on_release]
        on_master = [Action(action, stack) for action in wanted.on_master]
        file = stack.enter_context(Path(wanted.path).open("w", encoding="utf-8"))

        cpu_before_s = time.process_time()
        first = register.sample()
        trigger = Trigger(first.bme, on_release, on_master)
        record, states = Record(file, wanted.host, wanted.vf, first), States(wanted.vf)
        states.see(first, 0)
        described = [Registers(record.write_line, **each) for each in wanted.capabilities]
        for each in described:
            each.check_there(config)
            each.look(register)
        channel.ready(via=first.via, command=first.command, bme=first.bme)
        sampling = paced(register, channel, record, described, first.t_ns, wanted.rate_per_s)
        for sample in sampling:
            trigger.see(sample)  # before the record: what it sets off must not wait for a disk
            states.see(sample, record.add(sample))
        cpu_seconds = time.process_time() - cpu_before_s
        seen = {"events": trigger.events, "states": states.events}
        return {**record.close(), "cpu_seconds": cpu_seconds, **seen}


def paced(
    register: CommandRegister,
    channel: Channel,
    record: Record,
    described: Sequence[Registers],
    start_ns: int,
    rate_per_s: float,
) -> Iterator[Sample]:
    """Sample at an even pace until the channel ends, and once more then.

    What is as it was is counted in *record* and not yielded.  Whatever else is *described* is
    looked at after COMMAND, and after what that has set off.

    A sample that comes more than a period late is followed by one at once, not by all it missed.
    While nobody has opened the VF yet it is looked at as often as that may change, no more: on an
    emulated host, samples at the destination would slow down the unplug at the source.
    """
    period_ns = round(_NS_PER_S / rate_per_s)
    due_ns = start_ns + period_ns
    while not channel.wait(max(0, due_ns - time.monotonic_ns()) / _NS_PER_S):
        t_ns = register.unchanged_ns()
        if t_ns:
            record.count(t_ns)
        else:
            sample = register.sample()
            t_ns = sample.t_ns
            yield sample
        for each in described:
            each.look(register)
        next_ns = period_ns if register.was_opened else max(period_ns, LOOK_EVERY_NS)
        due_ns = max(due_ns + next_ns, t_ns)
    yield register.sample()
    for each in described:
        each.look(register)
