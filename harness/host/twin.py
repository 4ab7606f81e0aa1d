"""The provider ``twin``: software 82599 VFs, each a program on the host; see ``harness.twin``."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from harness.agent.vf_filter import means_not_there
from harness.devices import I82599
from harness.errors import LabError, RemoteError, UsageError, WaitError
from harness.host.twin_control import TwinControl, TwinRefused
from harness.host.twin_port_side import TwinPortSide
from harness.host.vf import NO_MAC, Observed, Ring, Vf, note_not_there, words_for
from harness.remote import Host
from harness.topology import Capabilities, MacAddress
from harness.uapi.pci_regs import Command
from harness.waiting import wait_for


@dataclass(frozen=True, slots=True)
class Twin:
    """One twin, a ``Vf``; *folder* has its sockets and records, *tap* is its wire."""

    host: Host
    name: str
    folder: str
    tap: str
    control: TwinControl

    @classmethod
    def of(cls, vf: Vf | None) -> Twin:
        """Return *vf* as the twin that it is.  Raises UsageError if it is none."""
        if not isinstance(vf, Twin):
            raise UsageError(
                f"{words_for(vf)} is no twin",
                because="its host lends VFs of ports, or none",
                fix='mark the test `needs("twin")`',
            )
        return vf

    @property
    def device(self) -> Mapping[str, Any]:
        """QEMU connects to the twin's socket."""
        return {
            "driver": "vfio-user-pci",
            "socket": {"type": "unix", "path": f"{self.folder}/vf"},
        }

    @property
    def has_memory_enable(self) -> bool:
        """As VFIO would make one up for it."""
        return True

    @property
    def filter_survives_reset(self) -> bool:
        """Whether an 82599 keeps a VF's address in the port's filter over a reset of the VF."""
        return I82599.filter_survives_reset.value

    @property
    def needs_shared_memory(self) -> bool:
        """Its DMA goes straight into the guest's memory."""
        return True

    @property
    def port_side(self) -> TwinPortSide:
        return TwinPortSide(self)

    @property
    def accesses(self) -> int | None:
        """How many accesses it has made to the guest's memory; None if it keeps no log.

        Those count, too, that found the log full.
        """
        dma = self.control.ask("status")["dma"]
        return None if dma["records"] is None else int(dma["records"] + dma["dropped"])

    @property
    def clock_of(self) -> str:
        """The twin's log has the times of its host."""
        return self.host.name

    @property
    def log_position(self) -> int:
        """How many records its DMA log has.  Raises UsageError if it keeps none."""
        records = self.control.ask("status")["dma"]["records"]
        if records is None:
            raise UsageError(
                f"{self.host.name}: twin {self.name} keeps no DMA log",
                because=f"the topology says so, in [hosts.{self.host.name}.twin]",
                fix="leave dma_log = false out of it",
            )
        return int(records)

    def check_logged(self) -> None:
        """Raise UsageError unless its DMA is logged."""
        _ = self.log_position

    @property
    def cpu_s(self) -> float:
        """Processor time that its program has used."""
        return float(self.control.ask("status")["cpu_s"])

    def check_free(self) -> None:
        """Raise LabError if a guest has it already."""
        if self.control.ask("status")["client"]:
            raise LabError(
                f"{self.host.name}: twin {self.name} has a guest already",
                because="a twin is one VF: a second guest would take it from the first",
                fix="end the other guest first, or lend more twins",
            )

    def set_filter(self, mac: MacAddress) -> None:
        """Set the port's filter; the twin has the bridge of its host follow it at once.

        A function reset takes the address out of both, and the VF's own reset message puts it back,
        as ``ixgbe`` does it.  See ``Vf`` for a filter that is empty already.
        """
        try:
            self.control.ask("set_mac", mac=mac)
        except TwinRefused as refused:
            if not means_not_there(mac, refused.number):
                raise
            note_not_there(self)
        if mac != NO_MAC and not self.control.ask("status")["vf"]["enabled"]:
            self.control.ask("set_state", enabled=True)

    def misbehave(self, **faults: Any) -> None:
        """Be at fault from now on, in this way alone; good again without one.

        See ``harness.twin.control`` for the faults.
        """
        self.control.ask("misbehave", **faults)

    def wait_until_quiet(self, seconds: float) -> None:
        """Return once its driver has turned every receive queue off."""
        wait_for(
            f"{self.host.name}: the driver of twin {self.name} to stop its queues",
            lambda: self.control.ask("status")["vf"]["queues"],
            within=seconds,
            until=lambda queues: queues == 0,
            every_s=0.02,
            fix="see the guest's kernel log",
        )

    def set_tracked(self, on: bool) -> None:
        """Have all its writes go through QEMU, which marks their pages; or straight, unmarked."""
        self.control.ask("set_tracked", on=on)

    def take_off_the_wire(self) -> None:
        """No frame reaches it any more, not as a broadcast either, until it has a filter again."""
        self.set_filter(NO_MAC)
        self.control.ask("set_state", enabled=False)

    def announce(self, mac: MacAddress) -> None:
        """Tell the wire that *mac* is here now, as QEMU does for its own interfaces.

        Nobody does for a VF: until its guest sends by itself, switches send its frames to where it
        was.
        """
        self.control.ask("announce", mac=mac)

    def observe(
        self,
        *,
        qemu_pid: int,
        rate_per_s: int,
        path: str,
        on_release: str | None,
        capabilities: Capabilities,
    ) -> TwinObservation:
        """The device itself writes down its registers each time that they change.

        Of which *capabilities*, it was told when it was started.
        """
        del qemu_pid, rate_per_s, path, capabilities
        if on_release:
            self.control.ask("clear_filter_on_release", name=on_release)
        return TwinObservation(self, self.control.ask("now"))

    def is_master(self) -> bool:
        return bool(self.control.ask("status")["command"] & Command.MASTER)

    def wait_for_bme(self, *, seconds: float, fix: str) -> None:
        try:
            wait_for(
                f"{self.host.name}: the guest to take up twin {self.name}",
                self.is_master,
                within=seconds,
                every_s=0.05,
                fix=fix,
            )
        except WaitError as late:
            raise WaitError(
                late.what,
                because="Bus Master Enable, which its driver sets, is still clear",
                fix=fix,
            ) from None

    def receive_rings(self, *, qemu_pid: int) -> list[Ring]:
        del qemu_pid
        return [Ring(**each) for each in self.control.ask("receive_rings")]

    def set_master(self, on: bool, *, qemu_pid: int) -> None:
        del qemu_pid
        self.control.ask("set_bus_master", on=on)

    def master_unowned(self) -> None:
        self.control.ask("set_bus_master", on=True)

    def reset(self, *, qemu_pid: int) -> None:
        del qemu_pid
        self.control.ask("reset_function")

    def dma_log(self) -> bytes:
        """The file of its DMA log, as ``harness.twin.dma_log`` lays it out; its records only.

        Raises RemoteError if some of them are missing.
        """
        from harness.twin.dma_log import HEAD, RECORD

        path = f"{self.folder}/dma.log"
        count = self.log_position
        asked = ["head", "-c", str(HEAD.size + count * RECORD.size), path]
        part = f"{path}.part"
        self.host.run("sh", "-c", 'out=$1; shift; "$@" > "$out"', "sh", part, *asked)
        data = self.host.fetch(part)
        if len(data) < HEAD.size + count * RECORD.size:
            raise RemoteError(
                f"{self.host.name}: {path} of twin {self.name} has {len(data)} bytes",
                because=f"{count} accesses were logged, and that is not all of them",
                fix="see whether that host has room in the twin's folder",
            )
        return data


