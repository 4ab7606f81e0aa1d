"""A lab, read from a TOML file and checked whole: frozen models that know where each key stands."""

from harness.topology.capabilities import Capabilities, CapabilityEntry, FieldEntry
from harness.topology.connection import Connection
from harness.topology.entries import (
    DebianKernel,
    Emulation,
    GuestEntry,
    HostEntry,
    Limits,
    LinkEntry,
    PeerEntry,
    PortEntry,
    TwinEntry,
)
from harness.topology.models import GUEST_SSH_PORT, PEER, Topology
from harness.topology.needs import WORDS, Unmet
from harness.topology.reading import TOPOLOGIES, find, load, schema
from harness.topology.values import MacAddress, PciAddress

__all__ = [
    "GUEST_SSH_PORT",
    "PEER",
    "TOPOLOGIES",
    "WORDS",
    "Capabilities",
    "CapabilityEntry",
    "Connection",
    "DebianKernel",
    "Emulation",
    "FieldEntry",
    "GuestEntry",
    "HostEntry",
    "Limits",
    "LinkEntry",
    "MacAddress",
    "PciAddress",
    "PeerEntry",
    "PortEntry",
    "Topology",
    "TwinEntry",
    "Unmet",
    "find",
    "load",
    "schema",
]
