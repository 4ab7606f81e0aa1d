"""The tables of a topology as frozen models: machines, cables, limits.

Every description ends up in the JSON Schema, in error messages and in topologies/README.md.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, StringConstraints

from harness import devices
from harness.topology import values
from harness.topology.connection import Entry, Reached


class PortEntry(Entry):
    """A port (PF) of a host: ``[hosts.<host>.ports.<port>]``."""

    pci: values.Pci
    device: values.Device
    vfs: values.Count = Field(
        default=2, description="how many VFs a test may make on it, 1 or more", examples=[2]
    )

    @property
    def profile(self) -> devices.DeviceProfile:
        return devices.profile(self.device)


class TwinEntry(Entry):
    """Twins instead of ports: ``[hosts.<host>.twin]``."""

    interface: values.InterfaceName = Field(
        description="network interface of the host that its twins' frames go through, "
        "1 to 15 characters",
        examples=["p0"],
    )
    link_mbit: Literal[100, 1000, 10_000] = Field(
        default=10_000, description="speed of their link, 100, 1000 or 10000", examples=[10_000]
    )
    erratum_35: bool = Field(
        default=True,
        description="false for a PCI Express capability that says what the VF can, its function "
        "reset (FLR) included; real 82599 VFs have zeros there",
        examples=[False],
    )
    dma_log: bool = Field(
        default=True,
        description="false if they are not to write down each access to the guest's memory; "
        "scheme inplace needs that",
        examples=[False],
    )


class HostEntry(Reached):
    """A machine that runs guests: ``[hosts.<host>]``."""

    address: values.Address | None = Field(
        default=None,
        description='host name or IP address that SSH connects to; needed with transport "ssh"',
        examples=["192.0.2.11"],
    )
    qemu: values.Text = Field(
        default="qemu-system-x86_64",
        description="QEMU program, a name in PATH or a path on the host",
        examples=["qemu-system-x86_64"],
    )
    accelerator: Literal["kvm", "tcg"] = Field(
        default="kvm", description='"kvm" or "tcg", for QEMU on this host', examples=["kvm"]
    )
    migration_address: values.Address | None = Field(
        default=None,
        description="host name or IP address by which the other host reaches this one; "
        'without it the key `address`; needed with transport "local"',
        examples=["192.0.2.11"],
    )
    migration_port: values.TcpPort = Field(
        default=4444,
        description="TCP port, 1 to 65535, that QEMU listens on for a migration to this host, "
        "and that the other host connects to",
        examples=[4444],
    )
    ports: dict[values.TableName, PortEntry] = Field(
        default_factory=dict,
        description="table for each port under test",
        examples=["[hosts.alder.ports.p0]"],
    )
    twin: TwinEntry | None = Field(
        default=None,
        description="table for twins, which are VFs without a port",
        examples=["[hosts.alder.twin]"],
    )

    @property
    def migration_endpoint(self) -> tuple[str, int]:
        """Address and TCP port that the other host's QEMU connects to."""
        return self.migration_address or self.address or "localhost", self.migration_port


class PeerEntry(Reached):
    """The machine at the other end of the wire: ``[peer]``."""

    management_address: values.Address | None = Field(
        default=None,
        description='host name or IP address that SSH connects to; needed with transport "ssh"',
        examples=["192.0.2.13"],
    )
    interface: values.InterfaceName = Field(
        description="network interface on the wire, 1 to 15 characters", examples=["ens1f0"]
    )
    address: values.Cidr


DebianKernel = Literal["stable", "backports"]


