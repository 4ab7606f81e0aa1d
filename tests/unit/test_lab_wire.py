"""The wire between emulated hosts, in namespaces of the test's own."""

from __future__ import annotations

import json
import os
import select
import shutil
import socket
import struct
import subprocess
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from harness.errors import LabError
from harness.lab.wire import BRIDGE, Wire, inside
from harness.waiting import Deadline, wait_for

pytestmark = pytest.mark.skipif(
    os.geteuid() != 0 or shutil.which("ip") is None or not Path("/dev/net/tun").exists(),
    reason="needs root, iproute2 and /dev/net/tun: it makes network namespaces and taps",
)

MTU = 9216
HEADER = struct.Struct("10x")  # <linux/virtio_net.h>: struct virtio_net_hdr, all zero
ETHERTYPE = 0x88B5  # IEEE 802, local experimental: nothing else here sends it
HOST_MAC, EVERYONE = bytes.fromhex("525400825801"), b"\xff" * 6


@pytest.fixture
def wire() -> Iterator[Wire]:
    name = f"vfh-labtests-{os.getpid()}"
    wire = Wire(f"{name}-wire", f"{name}-peer", MTU)
    try:
        wire.make("wire0", "198.18.0.1/24")
        yield wire
    finally:
        wire.remove()


@pytest.fixture
def tap(wire: Wire) -> Iterator[int]:
    """The end of the cable that QEMU holds."""
    descriptor = wire.tap("alder")
    yield descriptor
    os.close(descriptor)


@pytest.fixture
def peer(wire: Wire) -> Iterator[socket.socket]:
    """What arrives at the peer's interface of our EtherType."""
    with inside(wire.peer):
        listening = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(ETHERTYPE))
    with listening:
        listening.bind(("wire0", ETHERTYPE))
        yield listening


def links(namespace: str) -> dict[str, dict[str, object]]:
    argv = ["ip", "-json", "-details", "-n", namespace, "link", "show"]
    shown = subprocess.run(argv, check=True, capture_output=True).stdout
    return {link["ifname"]: link for link in json.loads(shown)}


def frame(number: int, size: int = 60) -> bytes:
    head = EVERYONE + HOST_MAC + ETHERTYPE.to_bytes(2, "big") + number.to_bytes(4, "big")
    return head + bytes(size - len(head))


def arrived(peer: socket.socket, number: int, seconds: float) -> bytes | None:
    """Wait so long for frame *number*; None if it does not come."""
    deadline = Deadline(seconds)
    while select.select([peer], [], [], deadline.remaining)[0]:
        received = peer.recv(1 << 16)
        if received[14:18] == number.to_bytes(4, "big"):
            return received
    return None


def descriptors() -> int:
    """Count what this process has open."""
    return len(list(Path("/proc/self/fd").iterdir()))


def namespaces() -> set[str]:
    return {path.name for path in Path("/run/netns").iterdir()}


def test_a_wire_is_a_bridge_that_forwards_at_once(wire: Wire) -> None:
    """A forward delay or a spanning tree would be an outage of the wire's own."""
    shown = links(wire.namespace)
    bridge = shown[BRIDGE]["linkinfo"]["info_data"]  # type: ignore[index]
    assert (bridge["stp_state"], bridge["forward_delay"]) == (0, 0)
    assert bridge["mcast_snooping"] == 0, "it would drop what nobody asked for"
    assert {shown[name]["mtu"] for name in (BRIDGE, "peer")} == {MTU}
    assert shown["peer"]["master"] == BRIDGE


def test_the_peer_has_its_interface_address_and_mtu(wire: Wire) -> None:
    """Its kernel would fragment, or not answer at all."""
    argv = ["ip", "-json", "-n", wire.peer, "address", "show", "dev", "wire0"]
    (shown,) = json.loads(subprocess.run(argv, check=True, capture_output=True).stdout)
    assert shown["mtu"] == MTU
    assert ("198.18.0.1", 24) in [(a["local"], a["prefixlen"]) for a in shown["addr_info"]]


def test_a_jumbo_frame_from_a_host_reaches_the_peer_whole(
    wire: Wire, tap: int, peer: socket.socket
) -> None:
    """One MTU too small on the way, and 9000-byte frames are lost without a word."""
    assert links(wire.namespace)["alder"]["mtu"] == MTU
    sent = frame(1, 14 + MTU)
    os.write(tap, HEADER.pack() + sent)
    assert arrived(peer, 1, 2) == sent


