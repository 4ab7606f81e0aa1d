"""A lab ready for use, whether it has to be started first or is always there."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from harness.errors import UsageError
from harness.guest.spec import GuestImage
from harness.lab import emulated
from harness.lab.guest import guest_image
from harness.lab.image import Image, image
from harness.lab.tree import Progress, check_root
from harness.topology import DebianKernel, Topology


def reached(topology: Topology) -> Topology:
    """The lab as it is reached now.  Raises UsageError for an emulated one that is not up."""
    if topology.emulation is None:
        return topology
    if not emulated.status(topology).is_up:
        raise UsageError(
            f"lab {topology.name!r} is not up",
            because="its machines are made by `vf-harness lab up`; there is nothing to look at",
            fix="start it first",
        )
    return emulated.reached_topology(topology)


@contextmanager
def ready(
    topology: Topology, progress: Progress, *, keep: bool = False
) -> Iterator[tuple[Topology, GuestImage]]:
    """The lab as it is reached, and the image of its guests.

    An emulated lab that is up already is used and left up; otherwise it is started, and ended
    with the body, unless the body leaves it to somebody else (*keep*).  Of real machines only the
    guest's image is made.
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
    started = emulated.up(topology, progress, dies_with_us=not keep)
    try:
        yield started, _guest_of(topology, emulated.running_image(topology), progress)
    finally:
        emulated.down(topology)


def _check_kernel(lab: str, running: Image, asked: DebianKernel) -> None:
    """Raise UsageError for a lab that is up with another kernel than is asked for."""
    if running.host_kernel not in (asked, None):
        raise UsageError(
            f"lab {lab!r} is up, and its hosts run Debian's {running.host_kernel} kernel",
            because=f"this run is for hosts with the kernel of {asked}",
            fix="end that lab first: vf-harness lab down",
        )


def _guest_of(topology: Topology, made: Image, progress: Progress) -> GuestImage:
    return guest_image(made.folder, topology.guest.kernel, progress)
