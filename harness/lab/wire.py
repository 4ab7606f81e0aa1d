"""The wire between emulated hosts is a bridge in a network namespace; the peer is in another one.

Each port of an emulated machine has a tap in the wire's namespace, whose descriptor QEMU or the
chip inherits.  QEMU itself stays outside that namespace, so QEMU's user-mode management network
listens on this machine's loopback.  A veth pair leads to the peer, which runs on this machine
without emulation.  A capture on the bridge sees every frame.
"""

from __future__ import annotations

import fcntl
import os
import struct
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from harness.lab.programs import output_of
from harness.uapi import if_tun
from harness.uapi.namespaces import enter_network

BRIDGE = "wire"
DISABLED, FORWARDING = 0, 3  # <linux/if_bridge.h>: BR_STATE_*


@dataclass(frozen=True, slots=True)
class Wire:
    """A lab's wire has bridge and taps in *namespace*; the peer's interface is in *peer*.

    *namespace* and *peer* are names of network namespaces, and *mtu* is in bytes.
    """

    namespace: str
    peer: str
    mtu: int

    def make(self, interface: str, address: str) -> None:
        """Make both namespaces, the bridge, and the peer's *interface* with *address*.

        *address* has a prefix length, such as ``198.18.0.1/24``.  Raises LabError if ``ip`` fails.
        """
        for namespace in (self.namespace, self.peer):
            ip("netns", "add", namespace)
            ip("-n", namespace, "link", "set", "lo", "up")
        add_bridge(self.namespace, BRIDGE, self.mtu)
        self.plug("peer", self.peer, interface)
        ip("-n", self.peer, "link", "set", interface, "up")
        ip("-n", self.peer, "address", "add", address, "dev", interface)

    def plug(self, name: str, namespace: str, interface: str, *, bridge: str = BRIDGE) -> None:
        """Make a veth pair: *name* on *bridge*, up, and *interface* in *namespace*, still down."""
        ip(
            "-n", self.namespace, "link", "add", name, "mtu", str(self.mtu), "type", "veth",
            "peer", "name", interface, "mtu", str(self.mtu), "netns", namespace,
        )  # fmt: skip
        self._attach(name, bridge)

    def tap(self, name: str, *, vnet_header: bool = True) -> int:
        """Make a tap *name* on the bridge, and return its descriptor.

        The caller owns the descriptor; the tap goes away once all copies of the descriptor are
        closed.  With *vnet_header*, each frame begins with a virtio header, which QEMU's own cards
        expect.  Raises LabError if ``ip`` fails.
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
        """Stop forwarding to and from the interface *name* on the bridge (a host, or ``peer``).

        Both ends keep their carrier, as at a real switch.  Setting the link down would take the
        carrier away, and setting the link up again takes up to a second (the kernel's link watch).
        """
        self._forward(name, DISABLED)

    def mend(self, name: str) -> None:
        """Forward again to and from the interface *name*, which `cut` stopped."""
        self._forward(name, FORWARDING)

    def remove(self) -> None:
        """Delete both namespaces, with all that is in them, if they exist."""
        for namespace in (self.namespace, self.peer):
            if Path("/run/netns", namespace).exists():
                ip("netns", "delete", namespace)

    def _forward(self, name: str, state: int) -> None:
        _run("bridge", "-n", self.namespace, "link", "set", "dev", name, "state", str(state))

    def _attach(self, name: str, bridge: str = BRIDGE) -> None:
        ip("-n", self.namespace, "link", "set", name, "master", bridge, "up")


@dataclass(frozen=True, slots=True)
class WireEnd:
    """A known outage cuts this end of the wire: the interface *name* on the bridge of *wire*."""

    wire: Wire
    name: str

    def cut(self) -> None:
        self.wire.cut(self.name)

    def mend(self) -> None:
        self.wire.mend(self.name)


def add_bridge(namespace: str, name: str, mtu: int) -> None:
    """Make a bridge *name* in *namespace* that forwards like a cable, with *mtu* in bytes.

    The bridge has no forward delay and no spanning tree, which would add outages of their own, and
    no multicast snooping, which would drop frames that nobody subscribed to.
    """
    ip(
        "-n", namespace, "link", "add", name, "mtu", str(mtu), "type", "bridge",
        "stp_state", "0", "forward_delay", "0", "mcast_snooping", "0",
    )  # fmt: skip
    ip("-n", namespace, "link", "set", name, "up")


@contextmanager
def inside(namespace: str) -> Iterator[None]:
    """Put this thread into the network namespace *namespace* during the body."""
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
    """Run the program ``ip`` with *arguments*.  Raises LabError with what ``ip`` said."""
    _run("ip", *arguments)


def _run(*argv: str) -> None:
    output_of(
        *argv, means="the network of an embedded lab could not be made or changed",
        fix="run as root, with CAP_NET_ADMIN; `vf-harness lab down` clears what is left",
    )  # fmt: skip
