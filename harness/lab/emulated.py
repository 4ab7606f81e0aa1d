"""The embedded lab is started, ended and looked at as a whole.

`up` makes processes, namespaces and a folder in /run, all named after the lab.  So `down` needs no
record of a start, and clears what any earlier start left, complete or not.
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
"""The lab's folder has a link of this name to the lab's image, from when the lab has come up."""


class Hosts(Protocol):
    """The hosts of a lab are emulated machines, or network namespaces of this machine."""

    @property
    def running(self) -> tuple[str, ...]:
        """The names of the hosts that are running now, in no order."""

    @property
    def whole(self) -> bool:
        """Say whether every host is running, with all processes that belong to the host."""

    def check(self) -> None:
        """Raise LabError or UsageError if the hosts could not be started; change nothing."""

    def start(self, built: Image, wire: Wire, progress: Progress, *, dies_with_us: bool) -> None:
        """Start all hosts from the image *built*, and return when each host can be reached.

        The hosts are connected to *wire*.  With *dies_with_us* the kernel ends the processes
        of the hosts when this process ends.
        """

    def end(self) -> None:
        """End all hosts, and whatever an earlier start left of them."""

    def reached(self, built: Image) -> Topology:
        """Return the topology with the facts that are known only once the hosts are started.

        *built* is the image that the hosts were started from.
        """


@dataclass(frozen=True, slots=True)
class Status:
    """A status names the parts of a lab that are on this machine, none if the lab is down.

    *machines* are names of running hosts, *namespaces* are the existing network namespaces of wire
    and peer, and *folder* is the lab's folder if it exists.  *whole* says whether every host of the
    lab is running, with its chip if the host has one.
    """

    machines: tuple[str, ...]
    namespaces: tuple[str, ...]
    folder: Path | None
    whole: bool

    @property
    def is_up(self) -> bool:
        """Say whether the lab came up and all its hosts are still running."""
        return self.whole and self.folder is not None and (self.folder / IMAGE).exists()


def up(topology: Topology, progress: Progress, *, dies_with_us: bool) -> Topology:
    """Start the emulated lab, and return the topology with how its hosts are reached.

    `up` first ends whatever is there of the lab.  On any failure, Ctrl-C included, `up` ends what
    `up` started.  With *dies_with_us* the kernel ends the hosts when this process ends, even by
    SIGKILL.  Raises LabBusy while another process starts the lab, UsageError for a lab that is not
    emulated, and LabError, RemoteError or WaitError if the lab does not come up.
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
    """End everything that belongs to the lab on this machine, and return what was there."""
    was = status(topology)
    _hosts(topology).end()
    wire = wire_of(topology)
    wire.remove()
    if was.folder:
        shutil.rmtree(was.folder)
    for machine in (*topology.hosts.values(), topology.peer):
        if machine and machine.namespace:  # its agent kept files on this machine
            for agents in (FOLDER, STATE):
                shutil.rmtree(Path(agents, machine.namespace), ignore_errors=True)
    return was


def status(topology: Topology) -> Status:
    """Return what is there of the lab on this machine; change nothing."""
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
    """Return *topology* with how the hosts of the lab, which must be up, are reached."""
    return _hosts(topology).reached(running_image(topology))


def running_image(topology: Topology) -> Image:
    """Return the image that the lab runs; the lab must be up."""
    return image_in((run_folder(topology) / IMAGE).resolve())


def wire_of(topology: Topology) -> Wire:
    """Return the lab's wire, whether the wire exists now or not.

    Raises UsageError for a topology without [emulation], or without a peer in a namespace.
    """
    emulation, peer = _emulated_parts(topology)
    return Wire(f"vfh-{topology.name}-wire", peer.namespace or "", emulation.wire_mtu)


def _emulated_parts(topology: Topology) -> tuple[Emulation, PeerEntry]:
    if topology.emulation is None or topology.peer is None or topology.peer.namespace is None:
        raise UsageError(
            f"lab {topology.name!r} is not an emulated lab",
            because=f"{topology.file} lacks [emulation], or a [peer] with a namespace",
            fix="name a lab that has both, such as emulated",
        )
    return topology.emulation, topology.peer


def _hosts(topology: Topology) -> Hosts:
    """Return `NamespaceHosts` if the topology reaches every host locally, else `MachineHosts`."""
    emulation, _ = _emulated_parts(topology)
    run = run_folder(topology)
    if all(host.transport == "local" for host in topology.hosts.values()):
        return NamespaceHosts(topology, run)
    return MachineHosts(topology, emulation, run)


def _check_this_machine() -> None:
    """Raise LabError without root or /dev/net/tun, before a start changes anything."""
    check_root()
    if not Path("/dev/net/tun").exists():
        raise LabError(
            "this machine: there is no /dev/net/tun",
            because="the emulated hosts' ports are taps",
            fix="load the driver with `modprobe tun`; in a container, pass the device in",
        )


@contextmanager
def _starting_alone(topology: Topology) -> Iterator[None]:
    """Raise LabBusy if another process starts the same lab, and keep others out meanwhile."""
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


def keep_words(topology: Topology, folder: Path) -> None:
    """Copy the consoles and logs of the lab's emulated machines to *folder*, which is made.

    They tell why a machine ended.  Nothing is made for a lab without such machines.
    """
    run = run_folder(topology)
    for said in (*run.glob("*.console"), *run.glob("*.log")):
        folder.mkdir(parents=True, exist_ok=True)
        shutil.copy(said, folder)


def run_folder(topology: Topology) -> Path:
    """Return the folder that has the lab's sockets, logs and records while the lab is up."""
    return RUN / f"lab-{topology.name}"
