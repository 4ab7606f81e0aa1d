"""Checks across the tables of a topology.

They run on whatever tables are sound by themselves, so that one reading of a file tells all of its
faults: a wrong PCI address on one host does not hide that the two others share an address.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, TypeVar

from pydantic import ValidationError

from harness.topology import needs
from harness.topology.capabilities import CapabilityEntry, faults_of_capabilities
from harness.topology.connection import Entry
from harness.topology.entries import (
    Emulation,
    GuestEntry,
    HostEntry,
    LinkEntry,
    PeerEntry,
    PortEntry,
)
from harness.topology.faults import Fault, Key
from harness.topology.machines import faults_of_machines
from harness.topology.models import PEER, TWIN, Topology
from harness.topology.places import dotted

E = TypeVar("E", bound=Entry)


@dataclass(frozen=True, slots=True)
class Draft:
    """The sound tables of a file; one that is there but not sound is None."""

    hosts: dict[str, HostEntry | None]
    ends: tuple[str, ...]
    """What a link may name, sound or not."""
    peer: PeerEntry | None
    guest: GuestEntry | None
    links: tuple[LinkEntry | None, ...]
    capabilities: dict[str, CapabilityEntry | None]
    emulation: Emulation | None
    is_emulated: bool
    """The file has [emulation], sound or not."""

    @classmethod
    def of(cls, raw: dict[str, Any]) -> Draft:
        hosts, links = _table(raw, "hosts"), raw.get("links")
        return cls(
            hosts={name: _sound(HostEntry, table) for name, table in hosts.items()},
            ends=(
                *(f"{host}.{port}" for host in hosts for port in _table(hosts[host], "ports")),
                *(f"{host}.{TWIN}" for host in hosts if _table(hosts[host], TWIN)),
                *([PEER] if PEER in raw else []),
            ),
            peer=_sound(PeerEntry, raw.get(PEER)),
            guest=_sound(GuestEntry, raw.get("guest")),
            links=tuple(_sound(LinkEntry, table) for table in links)
            if isinstance(links, list)
            else (),
            capabilities={
                name: _sound(CapabilityEntry, table)
                for name, table in _table(raw, "capabilities").items()
            },
            emulation=_sound(Emulation, raw.get("emulation")),
            is_emulated="emulation" in raw,
        )

    def machines(self) -> Iterator[tuple[Key, HostEntry | PeerEntry]]:
        for name, host in self.hosts.items():
            if host is not None:
                yield ("hosts", name), host
        if self.peer is not None:
            yield (PEER,), self.peer

    def sound_links(self) -> Iterator[tuple[int, LinkEntry]]:
        for number, link in enumerate(self.links):
            if link is not None:
                yield number, link

    def ports(self) -> Iterator[tuple[Key, PortEntry]]:
        for name, host in self.hosts.items():
            for port, entry in host.ports.items() if host is not None else ():
                yield ("hosts", name, "ports", port), entry


def _table(raw: Any, name: str) -> dict[str, Any]:
    table = raw.get(name) if isinstance(raw, dict) else None
    return table if isinstance(table, dict) else {}


def _sound(model: type[E], table: Any) -> E | None:
    try:
        return model.model_validate(table)
    except ValidationError:
        return None  # the whole file is validated as well, and tells why


def _names(draft: Draft) -> Iterator[Fault]:
    if PEER in draft.hosts:
        yield Fault(
            ("hosts", PEER), "is a host called peer", "another name: links mean [peer] by this one"
        )


def _connections(draft: Draft) -> Iterator[Fault]:
    for key, machine in draft.machines():
        if machine.transport == "ssh" and machine.namespace is not None:
            yield Fault(
                (*key, "namespace"),
                'is set, but transport is "ssh"',
                'no namespace, or transport = "local"',
            )
    for name, host in draft.hosts.items():
        own = "address" if host and host.transport == "ssh" else "migration_address"
        if host is not None and getattr(host, own) is None:
            yield Fault(
                ("hosts", name, own),
                f'is missing, and transport is "{host.transport}"',
                'an address, such as "192.0.2.11"',
            )
        if host is not None and host.twin is not None and host.transport != "local":
            yield Fault(
                ("hosts", name, TWIN),
                f'is there, and transport is "{host.transport}"',
                "transport = \"local\": the device's own log is read by this machine's clock",
            )
    peer = draft.peer
    if peer is not None and peer.transport == "ssh" and peer.management_address is None:
        yield Fault(
            (PEER, "management_address"),
            "is missing",
            'an address that SSH connects to, such as "192.0.2.13", or transport = "local"',
        )


def _ways_in(draft: Draft) -> Iterator[Fault]:
    """No two machines may be one."""
    seen: dict[tuple[str | int | None, ...], Key] = {}
    for key, machine in draft.machines():
        if machine.transport == "local":
            way: tuple[str | int | None, ...] = ("local", machine.namespace)
            where, text = (*key, "namespace"), f"namespace {machine.namespace or '(none)'}"
        else:
            own = "address" if isinstance(machine, HostEntry) else "management_address"
            address = getattr(machine, own)
            way = ("ssh", address, machine.port)
            where, text = (*key, own), f"{address} port {machine.port}"
        if address_owner := seen.get(way):
            yield Fault(
                where,
                f"leads to {text}, as {dotted(address_owner)} does",
                "an address and port of its own for each machine, "
                'such as address = "192.0.2.12" or port = 22023',
            )
        seen.setdefault(way, key)


def _migration(draft: Draft) -> Iterator[Fault]:
    """No two hosts may take in migrations at one place."""
    seen: dict[tuple[str, int], tuple[Key, HostEntry]] = {}
    for name, host in draft.hosts.items():
        if host is None:
            continue
        key: Key = ("hosts", name)
        other_key, other = seen.setdefault(host.migration_endpoint, (key, host))
        if other is not host and (other.address, other.port) != (host.address, host.port):
            address, port = host.migration_endpoint
            yield Fault(
                (*key, "migration_port"),
                f"is {port} at {address}, as that of {dotted(other_key)} is",
                "a migration_address or migration_port of its own for each host, "
                "such as migration_port = 4445",
            )


def _ports(draft: Draft) -> Iterator[Fault]:
    seen: dict[tuple[str, str], Key] = {}
    for key, port in draft.ports():
        here = (str(key[1]), port.pci)
        if other := seen.get(here):
            yield Fault(
                (*key, "pci"),
                f"is {port.pci}, as {dotted(other)} is",
                "one table for each port of a host",
            )
        seen.setdefault(here, key)
        most = port.profile.max_vfs
        if port.vfs > most.value:
            yield Fault(
                (*key, "vfs"),
                f"is {port.vfs}, more than Linux makes on the {port.device}",
                f"{most.value} or fewer ({most.source})",
            )


def _links(draft: Draft) -> Iterator[Fault]:
    seen: dict[str, Key] = {}
    for number, link in draft.sound_links():
        for place, end in enumerate(link.ends):
            key: Key = ("links", number, "ends", place)
            if end not in draft.ends:
                yield Fault(
                    key,
                    f'is "{end}", which leads to nowhere',
                    f"a port or the peer, one of {', '.join(draft.ends) or '(none described)'}",
                )
            elif other := seen.get(end):
                yield Fault(
                    key,
                    f'is "{end}", as {dotted(other)} is',
                    "each port at the end of one link only",
                )
            seen.setdefault(end, key)


def _mtus(draft: Draft) -> Iterator[Fault]:
    ports = {f"{key[1]}.{key[3]}": port for key, port in draft.ports()}
    for number, link in draft.sound_links():
        profiles = [ports[end].profile for end in link.ends if end in ports]
        least = min(profiles, key=lambda profile: profile.pf_max_mtu.value, default=None)
        if least is not None and link.mtu > least.pf_max_mtu.value:
            yield Fault(
                ("links", number, "mtu"),
                f"is {link.mtu}, more than the {least.name} can carry",
                f"{least.pf_max_mtu.value} or less ({least.pf_max_mtu.source})",
            )
    widest = max((link.mtu for _, link in draft.sound_links()), default=None)
    if draft.guest is not None and widest is not None and draft.guest.mtu > widest:
        yield Fault(
            ("guest", "mtu"),
            f"is {draft.guest.mtu}, more than any link carries",
            f"{widest} or less, or a link with a larger mtu",
        )


def _wire(draft: Draft) -> Iterator[Fault]:
    if draft.peer is None or draft.guest is None:
        return
    peer, guest = draft.peer.address, draft.guest.address
    if guest.ip == peer.ip:
        yield Fault(
            ("guest", "address"),
            f"is {guest}, the peer's own",
            f"another address of {peer.network}",
        )
    elif guest.network != peer.network:
        yield Fault(
            ("guest", "address"),
            f"is {guest}, out of the peer's network {peer.network}",
            f"an address of {peer.network}: between guest and peer there is no router",
        )


def _tries(draft: Draft) -> Iterator[Fault]:
    """A retry on real machines hides what the harness is there to find, unless the file says so."""
    guest = draft.guest
    if guest is None or draft.is_emulated or guest.retries_may_hide_faults:
        return
    for key, tries in (("boot_tries", guest.boot_tries), ("migrate_tries", guest.migrate_tries)):
        if tries > 1:
            yield Fault(
                ("guest", key),
                f"is {tries}, and the machines are real",
                "1, since a retry may hide a fault of driver or hardware; or "
                "retries_may_hide_faults = true beside it",
            )


def _capabilities(draft: Draft) -> Iterator[Fault]:
    return faults_of_capabilities(draft.capabilities)


def _machines(draft: Draft) -> Iterator[Fault]:
    return faults_of_machines(draft.emulation, draft.hosts)


CHECKS: tuple[Callable[[Draft], Iterator[Fault]], ...] = (
    *(_names, _connections, _ways_in, _migration),
    *(_ports, _links, _mtus, _wire, _tries, _capabilities, _machines),
)


def faults_across(raw: dict[str, Any]) -> list[Fault]:
    """List what does not fit together among the sound tables of *raw*, a file as TOML reads it."""
    draft = Draft.of(raw)
    return [fault for check in CHECKS for fault in check(draft)]


def faults_of_offers(topology: Topology) -> list[Fault]:
    """List the words in ``offers`` that the rest of the file shows to be untrue."""
    faults = []
    for number, word in enumerate(topology.offers):
        seen = needs.finding(topology, word)
        if not seen.met:
            faults.append(
                Fault(
                    ("offers", number),
                    f'is "{word}", but the lab has {seen.found}',
                    f"that word only with {needs.WORDS[word].meaning}",
                )
            )
    return faults
