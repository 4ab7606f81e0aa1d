"""The hosts of a lab are emulated machines: each is a QEMU with an SR-IOV port and sshd."""

from __future__ import annotations

import os
import socket
from contextlib import ExitStack
from pathlib import Path

from harness.errors import LabError
from harness.lab.accelerator import accelerator
from harness.lab.card import Card
from harness.lab.first_login import log_in_first
from harness.lab.image import Image
from harness.lab.keys import CLIENT, known_hosts
from harness.lab.machine import BOOT_SECONDS, Cables, Machine, MachineSpec
from harness.lab.probe import FIRST, Ways, keep_ways, kept_ways, next_ways
from harness.lab.processes import chips_of, end_machines, machines_of
from harness.lab.tree import Progress
from harness.lab.wire import Wire
from harness.topology import Emulation, Topology
from harness.waiting import Deadline


class MachineHosts:
    """The hosts of *topology* are emulated machines; *run* is the lab's folder."""

    def __init__(self, topology: Topology, emulation: Emulation, run: Path) -> None:
        self._topology = topology
        self._emulation = emulation
        self._run = run

    @property
    def running(self) -> tuple[str, ...]:
        """The names of the hosts whose QEMU runs."""
        return tuple(machines_of(self._topology.name, tuple(self._topology.hosts)))

    @property
    def whole(self) -> bool:
        """Say whether the QEMU of every host runs, and the chip of every host that has a chip."""
        lab, hosts = self._topology.name, tuple(self._topology.hosts)
        with_chip = {name for name in hosts if self._card(name, FIRST).is_software_chip}
        return set(self.running) == set(hosts) and with_chip <= set(chips_of(lab, hosts))

    def check(self) -> None:
        """Raise LabError if a TCP port of this machine that leads to a host is in use.

        Running hosts are no error, since a start ends them first.
        """
        if self.running:
            return  # a start ends these hosts first, which frees their TCP ports
        for name, host in self._topology.hosts.items():
            with socket.socket() as attempt:
                attempt.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                try:
                    attempt.bind(("127.0.0.1", host.port))
                except OSError as taken:
                    raise LabError(
                        f"this machine: TCP port {host.port}, which leads to {name}, cannot be had",
                        because=taken.strerror or str(taken),
                        fix="end the program that uses the TCP port (`ss -ltnp`), or change the "
                        f"port of {name} in {self._topology.file}",
                    ) from None

    def start(self, built: Image, wire: Wire, progress: Progress, *, dies_with_us: bool) -> None:
        """Start all hosts, and return when each host's sshd answers and its ports have interfaces.

        The hosts resume from saved states; without saved states, the hosts boot and their states
        are saved for the next start.  The first hosts that an image boots try the ways of the
        software chip (``harness.lab.probe``).  Raises UnsupportedQemu if QEMU takes none of them.
        """
        self._write_known_hosts(built)
        fast = accelerator(built, progress)
        is_tried = not self._emulation.chip_fails
        ways = kept_ways(built.folder) if is_tried else None
        if ways or not self._has_chip:
            self._start(built, fast, ways or FIRST, wire, progress, dies_with_us)
            return
        ways = FIRST
        while True:
            self._start(built, fast, ways, wire, progress, dies_with_us)
            progress("trying whether the port can make VFs")
            others = next_ways(ways, self.reached(built))
            if others == ways:
                if is_tried:
                    keep_ways(built.folder, ways)
                return
            progress(f"QEMU does not take {_first_change(ways, others)}; trying another way")
            self.end()
            ways = others

    def _start(
        self, built: Image, fast: str, ways: Ways, wire: Wire, progress: Progress, dies: bool
    ) -> None:
        machines = [
            Machine(self._spec(number, name, fast, ways), built, self._run)
            for number, name in enumerate(self._topology.hosts, start=1)
        ]
        resumed = all(machine.state.exists() for machine in machines)
        _start(machines, wire, progress, resume=resumed, dies_with_us=dies)
        log_in_first(self.reached(built), resumed=resumed)

    @property
    def _has_chip(self) -> bool:
        return any(self._card(name, FIRST).is_software_chip for name in self._topology.hosts)

    def end(self) -> None:
        """End the QEMU and the chip of every host."""
        end_machines(self._topology.name, tuple(self._topology.hosts))

    def reached(self, built: Image) -> Topology:
        """Return the topology with the client key and the known_hosts file of the hosts."""
        ways = {"identity": built.keys / CLIENT, "known_hosts": self._run / "known_hosts"}
        hosts = {name: host.model_copy(update=ways) for name, host in self._topology.hosts.items()}
        return self._topology.model_copy(update={"hosts": hosts})

    def _spec(self, number: int, name: str, fast: str, ways: Ways) -> MachineSpec:
        return MachineSpec(
            lab=self._topology.name,
            host=name,
            number=number,
            memory_mib=self._emulation.host_memory_mib,
            cpus=self._emulation.host_cpus,
            accelerator=fast,
            card=self._card(name, ways),
            forwards=((self._topology.hosts[name].port, 22),),
        )

    def _card(self, name: str, ways: Ways) -> Card:
        ports = self._topology.hosts[name].ports
        device = next(iter(ports.values())).device
        emulation = self._emulation
        count = max(emulation.ports, len(ports))
        return Card(device, count, emulation.vfs, ways, emulation.chip_fails)

    def _write_known_hosts(self, built: Image) -> None:
        """Write the host keys, which each host must show at login, to the lab's folder."""
        hosts = self._topology.hosts.items()
        addresses = {name: f"[{host.address}]:{host.port}" for name, host in hosts}
        (self._run / "known_hosts").write_text(known_hosts(built.keys, addresses))


def _first_change(ways: Ways, others: Ways) -> str:
    return ways.disguise if ways.disguise != others.disguise else ways.placing


def _start(
    machines: list[Machine], wire: Wire, progress: Progress, *, resume: bool, dies_with_us: bool
) -> None:
    names = " and ".join(machine.spec.host for machine in machines)
    fast = machines[0].spec.accelerator
    progress(f"{'resuming' if resume else 'booting'} {names} ({fast})")
    deadline = Deadline(BOOT_SECONDS)
    with ExitStack() as ours:
        ends = [ours.enter_context(end) for end in socket.socketpair(type=socket.SOCK_DGRAM)]
        for machine, end in zip(machines, ends, strict=True):
            cables = Cables(_taps(machine.spec, wire, ours), end.fileno())
            machine.start(cables, deadline, resume=resume, dies_with_us=dies_with_us)
    for machine in machines:
        if resume:
            machine.resume(deadline)
    for machine in machines:
        machine.wait_for_ssh(deadline)
    if not resume:
        progress(f"saving the state of {names} for the next start")
        # The hosts are saved at the same time, since that takes a processor each: QEMU looks at
        # every page, and a page of shared memory that the host never touched costs a page fault.
        for machine in machines:
            machine.begin_save(deadline)
        for machine in machines:
            machine.finish_save(deadline)


def _taps(spec: MachineSpec, wire: Wire, ours: ExitStack) -> tuple[int, ...]:
    """Return a new tap on the wire for each port of a machine; *ours* closes the taps."""
    taps = []
    for port in range(spec.card.ports):
        name = spec.host if not port else f"{spec.host}-{port}"
        taps.append(wire.tap(name, vnet_header=not spec.card.is_software_chip))
        ours.callback(os.close, taps[-1])
    return tuple(taps)
