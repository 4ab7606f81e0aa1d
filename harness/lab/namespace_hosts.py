"""The hosts of a lab as network namespaces of this machine: they share its kernel and its disk.

Each has an interface on the wire, and one on a cable of their own for migrations.  QEMU is the
image's, entered by a script that stands for it on these hosts.
"""

from __future__ import annotations

import shlex
from pathlib import Path

from harness.errors import UsageError
from harness.guest.instance import IMAGES
from harness.lab.chroot import in_tree
from harness.lab.image import Image
from harness.lab.tree import Progress
from harness.lab.wire import Wire, add_bridge, ip
from harness.topology import HostEntry, Topology

CABLE = "cable"
"""The bridge in the wire's namespace that migrations go over."""

QEMU = "qemu-system-x86_64"
_MIGRATION = "cable0"  # a host's end of the cable
_SHARED = ("/run", "/proc", "/sys", IMAGES)
"""Where QEMU finds sockets, taps and its guest; they stand for themselves inside the tree."""


class NamespaceHosts:
    """All hosts of *topology*; *run* is the folder of the lab that is up."""

    def __init__(self, topology: Topology, run: Path) -> None:
        self._topology = topology
        self._run = run

    @property
    def running(self) -> tuple[str, ...]:
        """Names of those whose namespace is there."""
        hosts = self._topology.hosts.items()
        return tuple(name for name, host in hosts if _path(host).exists())

    @property
    def whole(self) -> bool:
        """Whether all of them are there."""
        return set(self.running) == set(self._topology.hosts)

    def check(self) -> None:
        """Raise UsageError unless each has a namespace of its own, and an interface."""
        for name, host in self._topology.hosts.items():
            if host.namespace is None or host.twin is None:
                raise UsageError(
                    f"{name}: the lab cannot make this host",
                    because=f"{self._topology.file} names no namespace, or no [hosts.{name}.twin]",
                    fix="add both, as topologies/twin.toml has them",
                )

    def start(self, built: Image, wire: Wire, progress: Progress, *, dies_with_us: bool) -> None:
        """Make namespaces and cables.  Nothing of it is a process that could die with us."""
        del dies_with_us
        progress(f"making {' and '.join(self._topology.hosts)} as network namespaces")
        Path(IMAGES).mkdir(parents=True, exist_ok=True)
        add_bridge(wire.namespace, CABLE, wire.mtu)
        for name, host in self._topology.hosts.items():
            assert host.namespace is not None
            assert host.twin is not None
            ip("netns", "add", host.namespace)
            ip("-n", host.namespace, "link", "set", "lo", "up")
            wire.plug(name, host.namespace, host.twin.interface)
            wire.plug(f"{name}-cable", host.namespace, _MIGRATION, bridge=CABLE)
            address = f"{host.migration_address}/24"
            ip("-n", host.namespace, "address", "add", address, "dev", _MIGRATION)
            ip("-n", host.namespace, "link", "set", _MIGRATION, "up")
        self._write_qemu(built)

    def end(self) -> None:
        """Remove the namespaces, with all that is in them."""
        for host in self._topology.hosts.values():
            if _path(host).exists():
                ip("netns", "delete", str(host.namespace))

    def reached(self, built: Image) -> Topology:
        """The topology with the image's QEMU, unless it names another."""
        del built
        default = HostEntry.model_fields["qemu"].default
        hosts = {
            name: host.model_copy(update={"qemu": str(self._run / QEMU)})
            if host.qemu == default
            else host
            for name, host in self._topology.hosts.items()
        }
        return self._topology.model_copy(update={"hosts": hosts})

    def _write_qemu(self, built: Image) -> None:
        enter = in_tree(
            built.tree, QEMU, binds={each: Path(each) for each in _SHARED}, dies_with_us=False
        )
        script = self._run / QEMU
        script.write_text(f'#!/bin/sh\nexec {shlex.join(enter)} "$@"\n')
        script.chmod(0o755)


def _path(host: HostEntry) -> Path:
    return Path("/run/netns", host.namespace or "")
