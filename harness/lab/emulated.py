"""The embedded lab as a whole: up, down, status.

Everything that ``up`` makes is named after the lab (processes, namespaces, a folder in /run), so
``down`` needs no record of it and clears what any earlier start left behind, whole or half.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import socket
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from harness.agent.serve import STATE
from harness.errors import LabBusy, LabError, UsageError
from harness.guest.spec import GuestImage
from harness.lab.accelerator import accelerator
from harness.lab.clocks import set_clock
from harness.lab.image import RUN, Image, guest_image, image, image_in
from harness.lab.keys import CLIENT, known_hosts
from harness.lab.machine import (
    BOOT_SECONDS,
    Cables,
    Machine,
    MachineSpec,
    end_machines,
    machines_of,
)
from harness.lab.tree import Progress, check_root
from harness.lab.wire import Wire
from harness.remote.connecting import FOLDER
from harness.topology import Emulation, PeerEntry, Topology
from harness.waiting import Deadline

IMAGE = "image"
"""In the lab's folder, a link to the image that it runs; its being there says that it is up."""


@dataclass(frozen=True, slots=True)
class Status:
    """What is there of a lab on this machine; all empty when it is down."""

    machines: tuple[str, ...]
    namespaces: tuple[str, ...]
    folder: Path | None
    whole: bool

    @property
    def is_up(self) -> bool:
        """Whether it came up and all its machines still run; else it is merely left over."""
        return self.whole and self.folder is not None and (self.folder / IMAGE).exists()


def up(topology: Topology, progress: Progress, *, dies_with_us: bool) -> Topology:
    """Start the emulated lab; what is returned says how its machines are reached.

    On any failure, Ctrl-C included, what was started is ended again.  With *dies_with_us* the
    machines end with this process even if it is killed.
    """
    emulation, peer = _emulated_parts(topology)
    _check_this_machine(topology)
    with _starting_alone(topology), ExitStack() as undo:
        down(topology)
        built = image(tuple(topology.hosts), progress)
        fast = accelerator(built, progress)
        undo.callback(down, topology)
        run = _run_folder(topology)
        run.mkdir(mode=0o700)
        wire = wire_of(topology)
        wire.make(peer.interface, str(peer.address), topology.guest.mtu)
        machines = [
            Machine(_spec(topology, emulation, number, name, fast), built, run)
            for number, name in enumerate(topology.hosts, start=1)
        ]
        resumed = all(machine.state.exists() for machine in machines)
        _start(machines, wire, progress, resume=resumed, dies_with_us=dies_with_us)
        _write_known_hosts(topology, built)
        if resumed:
            set_clock(_reached(topology, built.keys))
        (run / IMAGE).symlink_to(built.folder)
        undo.pop_all()
    return reached_topology(topology)


def down(topology: Topology) -> Status:
    """End everything that belongs to the lab on this machine; returns what there was."""
    was = status(topology)
    end_machines(topology.name, tuple(topology.hosts))
    wire = wire_of(topology)
    wire.remove()
    if was.folder:
        shutil.rmtree(was.folder)
    for agents in (FOLDER, STATE):  # the peer's, which was as much a machine as its namespace
        shutil.rmtree(Path(agents, wire.peer), ignore_errors=True)
    return was


def status(topology: Topology) -> Status:
    """What there is of the lab on this machine; changes nothing."""
    wire = wire_of(topology)
    folder = _run_folder(topology)
    running = machines_of(topology.name, tuple(topology.hosts))
    return Status(
        machines=tuple(running),
        namespaces=tuple(n for n in (wire.namespace, wire.peer) if Path("/run/netns", n).exists()),
        folder=folder if folder.exists() else None,
        whole=set(running) == set(topology.hosts),
    )


def reached_topology(topology: Topology) -> Topology:
    """*topology* with the key that logs in and the host keys of the lab that is up."""
    return _reached(topology, _run_folder(topology) / IMAGE / "keys")


def _reached(topology: Topology, keys: Path) -> Topology:
    ways = {"identity": keys / CLIENT, "known_hosts": _run_folder(topology) / "known_hosts"}
    hosts = {name: host.model_copy(update=ways) for name, host in topology.hosts.items()}
    return topology.model_copy(update={"hosts": hosts})


