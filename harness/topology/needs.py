"""What a test may need of a lab: the words, how each is seen in a topology, and what is missing."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from harness.devices import ETH_DATA_LEN, I82599, PROFILES, DeviceProfile, JumboRule
from harness.errors import UsageError

if TYPE_CHECKING:
    from harness.topology.entries import PortEntry, TwinEntry
    from harness.topology.models import Topology

JUMBO_MTU = 9000
"""What a link must carry to be called jumbo: the MTU of 9K receive buffers."""


@dataclass(frozen=True, slots=True)
class Finding:
    """Whether a lab has what a word means; if not, what it has instead and under which key."""

    met: bool
    found: str = ""
    key: tuple[str | int, ...] = ()


@dataclass(frozen=True, slots=True)
class Word:
    """A word for ``needs(...)``; one without *look* can only be stated in ``offers``."""

    meaning: str
    look: Callable[[Topology], Finding] | None = None


@dataclass(frozen=True, slots=True)
class Unmet:
    """A need that a lab does not satisfy; as text, the reason of a skip."""

    need: str
    lab: str
    found: str
    place: str

    def __str__(self) -> str:
        return f"needs {self.need}: lab {self.lab!r} has {self.found} ({self.place})"


def _two_hosts(lab: Topology) -> Finding:
    return Finding(len(lab.hosts) >= 2, f"{len(lab.hosts)} host", ("hosts",))


def _sriov(lab: Topology) -> Finding:
    bare = [name for name, host in lab.hosts.items() if not host.ports]
    return Finding(not bare, f"no port on {' and '.join(bare)}", ("hosts", *bare[:1]))


def _twin(lab: Topology) -> Finding:
    without = [name for name, host in lab.hosts.items() if host.twin is None]
    return Finding(not without, f"no twin on {' and '.join(without)}", ("hosts", *without[:1]))


def _vf(lab: Topology) -> Finding:
    bare = [name for name, host in lab.hosts.items() if not (host.ports or host.twin)]
    found = f"neither port nor twin on {' and '.join(bare)}"
    return Finding(not bare, found, ("hosts", *bare[:1]))


def _two_vfs(lab: Topology) -> Finding:
    few = [name for name, port in lab.ports().items() if port.vfs < 2]
    return _fewer(few, "one VF") if few else _vf(lab)


def _all_vfs(lab: Topology) -> Finding:
    few = [name for name, port in lab.ports().items() if port.vfs < port.profile.max_vfs.value]
    return _fewer(few, "not all VFs") if few else _sriov(lab)


def _fewer(ports: list[str], what: str) -> Finding:
    host, _, port = ports[0].partition(".")
    return Finding(False, f"{what} on {' and '.join(ports)}", ("hosts", host, "ports", port, "vfs"))


def _peer(lab: Topology) -> Finding:
    return Finding(lab.peer is not None, "no peer")


def _wire(lab: Topology) -> Finding:
    return Finding(lab.emulation is not None, "cables that only a person can cut")


def _jumbo(lab: Topology) -> Finding:
    widest = max((link.mtu for link in lab.links), default=ETH_DATA_LEN)
    mtu = min(widest, lab.guest.mtu)
    key = ("guest", "mtu") if lab.guest.mtu < widest else ("links", 0, "mtu")
    return Finding(mtu >= JUMBO_MTU, f"an MTU of {mtu}", key)


def _on_every_host(
    fits: Callable[[PortEntry], bool], *, twins_do: bool = False
) -> Callable[[Topology], Finding]:
    """Make a look that is met when each host has a port that *fits*, and else names devices.

    With *twins_do* a host that lends twins will do as well.
    """

    def look(lab: Topology) -> Finding:
        without = [
            name
            for name, host in lab.hosts.items()
            if not ((twins_do and host.twin) or any(map(fits, host.ports.values())))
        ]
        if not without:
            return Finding(True)
        devices = dict.fromkeys(port.device for port in lab.ports().values() if not fits(port))
        if not devices:
            return _vf(lab) if twins_do else _sriov(lab)
        ports = lab.hosts[without[0]].ports
        port = ("ports", next(iter(ports)), "device") if ports else ()
        return Finding(False, " and ".join(devices), ("hosts", without[0], *port))

    return look


def _vf_is(fits: Callable[[DeviceProfile], bool]) -> Callable[[Topology], Finding]:
    """Make a look that is met when each host lends a VF whose profile *fits*, a twin included."""
    return _on_every_host(lambda port: fits(port.profile), twins_do=fits(I82599))


def _in_software(lacks: str, of_twin: Callable[[TwinEntry], bool]) -> Callable[[Topology], Finding]:
    def look(lab: Topology) -> Finding:
        for name, host in lab.hosts.items():
            chip = lab.emulation and any(port.device == "82599" for port in host.ports.values())
            if not chip and not (host.twin and of_twin(host.twin)):
                return Finding(False, f"{lacks} on {name}", ("hosts", name))
        return Finding(True)

    return look


def _describes(capability: str) -> Callable[[Topology], Finding]:
    def look(lab: Topology) -> Finding:
        described = ", ".join(lab.capabilities) or "none"
        found = f"no capability {capability} among those described: {described}"
        return Finding(capability in lab.capabilities, found, ("capabilities",))

    return look


def _is(device: str) -> Callable[[PortEntry], bool]:
    return lambda port: port.device == device


WORDS: dict[str, Word] = {
    "two-hosts": Word("two hosts or more", _two_hosts),
    "sriov": Word("a port on every host", _sriov),
    "vf": Word("on every host a VF to lend, a port's or a twin", _vf),
    "twin": Word("on every host twins: software 82599 VFs over vfio-user", _twin),
    "ixgbevf": Word(
        "on every host a VF that is driven by ixgbevf, a twin included",
        _vf_is(lambda profile: profile.vf_driver.value == "ixgbevf"),
    ),
    "two-vfs": Word("on every host two VFs that a test may have, of one port or twins", _two_vfs),
    "all-vfs": Word("on every port leave to make as many VFs as its family has", _all_vfs),
    "peer": Word("a peer on the wire", _peer),
    "jumbo": Word(f"a link and a guest with an MTU of {JUMBO_MTU} or more", _jumbo),
    "jumbo-rule": Word(
        "on every host a VF whose MTU follows that of its port",
        _vf_is(lambda profile: profile.jumbo_rule.value is JumboRule.FOLLOWS_PORT),
    ),
    "vf-link-state": Word(
        "on every host a VF whose link state its port can set",
        _vf_is(lambda profile: bool(profile.vf_link_states.value)),
    ),
    "vf-spoof-check": Word(
        "on every host a VF whose port drops what it sends with another's address",
        _vf_is(lambda profile: profile.vf_spoof_check.value),
    ),
    **{
        name: Word(f"on every host a port of the {name}", _on_every_host(_is(name)))
        for name in PROFILES
    },
    "dma-log": Word(
        "on every host VFs that write down their own DMA: software ones",
        _in_software("nothing that logs a VF's DMA", lambda twin: twin.dma_log),
    ),
    "software-vf": Word(
        "on every host VFs in software, which can misbehave",
        _in_software("no VF in software", lambda _: True),
    ),
    "msix": Word("a description of its VFs' capability msix", _describes("msix")),
    "migration-capability": Word(
        "a description of a capability migration, as patches of 2015 have it",
        _describes("migration"),
    ),
    "wire": Word("a wire that can be cut and listened to by program", _wire),
    "iommu": Word("an IOMMU on every host, each VF in a group of its own"),
    "shared-storage": Word("disks that both hosts see under one path"),
}


def finding(lab: Topology, word: str) -> Finding:
    """Look in *lab* for what *word*, which must be a known one, means."""
    if (by_sight := WORDS[word].look) is not None:
        return by_sight(lab)
    stated = f"only {', '.join(lab.offers)} among its offers" if lab.offers else "no offers"
    return Finding(word in lab.offers, stated, ("offers",))


def unmet(lab: Topology, words: Iterable[str]) -> list[Unmet]:
    """List the *words* that *lab* does not satisfy; raises UsageError for an unknown one."""
    missing = []
    for word in words:
        if word not in WORDS:
            near = difflib.get_close_matches(word, WORDS, n=1)
            guess = f"; did you mean {near[0]!r}?" if near else ""
            raise UsageError(
                f"a test needs {word!r}, which is no word for what a lab offers{guess}",
                because="a word that no lab can offer would skip the test everywhere",
                fix=f"use one of {', '.join(WORDS)}, or add a word to harness/topology/needs.py",
            )
        seen = finding(lab, word)
        if not seen.met:
            missing.append(Unmet(word, lab.name, seen.found, lab.place(*seen.key)))
    return missing
