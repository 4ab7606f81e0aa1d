"""How a machine is reached: the keys that a host and the peer have in common."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from harness.topology import values


@dataclass(frozen=True, slots=True)
class Connection:
    """How one machine is reached.

    address and port mean nothing when the transport is "local"; namespace is a network namespace
    of the machine the harness runs on, and only "local" has one.
    """

    name: str
    transport: Literal["ssh", "local"]
    address: str
    port: int
    user: str
    identity: Path | None
    known_hosts: Path | None
    namespace: str | None

    @property
    def by_hand(self) -> str:
        """What a person types to get there."""
        if self.transport == "local":
            return f"ip netns exec {self.namespace} sh" if self.namespace else "a shell here"
        key = f" -i {self.identity}" if self.identity else ""
        known = f" -o UserKnownHostsFile={self.known_hosts}" if self.known_hosts else ""
        return f"ssh -p {self.port}{key}{known} {self.user}@{self.address}"


class Entry(BaseModel):
    """One table of a topology file: frozen, and with no key that it does not know."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class Reached(Entry):
    """The keys that say how a machine is reached."""

    transport: Literal["ssh", "local"] = Field(
        default="ssh",
        description='"ssh", or "local" for the machine the harness runs on',
        examples=["ssh"],
    )
    namespace: values.Word | None = Field(
        default=None,
        description='network namespace, with transport "local" only',
        examples=["lab-peer"],
    )
    port: values.TcpPort = Field(default=22, description="SSH port, 1 to 65535", examples=[22])
    user: values.Word = Field(
        default="root", description="SSH user, who must be root", examples=["root"]
    )
    identity: values.OwnPath | None = Field(
        default=None,
        description="path of the private key, from / or ~; without it ssh-agent is asked",
        examples=["~/.ssh/lab"],
    )
    known_hosts: values.OwnPath | None = Field(
        default=None,
        description="path of the file of host keys, from / or ~; without it the user's own",
        examples=["~/.ssh/known_hosts"],
    )

    def connection_of(self, name: str, address: str) -> Connection:
        """Give the connection to the machine of that name, whose SSH address is *address*."""
        return Connection(
            name=name,
            transport=self.transport,
            address=address,
            port=self.port,
            user=self.user,
            identity=self.identity,
            known_hosts=self.known_hosts,
            namespace=self.namespace,
        )
