"""A bridge on a host, between its way to the wire and what its guests have on it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager

from harness.errors import LabError
from harness.host.changes import changed_back
from harness.remote import Host

BRIDGE = "vfh0"
STANDBY = "guest"
"""The tap of a guest's standby, by what follows the bridge's name in its own."""


@contextmanager
def interface_up(host: Host, interface: str) -> Iterator[None]:
    """An interface that is up in the body, and afterwards as it was."""
    with changed_back(host):
        (link,) = json.loads(host.run("ip", "-json", "link", "show", "dev", interface).stdout)
        if "UP" not in link["flags"]:
            _ip(host, ["link", "set", interface, "up"], undo=["link", "set", interface, "down"])
        yield


@contextmanager
def bridged(host: Host, interface: str, *, mtu: int) -> Iterator[None]:
    """A bridge with *interface*, with that MTU; only one at a time on a host.

    The bridge learns nothing on the interface.  Broadcasts that a guest sends through a VF, of this
    port or of the other host's, arrive there too; a bridge that learned from them would take the
    guest to be behind the interface, and drop what comes from there for it.
    """
    if host.exists(f"/sys/class/net/{BRIDGE}"):
        raise LabError(
            f"{host.name}: bridge {BRIDGE} is there already",
            because="another guest has it, or a run that was killed left it; nothing was changed",
            fix="end the other guest first: two fixtures of one module cannot both have one; or "
            f"`vf-harness restore --lab LAB {host.name}`",
        )
    with changed_back(host):
        _ip(host, ["link", "add", BRIDGE, "mtu", str(mtu), "type", "bridge",
                   "stp_state", "0", "forward_delay", "0", "mcast_snooping", "0"],
            undo=["link", "del", BRIDGE], unless_gone=BRIDGE)  # fmt: skip
        _ip(host, ["link", "set", interface, "master", BRIDGE],
            undo=["link", "set", interface, "nomaster"])  # fmt: skip
        host.run("bridge", "link", "set", "dev", interface, "learning", "off", changes=True)
        host.run("ip", "link", "set", BRIDGE, "up", changes=True)
        yield


@contextmanager
def tap(host: Host, what: str, *, mtu: int) -> Iterator[str]:
    """A tap on the host's bridge, for *what*; yields its name."""
    name = f"{BRIDGE}-{what}"
    with changed_back(host):
        _ip(host, ["tuntap", "add", name, "mode", "tap"],
            undo=["tuntap", "del", name, "mode", "tap"], unless_gone=name)  # fmt: skip
        for argv in (["mtu", str(mtu)], ["master", BRIDGE], ["up"]):
            host.run("ip", "link", "set", name, *argv, changes=True)
        yield name


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
