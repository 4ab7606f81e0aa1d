"""Where a guest's standby interface meets the wire: a bridge with the port and a tap in it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from harness.host.changes import changed_back
from harness.host.port import Port
from harness.remote import Host

BRIDGE = "vfh0"
TAP = "vfh0-guest"


@contextmanager
def standby_tap(port: Port, *, mtu: int) -> Iterator[str]:
    """A tap on a bridge with *port*, all with *mtu*; yields the tap's name.

    The bridge learns nothing on the port.  Broadcasts that the guest sends through a VF, of this
    port or of the other host's, arrive there too; a bridge that learned from them would take the
    guest to be behind the port, and drop what comes from there for it.
    """
    with changed_back(port.host) as host:
        _ip(host, ["link", "add", BRIDGE, "mtu", str(mtu), "type", "bridge",
                   "stp_state", "0", "forward_delay", "0", "mcast_snooping", "0"],
            undo=["link", "del", BRIDGE], unless_gone=BRIDGE)  # fmt: skip
        _ip(host, ["link", "set", port.interface, "master", BRIDGE],
            undo=["link", "set", port.interface, "nomaster"])  # fmt: skip
        host.run("bridge", "link", "set", "dev", port.interface, "learning", "off", changes=True)
        _ip(host, ["tuntap", "add", TAP, "mode", "tap"],
            undo=["tuntap", "del", TAP, "mode", "tap"], unless_gone=TAP)  # fmt: skip
        for argv in (["mtu", str(mtu)], ["master", BRIDGE], ["up"]):
            host.run("ip", "link", "set", TAP, *argv, changes=True)
        host.run("ip", "link", "set", BRIDGE, "up", changes=True)
        yield TAP


def _ip(host: Host, do: list[str], *, undo: list[str], unless_gone: str = "") -> None:
    """One change of the interfaces; its way back is not tried where *unless_gone* is not there."""
    back: dict[str, object] = {"kind": "run", "argv": ["ip", *undo]}
    if unless_gone:
        back["unless"] = {"path": f"/sys/class/net/{unless_gone}", "text": None}
    host.change(
        f"ip {' '.join(do)}",
        do={"kind": "run", "argv": ["ip", *do]},
        undo=back,
    )