class GuestEntry(Entry):
    """What guests are like in this lab: ``[guest]``."""

    address: values.Cidr
    mac: values.Mac
    memory_mib: Annotated[int, Field(strict=True, ge=64)] = Field(
        default=512, description="memory in MiB, 64 or more", examples=[512]
    )
    cpus: values.Count = Field(default=1, description="virtual CPUs, 1 or more", examples=[1])
    cpu: Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.,=+-]*$")] | None = (
        Field(
            default=None,
            description="processor as QEMU's `-cpu` takes it; by default all that the host has; "
            "name one that both hosts can offer if their processors differ",
            examples=["Skylake-Server"],
        )
    )
    mtu: values.Mtu = Field(
        default=1500, description="MTU of its interfaces, 68 to 65535", examples=[9000]
    )
    kernel: DebianKernel = Field(
        default="stable",
        description="which of Debian's kernels it boots: stable, that of the lab's hosts, or "
        "backports, the newest",
        examples=["stable"],
    )
    boot_tries: values.Count = Field(
        default=1,
        description="how often one that does not come up is started before that is an error, "
        "1 or more",
        examples=[1],
    )
    migrate_tries: values.Count = Field(
        default=1,
        description="how often a migration that loses its guest is made before that is its result, "
        "1 or more",
        examples=[1],
    )
    retries_may_hide_faults: Annotated[bool, Field(strict=True)] = Field(
        default=False,
        description="whether a lab of real machines may have tries above 1: a try that failed "
        "there may have shown a fault of the driver or of the hardware",
        examples=[True],
    )


class LinkEntry(Entry):
    """A cable or a switch: ``[[links]]``."""

    ends: tuple[values.End, ...] = Field(
        min_length=2,
        description="list of two or more ends, each a port written host.port, host.twin or peer",
        examples=[["alder.p0", "birch.p0", "peer"]],
    )
    mbit: values.Count = Field(description="speed in Mbit/s, 1 or more", examples=[10_000])
    mtu: values.Mtu = Field(
        default=1500, description="largest MTU that it carries, 68 to 65535", examples=[9000]
    )


class Limits(Entry):
    """What a test of this lab may take: ``[limits]``."""

    longest_outage_ms: values.Milliseconds = Field(
        default=1000, description="longest outage that passes, in ms, more than 0", examples=[1000]
    )
    total_outage_ms: values.Milliseconds | None = Field(
        default=None,
        description="sum of a flow's outages that passes, in ms, more than 0; without it any does",
        examples=[2000],
    )
    lost: Annotated[int, Field(strict=True, ge=0)] | None = Field(
        default=None,
        description="lost frames of a flow that pass, 0 or more; without it any number does",
        examples=[500],
    )
    served_while_copied: values.Share = Field(
        default=0.9,
        description="share of the frames due while memory is copied that must arrive in "
        "test_failover.py, 0 to 1",
        examples=[0.9],
    )
    sender_late_max_ms: values.Milliseconds = Field(
        default=10,
        description="lateness of the sender, in ms, more than 0, beyond which there is no result",
        examples=[10],
    )
    clock_uncertainty_ms: values.Milliseconds = Field(
        default=5,
        description="uncertainty of a related clock, in ms, more than 0, "
        "beyond which there is no result",
        examples=[5],
    )
    measure_tries: values.Count = Field(
        default=1,
        description="how often a migration that has no result is measured before that is reported, "
        "1 or more",
        examples=[2],
    )
    rate_pps: values.Count = Field(
        default=200,
        description="frames a second of a flow that names no rate, 1 or more",
        examples=[200],
    )
    bme_per_s: values.Count = Field(
        default=500,
        description="how often a second Bus Master Enable is read, 1 or more",
        examples=[500],
    )


class Emulation(Entry):
    """Read by the program that makes the lab's machines, and by nothing else: ``[emulation]``."""

    host_memory_mib: values.Count = Field(
        default=3072, description="memory of each machine in MiB, 1 or more", examples=[3072]
    )
    host_cpus: values.Count = Field(
        default=2, description="CPUs of each machine, 1 or more", examples=[2]
    )
    ports: Annotated[int, Field(strict=True, ge=1, le=2)] = Field(
        default=1,
        description="how many ports the software 82599 of each machine has, 1 or 2",
        examples=[2],
    )
    host_kernel: DebianKernel = Field(
        default="stable",
        description="which of Debian's kernels each machine boots: stable, or backports, the "
        "newest",
        examples=["stable"],
    )
    vfs: Annotated[int, Field(strict=True, ge=1, le=63)] = Field(
        default=8,
        description="how many VFs each port of a software 82599 has, 1 to 63",
        examples=[8],
    )
    chip_fails: tuple[Literal["in-whole-reads", "until-reset", "dma", "qtest"], ...] = Field(
        default=(),
        description="list of ways that a software 82599 is to fail at, for tests of the lab itself",
        examples=[["dma"]],
    )
    wire_mtu: values.Mtu = Field(
        default=9216, description="MTU of the wire between them, 68 to 65535", examples=[9216]
    )
