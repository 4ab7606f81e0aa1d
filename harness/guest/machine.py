"""The guest as a machine: reached over SSH through whichever host it is on."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from harness.errors import GuestError, RemoteError
from harness.guest.instance import Instance
from harness.guest.spec import GuestImage
from harness.host import ethtool
from harness.remote import Host, connect
from harness.topology import GUEST_SSH_PORT, Connection
from harness.waiting import wait_for

LOG_IN_SECONDS, ONCE_MORE_SECONDS = 30, 5
"""A guest of an emulated host, which is answering its users as well, takes some three seconds."""

LINK_SECONDS = 20
"""A VF's driver looks for its link every two seconds (ixgbevf_service_timer)."""


class GuestMachine:
    """The inside of a guest. Its agent is resident: it and its recorders migrate with the guest.

    SSH connections do not, since they end in a QEMU; `follow` makes a new one.  *instance* is where
    it was looked for last, *lost* why it did not answer there, and empty if it did.
    """

    def __init__(self, instance: Instance, image: GuestImage) -> None:
        self._image = image
        self.name = instance.spec.name
        self.instance = instance
        self.host = self._reach(instance, LOG_IN_SECONDS)
        self.lost = ""

    def follow(self, successor: Instance) -> None:
        """Reach the guest through the host that *successor* runs on.

        Raises RemoteError if it does not answer there; *lost* says so from then on.  One that is
        lost already is not waited for as long again.
        """
        seconds = ONCE_MORE_SECONDS if self.lost else LOG_IN_SECONDS
        self.host.abandon()
        self.instance = successor
        try:
            self.host = self._reach(successor, seconds)
        except RemoteError as silent:
            self.lost = f"{silent.what}; {silent.because}"
            raise
        self.lost = ""

    def lose(self, why: str) -> None:
        """Do not ask it any more: it has ended."""
        self.host.abandon()
        self.lost = why

    def close(self) -> None:
        """End the connection; the agent stays with the guest."""
        self.host.abandon()

    @property
    def available_kib(self) -> int:
        """How much memory the guest has left, by its kernel's own estimate."""
        lines = self.host.read_text("/proc/meminfo").splitlines()
        (line,) = (each for each in lines if each.startswith("MemAvailable:"))
        return int(line.split()[1])

    def echoes(self) -> dict[str, int]:
        """How many echo *requests* its kernel has got since it booted, and *replies* it has sent.

        Ref: Linux, net/ipv4/proc.c, icmp_put().
        """
        lines = self.host.read_text("/proc/net/snmp").splitlines()
        names, values = (line.split()[1:] for line in lines if line.startswith("Icmp:"))
        counted = {name: int(value) for name, value in zip(names, values, strict=True)}
        return {"requests": counted["InEchos"], "replies": counted["OutEchoReps"]}

    def set_mtu(self, interface: str, mtu: int) -> bool:
        """Ask an interface's driver for that MTU; whether it took it."""
        argv = ["/usr/bin/ip", "link", "set", "dev", interface, "mtu", str(mtu)]
        return self.host.run(*argv, check=False).status == 0

    def set_mac(self, interface: str, mac: str) -> bool:
        """Ask an interface's driver to take a MAC address; say whether the driver took it."""
        argv = ["/usr/bin/ip", "link", "set", "dev", interface, "address", mac]
        return self.host.run(*argv, check=False).status == 0

    def interface_with(self, address: str) -> str:
        """The interface that has the IP *address*, above standby and VF where there are both.

        Raises GuestError if none has.
        """
        shown = json.loads(self.host.run("/usr/bin/ip", "-json", "address", "show").stdout)
        for link in shown:
            if any(each.get("local") == address for each in link["addr_info"]):
                return str(link["ifname"])
        raise GuestError(
            f"{self.name}: no interface of the guest has {address}",
            because=f"it has {', '.join(link['ifname'] for link in shown)}",
            fix="see its console for what its init did with the address that it was given",
        )

    def link(self, interface: str) -> tuple[bool, int]:
        """Whether it has a carrier, and its speed in Mbit/s; -1 without one."""
        folder = f"/sys/class/net/{interface}"
        carrier, speed = (self.host.read_text(f"{folder}/{each}") for each in ("carrier", "speed"))
        return carrier.strip() == "1", int(speed)

    def restart(self, interface: str) -> None:
        """Have the driver of an interface begin anew: down, and up again."""
        for state in ("down", "up"):
            self.host.run("/usr/bin/ip", "link", "set", "dev", interface, state)

    def statistics(self, interface: str) -> dict[str, int]:
        """Read the counters that an interface's driver keeps, by its own names for them."""
        return ethtool.statistics(self.host, interface)

    def self_test(self, interface: str, *, offline: bool) -> ethtool.SelfTest:
        """Have an interface's driver test its device; return once there is a carrier again.

        Raises WaitError without a carrier, and RemoteError where the test does not run.
        """
        tested = ethtool.self_test(self.host, interface, offline=offline, leased=False)
        wait_for(
            f"{self.name}: a link on {interface} after its test",
            lambda: self.link(interface)[0],
            within=LINK_SECONDS,
            fix="see the guest's console, and the link of the port",
        )
        return tested

    def start(self, program: str, spec: Mapping[str, Any]) -> GuestRecorder:
        """Start a recorder that can be stopped after the guest has moved."""
        started = self.host.ask("start", program=program, spec=dict(spec))
        return GuestRecorder(self, started["recorder"], started["ready"])

    def fetch(self, path: str) -> bytes:
        """Read a file in the guest."""
        return self.host.fetch(path)

    def scratch(self, name: str) -> str:
        """Give a path in the guest for a file of ours."""
        return self.host.scratch(name)

    def _reach(self, instance: Instance, seconds: float) -> Host:
        way = Connection(
            name=self.name,
            transport="ssh",
            address="127.0.0.1",
            port=GUEST_SSH_PORT,
            user="root",
            identity=self._image.identity,
            known_hosts=self._image.known_hosts,
            namespace=None,
        )
        return connect(self.name, way, via=instance.host, resident=True, seconds=seconds)


@dataclass(frozen=True, slots=True)
class GuestRecorder:
    """A recorder inside the guest, wherever the guest is by now."""

    machine: GuestMachine
    number: int
    ready: Mapping[str, Any]

    def stop(self, seconds: float = 30.0) -> Mapping[str, Any]:
        """End it and return its summary."""
        return dict(self.machine.host.ask("stop", seconds=seconds, recorder=self.number))