def test_a_frame_from_the_peer_reaches_every_host(
    wire: Wire, tap: int, peer: socket.socket
) -> None:
    """A tap that is not on the bridge sends and hears nothing."""
    other = wire.tap("birch")
    try:
        peer.send(frame(2))
        for descriptor in (tap, other):
            assert heard(descriptor, 2)
    finally:
        os.close(other)


def heard(tap: int, number: int) -> bool:
    """Whether frame *number* comes out of *tap* within two seconds."""
    deadline = Deadline(2)
    while select.select([tap], [], [], deadline.remaining)[0]:
        received = os.read(tap, 1 << 16)[HEADER.size :]
        if received[12:18] == frame(number)[12:18]:
            return True
    return False


@pytest.mark.parametrize("end", ["alder", "peer"])
def test_a_cut_stops_frames_at_once_and_keeps_the_carrier(
    wire: Wire, tap: int, peer: socket.socket, end: str
) -> None:
    """It stands for a switch that drops, and is what outages are calibrated by.

    With the carrier gone both ends would notice, and mending would take the kernel up to a second.
    """
    os.write(tap, HEADER.pack() + frame(1))
    assert arrived(peer, 1, 2)

    wire.cut(end)
    os.write(tap, HEADER.pack() + frame(2))
    assert arrived(peer, 2, 0.1) is None
    for namespace, name in ((wire.namespace, end), (wire.peer, "wire0")):
        assert "LOWER_UP" in links(namespace)[name]["flags"]  # type: ignore[operator]

    wire.mend(end)
    os.write(tap, HEADER.pack() + frame(3))
    assert arrived(peer, 3, 0.5), "not at once"


def test_closing_its_descriptor_ends_a_tap(wire: Wire) -> None:
    """QEMU's end ends it: a host that is started again finds its name free."""
    os.close(wire.tap("alder"))
    wait_for("the tap to go", lambda: "alder" not in links(wire.namespace), within=2)
    os.close(wire.tap("alder"))


def test_a_tap_that_cannot_be_made_leaves_no_descriptor(wire: Wire, tap: int) -> None:
    """One that stays open keeps its tap on the wire, with nobody behind it."""
    assert tap
    before = descriptors()
    with pytest.raises(OSError, match="busy"):
        wire.tap("alder")
    assert descriptors() == before


def test_removing_leaves_nothing_and_can_be_repeated(wire: Wire, tap: int) -> None:
    """`down` has no record of what there is; a tap that QEMU still holds goes, too."""
    assert tap
    assert namespaces() >= {wire.namespace, wire.peer}
    wire.remove()
    assert namespaces() & {wire.namespace, wire.peer} == set()
    wire.remove()


def test_a_wire_that_is_there_is_not_made_again(wire: Wire) -> None:
    """Somebody's machines may be on it."""
    with pytest.raises(LabError) as taken:
        wire.make("wire0", "198.18.0.1/24")
    assert f"ip netns add {wire.namespace}" in taken.value.what
    assert "File exists" in taken.value.because


# --- inside ---------------------------------------------------------------------------------


def own_namespace() -> Path:
    """Name the network namespace of the thread that asks."""
    return Path("/proc/thread-self/ns/net").readlink()


def test_inside_is_another_namespace_and_only_for_its_body(wire: Wire) -> None:
    """A thread that stays there opens everything else there, too: SSH, for one."""
    home = own_namespace()
    with inside(wire.namespace):
        there = own_namespace()
        assert {name for _, name in socket.if_nameindex()} == {"lo", BRIDGE, "peer"}
    assert own_namespace() == home != there


def test_inside_returns_after_an_exception(wire: Wire) -> None:
    """A tap that cannot be opened must not leave the run in the wire's namespace."""
    home, before = own_namespace(), descriptors()
    with pytest.raises(ZeroDivisionError), inside(wire.namespace):
        raise ZeroDivisionError
    assert own_namespace() == home
    assert descriptors() == before, "and leaves no descriptor"


def test_inside_a_namespace_that_is_not_there_changes_nothing() -> None:
    """The thread is where it was, and nothing is left open."""
    home, before = own_namespace(), descriptors()
    with pytest.raises(FileNotFoundError), inside("vfh-labtests-none"):
        pytest.fail("it went somewhere")
    assert (own_namespace(), descriptors()) == (home, before)


def test_other_threads_stay_where_they_are(wire: Wire) -> None:
    """The loop that speaks QMP runs beside, and belongs to this machine."""
    home = own_namespace()
    with ThreadPoolExecutor(1) as beside:
        assert beside.submit(own_namespace).result() == home
        with inside(wire.namespace):
            assert beside.submit(own_namespace).result() == home