def running_image(topology: Topology) -> Image:
    """The image that the lab which is up runs."""
    return image_in((_run_folder(topology) / IMAGE).resolve())


def guest_of(topology: Topology) -> GuestImage:
    """The guest in the image of the lab that is up."""
    return guest_image(running_image(topology).folder)


def wire_of(topology: Topology) -> Wire:
    """The lab's wire, whether it is there or not."""
    emulation, peer = _emulated_parts(topology)
    return Wire(f"vfh-{topology.name}-wire", peer.namespace or "", emulation.wire_mtu)


def _emulated_parts(topology: Topology) -> tuple[Emulation, PeerEntry]:
    if topology.emulation is None or topology.peer is None or topology.peer.namespace is None:
        raise UsageError(
            f"lab {topology.name!r} is not an emulated one",
            because=f"{topology.file} lacks [emulation], or a [peer] with a namespace",
            fix="name a lab that has both, such as emulated",
        )
    return topology.emulation, topology.peer


def _check_this_machine(topology: Topology) -> None:
    """What no start can do without, before anything is touched."""
    check_root()
    if not Path("/dev/net/tun").exists():
        raise LabError(
            "this machine: there is no /dev/net/tun",
            because="the emulated hosts' ports are taps",
            fix="load it with `modprobe tun`; in a container, pass the device in",
        )
    if status(topology).machines:
        return  # what is left over is ended first, and with it the ports it holds
    for name, host in topology.hosts.items():
        with socket.socket() as attempt:
            attempt.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                attempt.bind(("127.0.0.1", host.port))
            except OSError as taken:
                raise LabError(
                    f"this machine: TCP port {host.port}, which leads to {name}, cannot be had",
                    because=taken.strerror or str(taken),
                    fix=f"end what uses it (`ss -ltnp`), or change the port of {name} in "
                    f"{topology.file}",
                ) from None


@contextmanager
def _starting_alone(topology: Topology) -> Iterator[None]:
    """Keeps a second start of the same lab out while the first is under way."""
    RUN.mkdir(mode=0o700, exist_ok=True)
    with (RUN / f"lab-{topology.name}.lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise LabBusy(
                f"this machine: lab {topology.name!r} is being started by another process",
                because="two starts would take each other's ports and namespaces",
                fix="wait for the other to finish",
            ) from None
        yield


def _run_folder(topology: Topology) -> Path:
    return RUN / f"lab-{topology.name}"


def _spec(
    topology: Topology, emulation: Emulation, number: int, name: str, fast: str
) -> MachineSpec:
    host = topology.hosts[name]
    return MachineSpec(
        lab=topology.name,
        host=name,
        number=number,
        memory_mib=emulation.host_memory_mib,
        cpus=emulation.host_cpus,
        accelerator=fast,
        forwards=((host.port, 22),),
    )


def _start(
    machines: list[Machine], wire: Wire, progress: Progress, *, resume: bool, dies_with_us: bool
) -> None:
    """Bring all machines to an answering sshd; booted ones leave a state for the next start."""
    names = " and ".join(machine.spec.host for machine in machines)
    fast = machines[0].spec.accelerator
    progress(f"{'resuming' if resume else 'booting'} {names} ({fast})")
    deadline = Deadline(BOOT_SECONDS)
    with ExitStack() as ours:
        ends = [ours.enter_context(end) for end in socket.socketpair(type=socket.SOCK_DGRAM)]
        for machine, end in zip(machines, ends, strict=True):
            tap = wire.tap(machine.spec.host)
            ours.callback(os.close, tap)
            cables = Cables(tap, end.fileno())
            machine.start(cables, resume=resume, dies_with_us=dies_with_us)
    for machine in machines:
        if resume:
            machine.resume(deadline)
    for machine in machines:
        machine.wait_for_ssh(deadline)
    if not resume:
        progress(f"saving the state of {names} for the next start")
        for machine in machines:
            machine.save(deadline)


def _write_known_hosts(topology: Topology, built: Image) -> None:
    """The keys that the machines must show."""
    addresses = {name: f"[{host.address}]:{host.port}" for name, host in topology.hosts.items()}
    text = known_hosts(built.keys, addresses)
    (_run_folder(topology) / "known_hosts").write_text(text)
