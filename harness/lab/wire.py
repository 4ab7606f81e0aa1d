"""The wire between emulated hosts: a bridge in a network namespace, and a peer in another.

Each host's port is a tap that is opened *inside* the wire's namespace and handed to QEMU as a
descriptor: QEMU itself stays outside, so its user-mode management network listens on this
machine's loopback.  The peer's end is a veth pair, so the peer runs on this machine's own CPU
and a capture on the bridge sees the truth on the wire.
"""

from __future__ import annotations

import fcntl
import os
import struct
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from harness.errors import LabError
from harness.uapi import if_tun
from harness.uapi.namespaces import enter_network

BRIDGE = "wire"
DISABLED, FORWARDING = 0, 3  # <linux/if_bridge.h>: BR_STATE_*


@dataclass(frozen=True, slots=True)
class Wire:
    """A lab's wire: *namespace* holds the bridge and the taps, *peer* the peer's interface."""

    namespace: str
    peer: str
    mtu: int

    def make(self, interface: str, address: str) -> None:
        """Both namespaces, the bridge, and the peer's *interface* with *address*."""
        for namespace in (self.namespace, self.peer):
            ip("netns", "add", namespace)
            ip("-n", namespace, "link", "set", "lo", "up")
        add_bridge(self.namespace, BRIDGE, self.mtu)
        self.plug("peer", self.peer, interface)
        ip("-n", self.peer, "link", "set", interface, "up")
        ip("-n", self.peer, "address", "add", address, "dev", interface)

    def plug(self, name: str, namespace: str, interface: str, *, bridge: str = BRIDGE) -> None:
        """A veth pair: *name* on the *bridge*, and *interface*, still down, in *namespace*."""
        ip(
            "-n", self.namespace, "link", "add", name, "mtu", str(self.mtu), "type", "veth",
            "peer", "name", interface, "mtu", str(self.mtu), "netns", namespace,
        )  # fmt: skip
        self._attach(name, bridge)

    def tap(self, name: str, *, vnet_header: bool = True) -> int:
        """A new tap on the bridge; its descriptor is the caller's, and closing it ends the tap.

        With *vnet_header* each frame has the header before it that QEMU's own cards expect.
        """
        with ExitStack() as undo:
            with inside(self.namespace):
                descriptor = os.open("/dev/net/tun", os.O_RDWR | os.O_CLOEXEC)
                undo.callback(os.close, descriptor)
                flags = if_tun.Flag.TAP | if_tun.Flag.NO_PI
                flags |= if_tun.Flag.VNET_HDR if vnet_header else 0
                request = struct.pack("16sH22x", name.encode(), flags)
                fcntl.ioctl(descriptor, if_tun.Ioctl.SETIFF, request)
            ip("-n", self.namespace, "link", "set", name, "mtu", str(self.mtu))
            self._attach(name)
            undo.pop_all()
        return descriptor

    def cut(self, name: str) -> None:
        """Stop forwarding to and from the bridge port *name* (a host, or ``peer``).

        Both ends keep their carrier, as at a switch: setting the link down would show there,
        and back up it would wait for the kernel's link watch, up to a second.
        """
        self._forward(name, DISABLED)

    def mend(self, name: str) -> None:
        """Undo ``cut``."""
        self._forward(name, FORWARDING)

    def remove(self) -> None:
        """Both namespaces with all that is in them; without them, nothing."""
        for namespace in (self.namespace, self.peer):
            if Path("/run/netns", namespace).exists():
                ip("netns", "delete", namespace)

    def _forward(self, name: str, state: int) -> None:
        _run("bridge", "-n", self.namespace, "link", "set", "dev", name, "state", str(state))

    def _attach(self, name: str, bridge: str = BRIDGE) -> None:
        ip("-n", self.namespace, "link", "set", name, "master", bridge, "up")


@dataclass(frozen=True, slots=True)
class WireEnd:
    """One end of a *wire*, called *name* there, which a known outage cuts."""

    wire: Wire
    name: str

    def cut(self) -> None:
        self.wire.cut(self.name)

    def mend(self) -> None:
        self.wire.mend(self.name)


def add_bridge(namespace: str, name: str, mtu: int) -> None:
    """A bridge that is as quick as a cable.

    One that waits before it forwards, or that takes part in a spanning tree, would add outages of
    its own; one that snoops multicast would drop what nobody asked for.
    """
    ip(
        "-n", namespace, "link", "add", name, "mtu", str(mtu), "type", "bridge",
        "stp_state", "0", "forward_delay", "0", "mcast_snooping", "0",
    )  # fmt: skip
    ip("-n", namespace, "link", "set", name, "up")


@contextmanager
def inside(namespace: str) -> Iterator[None]:
    """Run the body's system calls in *namespace*; this thread only."""
    own = os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
    try:
        target = os.open(f"/run/netns/{namespace}", os.O_RDONLY | os.O_CLOEXEC)
        try:
            enter_network(target)
        finally:
            os.close(target)
        try:
            yield
        finally:
            enter_network(own)
    finally:
        os.close(own)


def ip(*arguments: str) -> None:
    """Run the program of that name.  Raises LabError in its own words."""
    _run("ip", *arguments)


def _run(*argv: str) -> None:
    done = subprocess.run(argv, capture_output=True, text=True, check=False)
    if done.returncode:
        raise LabError(
            f"this machine: `{' '.join(argv)}` failed",
            because=done.stderr.strip() or f"status {done.returncode}",
            fix="run as root, with CAP_NET_ADMIN; `vf-harness lab down` clears what is left",
        )