@dataclass(frozen=True, slots=True)
class TwinObservation:
    """What a twin wrote down of its registers; an ``Observation``."""

    twin: Twin
    began: Mapping[str, Any]

    def stop(self) -> Observed:
        ended = self.twin.control.ask("now")
        if lost := self.twin.control.ask("status")["not_noted"]:
            raise RemoteError(
                f"{self.twin.host.name}: twin {self.twin.name} could not note {lost} changes of "
                "its registers",
                because="without them nobody knows when it could master the bus",
                fix=f"make room on that host, for {self.twin.folder}",
            )
        text = self.twin.host.fetch(f"{self.twin.folder}/bme.jsonl").decode()
        changes = [json.loads(line) for line in text.splitlines()]
        seen = [
            *_lines_of(self.began),
            *(each for each in changes if self.began["t_ns"] < each["t_ns"] < ended["t_ns"]),
            {name: ended[name] for name in ("t_ns", "command")},
        ]
        names = {"host": self.twin.host.name, "vf": self.twin.name, "via": "device", "gap_ns": 0}
        observed = Observed.of(({**each, **names} for each in seen), {})
        for line in observed.lines:
            line["bme"] = bool(line["command"] & Command.MASTER)
        samples = len(observed.lines)
        released = self.twin.control.ask("released")
        observed.summary.update(samples=samples, via={"device": samples}, events=released)
        return observed


def _lines_of(now: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """What the twin says of itself now, as lines of its record."""
    t_ns = now["t_ns"]
    yield {"t_ns": t_ns, "command": now["command"]}
    for name, registers in now["registers"].items():
        yield {"t_ns": t_ns, "capability": name, "bytes": registers}
