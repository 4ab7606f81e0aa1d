"""The topology as a whole: what a person can see in the rack, and what a test may ask of it.

Every description ends up in the JSON Schema, in error messages and in topologies/README.md.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field, PrivateAttr

from harness import devices
from harness.errors import UsageError
from harness.topology import needs, values
from harness.topology.capabilities import CapabilityEntry
from harness.topology.connection import Connection, Entry
from harness.topology.entries import (
    Emulation,
    GuestEntry,
    HostEntry,
    Limits,
    LinkEntry,
    PeerEntry,
    PortEntry,
)
from harness.topology.places import Places

PEER = "peer"
"""The name by which links and connections mean the peer."""

TWIN = "twin"
"""The name by which links mean the end of a host's twins: ``host.twin``."""

GUEST_SSH_PORT = 2222
"""On the loopback of whichever host a guest is on; QEMU forwards it to the guest's sshd."""


def _offer(word: str) -> str:
    if word not in needs.WORDS:
        raise ValueError("no such word")
    return word


Offer = Annotated[
    str,
    AfterValidator(_offer),
    Field(
        description=f"word for what a lab offers: {', '.join(needs.WORDS)}",
        examples=["iommu"],
        json_schema_extra={"enum": sorted(needs.WORDS)},
    ),
]


class Topology(Entry):
    """A lab: machines and cables."""

    schema_version: Literal[1] = Field(
        alias="schema", description="version of this format, which is 1", examples=[1]
    )
    name: values.TableName = Field(
        description="name of the lab: a letter, then letters, digits and -, all lower case",
        examples=["x520-pair"],
    )
    offers: tuple[Offer, ...] = Field(
        default=(),
        description="list of words that tests may need and that the rest does not show",
        examples=[["iommu"]],
    )
    hosts: dict[values.TableName, HostEntry] = Field(
        min_length=1, description="table for each host", examples=["[hosts.alder]"]
    )
    peer: PeerEntry | None = Field(
        default=None, description="table for the peer", examples=["[peer]"]
    )
    guest: GuestEntry = Field(description="table for the guests", examples=["[guest]"])
    links: tuple[LinkEntry, ...] = Field(
        default=(), description="table for each link", examples=["[[links]]"]
    )
    capabilities: dict[values.RegisterName, CapabilityEntry] = Field(
        default_factory=dict,
        description="table for each capability of the VFs whose registers are watched",
        examples=["[capabilities.migration]"],
    )
    limits: Limits = Field(default=Limits(), description="table of limits", examples=["[limits]"])
    emulation: Emulation | None = Field(
        default=None,
        description="table for labs whose machines are made on demand",
        examples=["[emulation]"],
    )

    _places: Places = PrivateAttr(default=Places("(no file)", {}))

    def model_post_init(self, context: Any, /) -> None:
        if isinstance(context, Places):
            self._places = context

    @property
    def file(self) -> str:
        """The file it was read from, as messages name it."""
        return self._places.file

    def place(self, *key: str | int) -> str:
        """Say where *key* stands, as ``file:line``; a key left out stands where its table does."""
        return self._places.place(key)

    def port(self, end: str) -> PortEntry:
        """Find the port written ``host.port``; raises KeyError."""
        host, _, port = end.partition(".")
        return self.hosts[host].ports[port]

    def ports(self) -> dict[str, PortEntry]:
        """Give every port, by ``host.port``, in the order of the file."""
        return {
            f"{host}.{port}": entry
            for host, table in self.hosts.items()
            for port, entry in table.ports.items()
        }

    @property
    def port_pairs(self) -> tuple[dict[str, str], ...]:
        """A guest moves between these ports: the name of a port of each host, by the host's name.

        Of the ports that are on the peer's link, or of all where the links do not tell, the first
        of one host goes with the first of the others, the second with the second, and so on.  A
        host that lends twins is in no pair; where there is none, one empty pair stands for that.
        """
        wired = {end for link in self.links if PEER in link.ends for end in link.ends}
        return self._pairs_of(wired) or self._pairs_of(set(self.ports())) or ({},)

    def _pairs_of(self, ends: set[str]) -> tuple[dict[str, str], ...]:
        names = {
            host: [port for port in entry.ports if f"{host}.{port}" in ends]
            for host, entry in self.hosts.items()
            if entry.twin is None
        }
        in_turn = zip(*names.values(), strict=False)
        return tuple(dict(zip(names, pair, strict=True)) for pair in in_turn)

    def host_in_use(self, name: str) -> HostEntry:
        """Give the host's table without the ports that no test uses; see ``port_pairs``."""
        used = {pair[name] for pair in self.port_pairs if name in pair}
        entry = self.hosts[name]
        ports = {port: each for port, each in entry.ports.items() if port in used}
        return entry.model_copy(update={"ports": ports})

    @property
    def vf_profile(self) -> devices.DeviceProfile:
        """What is true of the VFs that guests get here: those of the first port, or twins."""
        ports = list(self.ports().values())
        if ports:
            return ports[0].profile
        twins = [host.twin for host in self.hosts.values() if host.twin]
        if any(not twin.erratum_35 for twin in twins):
            return devices.without_erratum_35(devices.I82599)
        return devices.I82599

    @property
    def wire_mtu(self) -> int:
        """The largest MTU that every link carries; an emulated wire says its own."""
        if self.emulation is not None:
            return self.emulation.wire_mtu
        return min((link.mtu for link in self.links), default=devices.ETH_DATA_LEN)

    def connection(self, name: str) -> Connection:
        """Say how the host called *name*, or "peer", is reached; raises UsageError."""
        if name in self.hosts:
            host = self.hosts[name]
            return host.connection_of(name, host.address or "localhost")
        if name == PEER and self.peer is not None:
            return self.peer.connection_of(PEER, self.peer.management_address or "localhost")
        machines = [*self.hosts, *([PEER] if self.peer is not None else [])]
        raise UsageError(
            f"lab {self.name!r} has no machine called {name!r}",
            because=f"{self.file} describes {', '.join(machines)}",
            fix="name one of these, or choose another lab with --lab",
        )

    @property
    def offered(self) -> frozenset[str]:
        """Every word that this lab satisfies: stated in ``offers``, or seen in the rest."""
        return frozenset(word for word in needs.WORDS if needs.finding(self, word).met)

    def unmet(self, words: Iterable[str]) -> list[needs.Unmet]:
        """List the words that this lab does not satisfy, in the order given.

        Raises UsageError for a word that means nothing.
        """
        return needs.unmet(self, words)
