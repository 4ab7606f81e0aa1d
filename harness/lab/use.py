"""A lab is made ready for use: an emulated lab is started, and real machines are there already."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from harness.errors import UsageError
from harness.guest.spec import GuestImage
from harness.lab import emulated
from harness.lab.guest import guest_image
from harness.lab.image import Image, image
from harness.lab.tree import Progress, check_root
from harness.topology import DebianKernel, Topology


def reached(topology: Topology) -> Topology:
    """Return *topology* with how the machines of the lab are reached now.

    Raises UsageError for an emulated lab that is not up.
    """
    if topology.emulation is None:
        return topology
    if not emulated.status(topology).is_up:
        raise UsageError(
            f"lab {topology.name!r} is not up",
            because="an emulated lab has machines only while it is up",
            fix=f"start the lab with `vf-harness lab up --lab {topology.name}`",
        )
    return emulated.reached_topology(topology)


@contextmanager
def ready(
    topology: Topology, progress: Progress, *, keeps: Callable[[], bool] | None = None
) -> Iterator[tuple[Topology, GuestImage]]:
    """Yield the topology with how the lab's machines are reached, and the image of its guests.

    An emulated lab that is up already stays up.  An emulated lab that is not up is started, and
    ended when this context ends, or by the kernel if this process ends before.  With *keeps* the
    kernel does not end the lab, and this context does unless *keeps* returns true then.  Real
    machines are not changed; only the image of their guests is built.

    Raises LabError if this process is not root or the lab does not come up, and UsageError if the
    lab is up with another kernel than the topology asks for.
    """
    if topology.emulation is None:
        yield topology, _guest_of(topology, image((), progress), progress)
        return
    check_root()
    if emulated.status(topology).is_up:
        progress(f"using lab {topology.name!r}, which is up")
        running = emulated.running_image(topology)
        _check_kernel(topology.name, running, topology.emulation.host_kernel)
        yield emulated.reached_topology(topology), _guest_of(topology, running, progress)
        return
    started = emulated.up(topology, progress, dies_with_us=keeps is None)
    try:
        yield started, _guest_of(topology, emulated.running_image(topology), progress)
    finally:
        if keeps is None or not keeps():
            emulated.down(topology)


def _check_kernel(lab: str, running: Image, asked: DebianKernel) -> None:
    """Raise UsageError if the hosts of a lab that is up run another kernel than *asked*."""
    if running.host_kernel not in (asked, None):
        raise UsageError(
            f"lab {lab!r} is up, and its hosts run Debian's {running.host_kernel} kernel",
            because=f"the topology asks for hosts with the kernel of {asked}",
            fix=f"end that lab first: `vf-harness lab down --lab {lab}`",
        )


def _guest_of(topology: Topology, made: Image, progress: Progress) -> GuestImage:
    return guest_image(made.folder, topology.guest.kernel, progress)
