"""What records a migration by itself on each machine, and what it leaves behind."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import Any

import pandas as pd

from harness.analysis.memory import read_log, since
from harness.guest.instance import Instance
from harness.guest.machine import GuestMachine
from harness.guest.own_vf import OwnVf
from harness.host.software_vf import Logged
from harness.host.vf import Observation
from harness.migration.handoff import CLEARED, HandOff
from harness.migration.registers import RegisterChange, changes
from harness.remote.transport import DeadlineError, HostGoneError
from harness.topology import Capabilities


@dataclass(slots=True)
class Seen:
    """The records of one machine, in its own clocks; filled when its recorders are stopped.

    *bme* and *links* are the lines of those recorders, *handoff* the events of the observer,
    *registers* what else it saw change and *states* the VF's migration states, *kernel_log* the
    text of the kernel's log with *faults*, the lines that mean trouble.  *echoes* is what the
    guest's kernel counted meanwhile, *echoes_ns* our monotonic time when it was asked.  *dma* has
    the accesses of a device that keeps a log (``harness.analysis.memory``), in the clock of
    *dma_clock*.
    """

    machine: str
    bme: list[dict[str, Any]] = field(default_factory=list)
    registers: list[RegisterChange] = field(default_factory=list)
    links: list[dict[str, Any]] = field(default_factory=list)
    handoff: list[dict[str, Any]] = field(default_factory=list)
    states: list[dict[str, Any]] = field(default_factory=list)
    observer: dict[str, Any] = field(default_factory=dict)
    kernel_log: str = ""
    kernel: dict[str, Any] = field(default_factory=dict)
    echoes: dict[str, int] = field(default_factory=dict)
    echoes_ns: int = 0
    dma: pd.DataFrame | None = None
    dma_clock: str = ""


@contextmanager
def watched(
    instance: Instance,
    hand_off: HandOff | None,
    bme_per_s: int,
    capabilities: Capabilities,
    own_vf: OwnVf | None = None,
    log: Logged | None = None,
) -> Iterator[Seen]:
    """Record the kernel log of the instance's host and, *bme_per_s* times a second, BME of its VF.

    The registers of *capabilities* are read along with it.  With 0 nobody observes it.  With
    *hand_off* the observer also clears the filter when the VF is released.  BME of *own_vf* is read
    before and after.  *log* is what the VF's device writes down itself; it is read at the end.
    """
    host = instance.host
    seen = Seen(host.name)
    kernel_path = host.scratch("kernel.log")
    bme_path = host.scratch("bme.jsonl")
    with ExitStack() as stopping:
        kernel = host.start("kernel-log", {"path": kernel_path})

        def stop_kernel() -> None:
            seen.kernel = kernel.stop()
            seen.kernel_log = host.fetch(kernel_path).decode(errors="replace")

        stopping.callback(stop_kernel)
        if log and (before := log.accesses) is not None:
            stopping.callback(_read_dma, log, before, seen)
        if bme_per_s and instance.vf:
            observer = instance.vf.observe(
                qemu_pid=instance.pid, rate_per_s=bme_per_s, path=bme_path,
                on_release=CLEARED if hand_off else None, capabilities=capabilities,
            )  # fmt: skip
            stopping.callback(_stop_observer, observer, capabilities, seen)
        elif bme_per_s and own_vf:
            stopping.callback(_stop_observer, own_vf.observe(instance), capabilities, seen)
        yield seen


def _read_dma(log: Logged, before: int, seen: Seen) -> None:
    seen.dma, seen.dma_clock = since(read_log(log.dma_log()), before), log.clock_of


def _stop_observer(observer: Observation, capabilities: Capabilities, seen: Seen) -> None:
    observed = observer.stop()
    seen.observer, seen.bme = dict(observed.summary), observed.lines
    seen.registers = list(changes(capabilities, observed.registers))
    seen.handoff = seen.observer.pop("events")
    seen.states = seen.observer.pop("states", [])  # of a VF that VFIO can migrate


@contextmanager
def links_watched(guest: GuestMachine) -> Iterator[Seen]:
    """Record every change of the guest's interfaces, and count the echo requests that it gets.

    Of a guest that is lost nothing is known.
    """
    seen = Seen(guest.name)
    path = guest.scratch("links.jsonl")
    before = guest.echoes()
    links = guest.start("links", {"path": path})
    try:
        yield seen
    finally:
        if not guest.lost:
            try:
                links.stop()
                seen.links = _lines(guest, path)
                seen.echoes_ns = time.monotonic_ns()
                seen.echoes = {name: n - before[name] for name, n in guest.echoes().items()}
            except (HostGoneError, DeadlineError) as silent:
                guest.lost = f"{silent.what}; {silent.because}"


def _lines(host: GuestMachine, path: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in host.fetch(path).splitlines()]
