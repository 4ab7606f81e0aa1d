"""The hosts of a lab are network namespaces of this machine, and share its kernel and its disk.

Each host has an interface on the wire, and another interface on a cable for migrations.  The hosts
run the QEMU of the lab's image, by a script with QEMU's name that enters the image's tree.
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
"""Migrations go over the bridge of this name in the wire's namespace."""

QEMU = "qemu-system-x86_64"
_MIGRATION = "cable0"  # a host's end of the cable
_SHARED = ("/run", "/proc", "/sys", IMAGES)
"""The tree has these folders of this machine at the same paths.

QEMU finds sockets, taps and its guest there.
"""


class NamespaceHosts:
    """The hosts of *topology* are network namespaces; *run* is the lab's folder."""

    def __init__(self, topology: Topology, run: Path) -> None:
        self._topology = topology
        self._run = run

    @property
    def running(self) -> tuple[str, ...]:
        """The names of the hosts whose namespace exists."""
        hosts = self._topology.hosts.items()
        return tuple(name for name, host in hosts if _path(host).exists())

    @property
    def whole(self) -> bool:
        """Say whether the namespace of every host exists."""
        return set(self.running) == set(self._topology.hosts)

    def check(self) -> None:
        """Raise UsageError unless the topology gives each host a namespace and a twin."""
        for name, host in self._topology.hosts.items():
            if host.namespace is None or host.twin is None:
                raise UsageError(
                    f"{name}: the lab cannot make this host",
                    because=f"{self._topology.file} names no namespace, or no [hosts.{name}.twin]",
                    fix="add both, as topologies/twin.toml has them",
                )

    def start(self, built: Image, wire: Wire, progress: Progress, *, dies_with_us: bool) -> None:
        """Make the namespaces and their cables; *dies_with_us* changes nothing.

        No process belongs to such a host, so nothing could end with this process.
        """
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
        """Remove the namespaces, with the interfaces in them."""
        for host in self._topology.hosts.values():
            if _path(host).exists():
                ip("netns", "delete", str(host.namespace))

    def reached(self, built: Image) -> Topology:
        """Return the topology with the QEMU of the image for each host that names no QEMU."""
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
