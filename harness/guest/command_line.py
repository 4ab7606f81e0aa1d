"""The QEMU command line of a guest: pure, from what it is and where it runs."""

from __future__ import annotations

import json
from typing import Any

from harness.errors import UsageError
from harness.guest.spec import GuestSpec, Place, Trigger
from harness.host.vf import Vf
from harness.topology import GUEST_SSH_PORT

STANDBY, VF, SPARE = "net0", "vf0", "vf1"
"""Ids of the two devices that share the guest's address, as QMP events name them."""

MEMORY, MEMORY_ID = "memory-backend-memfd", "ram"
"""What a guest's memory is where it is shared, which is what QEMU calls its file, and its id."""

TRACE = "trace.log"
"""In the folder of a guest with shared memory: the trace of what QEMU was told to trace."""

MANAGEMENT_MAC = "52:54:00:82:57:ff"
MANAGEMENT_ADDRESS = "10.0.2.15"
"""The guest's end of QEMU's user network, by which SSH comes in; never on the wire."""

PORT_MAC = "52:54:00:82:57:60"
"""Of a port that QEMU emulates; the guest's own address is for the VF that is made on it."""

CPU = {"kvm": "host", "tcg": "max"}


def command_line(spec: GuestSpec, place: Place) -> list[str]:
    """QEMU's arguments.

    Devices stand in the same order on every host, since a migration stream names them by their
    place in the machine.  No device has an option ROM: one would have to exist, byte by byte the
    same, on both hosts.
    """
    return [
        place.qemu, "-name", f"vf-harness-{spec.name}", "-nodefaults", "-display", "none",
        "-no-reboot", *_machine(spec, place),
        "-accel", place.accelerator, "-cpu", spec.cpu or CPU[place.accelerator],
        "-smp", str(spec.cpus), *_hotplug(spec.trigger),
        "-kernel", place.kernel, "-initrd", place.initramfs, "-append", kernel_line(spec),
        "-serial", f"file:{place.folder}/console.log", *_trace(place),
        "-qmp", f"unix:{place.folder}/qmp,server=on,wait=off",
        *_slots(3),
        "-netdev", f"user,id=management,restrict=on,hostfwd=tcp:127.0.0.1:{GUEST_SSH_PORT}-:22",
        "-device", f"virtio-net-pci,netdev=management,bus=slot0,mac={MANAGEMENT_MAC},romfile=",
        *_wire(spec, place), *_vf(place),
        *(("-incoming", "defer") if place.incoming else ()),
        *(("-S",) if place.paused else ()),
    ]  # fmt: skip


def shares_memory(spec: GuestSpec, vf: Vf | None) -> bool:
    """Whether the guest's memory is to be shared.

    Raises UsageError for a guest whose VF could not reach its memory.
    """
    needs = vf is not None and vf.needs_shared_memory
    if needs and spec.shared_memory is False:
        raise UsageError(
            f"guest {spec.name}: its VF is a twin, and its memory is not shared",
            because="a twin is another process: it could not reach the guest's memory",
            fix="leave shared_memory out, or set it",
        )
    return needs or bool(spec.shared_memory)


def kernel_line(spec: GuestSpec) -> str:
    """What the guest's init reads its addresses from."""
    return (
        "console=ttyS0 quiet panic=-1 net.ifnames=0 mitigations=off "
        f"guest.mac={spec.mac} guest.address={spec.address} guest.mtu={spec.mtu} "
        f"guest.management={MANAGEMENT_MAC}"
    )


def _hotplug(trigger: Trigger) -> list[str]:
    if trigger is Trigger.ACPI:
        return []
    return ["-global", "ICH9-LPC.acpi-pci-hotplug-with-bridge-support=off"]


def _slots(count: int) -> list[str]:
    """A failover pair needs PCI Express slots of their own, one for each device."""
    arguments = []
    for number in range(count):
        port = f"pcie-root-port,id=slot{number},chassis={number + 1},slot={number + 1}"
        arguments += ["-device", port]
    return arguments


def _machine(spec: GuestSpec, place: Place) -> list[str]:
    """The machine and its memory; shared memory is a file that others can map."""
    size = str(spec.memory_mib)
    if not place.shared_memory:
        return ["-M", "q35", "-m", size]
    memory = f"{MEMORY},id={MEMORY_ID},size={size}M,share=on"
    return ["-M", f"q35,memory-backend={MEMORY_ID}", "-m", size, "-object", memory]


def _trace(place: Place) -> list[str]:
    """Where a trace is written, each line with its time."""
    if not place.shared_memory:
        return []
    return ["-msg", "timestamp=on", "-D", f"{place.folder}/{TRACE}"]


def _wire(spec: GuestSpec, place: Place) -> list[str]:
    """What is on the tap: the standby, or the port that QEMU emulates."""
    if place.tap is None:
        return []
    tap = f"ifname={place.tap},script=no,downscript=no"
    if spec.emulated_port:
        return [
            "-netdev", f"tap,id=port,{tap}",
            "-device", f"igb,netdev=port,bus=slot1,mac={PORT_MAC},romfile=",
        ]  # fmt: skip
    return [
        "-netdev", f"tap,id=standby,{tap}",
        "-device",
        f"virtio-net-pci,netdev=standby,id={STANDBY},bus=slot1,mac={spec.mac},host_mtu={spec.mtu},"
        f"romfile={',failover=on' if place.vf else ''}",
    ]  # fmt: skip


def vf_device(place: Place) -> dict[str, Any]:
    """The VF as QEMU has it: the primary of a failover pair where there is a standby."""
    pair = {"failover_pair_id": STANDBY} if place.tap else {}
    return {**(place.vf or {}), "id": VF, "bus": "slot2", **pair}


def _vf(place: Place) -> list[str]:
    if place.vf is None:
        return []
    return ["-device", json.dumps(vf_device(place), separators=(",", ":"))]
