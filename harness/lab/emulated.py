"""The embedded lab as a whole: up, down, status.

Everything that ``up`` makes is named after the lab (processes, namespaces, a folder in /run), so
``down`` needs no record of it and clears what any earlier start left behind, whole or half.
"""

from __future__ import annotations

import fcntl
import shutil
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from harness.agent.serve import STATE
from harness.errors import LabBusy, LabError, UsageError
from harness.lab.image import RUN, Image, image, image_in
from harness.lab.machine_hosts import MachineHosts
from harness.lab.namespace_hosts import NamespaceHosts
from harness.lab.tree import Progress, check_root
from harness.lab.wire import Wire
from harness.remote.connecting import FOLDER
from harness.topology import Emulation, PeerEntry, Topology

IMAGE = "image"
"""In the lab's folder, a link to the image that it runs; its being there says that it is up."""


class Hosts(Protocol):
    """All hosts of a lab: emulated machines, or network namespaces of this one."""

    @property
    def running(self) -> tuple[str, ...]:
        """Names of those that are there."""

    @property
    def whole(self) -> bool:
        """Whether all of them are there, with every process that each consists of."""

    def check(self) -> None:
        """Raise LabError for what they could not start without."""

    def start(self, built: Image, wire: Wire, progress: Progress, *, dies_with_us: bool) -> None:
        """Bring them all up, their ports on the *wire*, and return when each can be reached."""

    def end(self) -> None:
        """End them, and whatever an earlier start left of them."""

    def reached(self, built: Image) -> Topology:
        """The topology with what is known only of hosts that were started."""


@dataclass(frozen=True, slots=True)
class Status:
    """The parts of a lab that are on this machine; all empty when the lab is down.

    *whole* says that every host of the lab is there, with its chip if it has one.
    """

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
    hosts = _hosts(topology)
    _check_this_machine()
    hosts.check()
    with _starting_alone(topology), ExitStack() as undo:
        down(topology)
        built = image(tuple(topology.hosts), progress, emulation.host_kernel)
        undo.callback(down, topology)
        run = run_folder(topology)
        run.mkdir(mode=0o700)
        wire = wire_of(topology)
        wire.make(peer.interface, str(peer.address))
        hosts.start(built, wire, progress, dies_with_us=dies_with_us)
        (run / IMAGE).symlink_to(built.folder)
        undo.pop_all()
    return reached_topology(topology)


def down(topology: Topology) -> Status:
    """End everything that belongs to the lab on this machine; returns what there was."""
    was = status(topology)
    _hosts(topology).end()
    wire = wire_of(topology)
    wire.remove()
    if was.folder:
        shutil.rmtree(was.folder)
    for machine in (*topology.hosts.values(), topology.peer):
        if machine and machine.namespace:  # what was as much a machine as its namespace
            for agents in (FOLDER, STATE):
                shutil.rmtree(Path(agents, machine.namespace), ignore_errors=True)
    return was


def status(topology: Topology) -> Status:
    """What there is of the lab on this machine; changes nothing."""
    wire = wire_of(topology)
    folder = run_folder(topology)
    hosts = _hosts(topology)
    return Status(
        machines=hosts.running,
        namespaces=tuple(n for n in (wire.namespace, wire.peer) if Path("/run/netns", n).exists()),
        folder=folder if folder.exists() else None,
        whole=hosts.whole,
    )


def reached_topology(topology: Topology) -> Topology:
    """*topology* as the hosts of the lab that is up are reached."""
    return _hosts(topology).reached(running_image(topology))


def running_image(topology: Topology) -> Image:
    """The image that the lab which is up runs."""
    return image_in((run_folder(topology) / IMAGE).resolve())


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


def _hosts(topology: Topology) -> Hosts:
    """Namespaces where all hosts are local, machines where they are reached by SSH."""
    emulation, _ = _emulated_parts(topology)
    run = run_folder(topology)
    if all(host.transport == "local" for host in topology.hosts.values()):
        return NamespaceHosts(topology, run)
    return MachineHosts(topology, emulation, run)


def _check_this_machine() -> None:
    """What no start can do without, before anything is touched."""
    check_root()
    if not Path("/dev/net/tun").exists():
        raise LabError(
            "this machine: there is no /dev/net/tun",
            because="the emulated hosts' ports are taps",
            fix="load it with `modprobe tun`; in a container, pass the device in",
        )


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


def run_folder(topology: Topology) -> Path:
    """Return the folder where the lab, while up, has its sockets, logs and records."""
    return RUN / f"lab-{topology.name}"
