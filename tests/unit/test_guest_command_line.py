"""QEMU's arguments for a guest: what they are, and that both hosts have the same machine."""

from __future__ import annotations

import itertools
import json
from dataclasses import replace
from ipaddress import IPv4Interface
from typing import cast

import pytest

from harness.errors import UsageError
from harness.guest.command_line import command_line, kernel_line, shares_memory
from harness.guest.spec import GuestSpec, Place, Trigger
from harness.host import vf
from harness.topology import MacAddress, find, load

SPEC = GuestSpec(
    memory_mib=256,
    cpus=2,
    mac=MacAddress("52:54:00:12:34:56"),
    address=IPv4Interface("198.18.0.2/24"),
    mtu=9000,
)
SOURCE = Place(
    qemu="qemu-system-x86_64",
    accelerator="kvm",
    kernel="/images/vmlinuz",
    initramfs="/images/initramfs",
    folder="/run/vf-harness/guest-0",
    tap="vfh0-guest",
    vf={"driver": "vfio-pci", "host": "0000:17:10.0"},
    incoming=False,
)
DESTINATION = replace(
    SOURCE,
    folder="/run/vf-harness/guest-1",
    vf={"driver": "vfio-pci", "host": "0000:af:10.2"},
    incoming=True,
)
TWIN = replace(
    SOURCE,
    tap=None,
    vf={"driver": "vfio-user-pci", "socket": {"type": "unix", "path": "/run/vf"}},
    shared_memory=True,
)
WITHOUT_VF = replace(SOURCE, vf=None)

MACHINE = """
qemu-system-x86_64 -name vf-harness-guest -nodefaults -display none
-no-reboot -M q35 -m 256 -accel kvm -cpu host -smp 2
"""
SHARED = MACHINE.replace(
    "-M q35 -m 256",
    "-M q35,memory-backend=ram -m 256 -object memory-backend-memfd,id=ram,size=256M,share=on",
)
REST = """
-kernel /images/vmlinuz -initrd /images/initramfs -append KERNEL_LINE
-serial file:/run/vf-harness/guest-0/console.log
-qmp unix:/run/vf-harness/guest-0/qmp,server=on,wait=off
-device pcie-root-port,id=slot0,chassis=1,slot=1
-device pcie-root-port,id=slot1,chassis=2,slot=2
-device pcie-root-port,id=slot2,chassis=3,slot=3
-netdev user,id=management,restrict=on,hostfwd=tcp:127.0.0.1:2222-:22
-device virtio-net-pci,netdev=management,bus=slot0,mac=52:54:00:82:57:ff,romfile=
"""
TRACED = REST.replace(
    "/console.log", "/console.log -msg timestamp=on -D /run/vf-harness/guest-0/trace.log"
)
STANDBY = (
    "-netdev tap,id=standby,ifname=vfh0-guest,script=no,downscript=no "
    "-device virtio-net-pci,netdev=standby,id=net0,bus=slot1,mac=52:54:00:12:34:56,"
    "host_mtu=9000,romfile="
)
PAIR = (
    f"{STANDBY},failover=on "
    '-device {"driver":"vfio-pci","host":"0000:17:10.0","id":"vf0","bus":"slot2",'
    '"failover_pair_id":"net0"}'
)
ALONE = (
    '-device {"driver":"vfio-user-pci","socket":{"type":"unix","path":"/run/vf"},'
    '"id":"vf0","bus":"slot2"}'
)
EMULATED_PORT = (
    "-netdev tap,id=port,ifname=vfh0-guest,script=no,downscript=no "
    "-device igb,netdev=port,bus=slot1,mac=52:54:00:82:57:60,romfile="
)
NATIVE_HOTPLUG = "-global ICH9-LPC.acpi-pci-hotplug-with-bridge-support=off"

GOLDEN = {
    "a VF, ACPI": (SPEC, SOURCE, f"{MACHINE} {REST} {PAIR}"),
    "a VF, native PCIe": (
        replace(SPEC, trigger=Trigger.PCIE),
        SOURCE,
        f"{MACHINE} {NATIVE_HOTPLUG} {REST} {PAIR}",
    ),
    "no VF": (SPEC, WITHOUT_VF, f"{MACHINE} {REST} {STANDBY}"),
    "a port of QEMU's own": (
        replace(SPEC, standby=False, emulated_port=True),
        WITHOUT_VF,
        f"{MACHINE} {REST} {EMULATED_PORT}",
    ),
    "incoming": (SPEC, replace(SOURCE, incoming=True), f"{MACHINE} {REST} {PAIR} -incoming defer"),
    "a twin": (replace(SPEC, standby=False), TWIN, f"{SHARED} {TRACED} {ALONE}"),
    "a twin, paused": (
        replace(SPEC, standby=False),
        replace(TWIN, incoming=True, paused=True),
        f"{SHARED} {TRACED} {ALONE} -incoming defer -S",
    ),
}


def devices(argv: list[str]) -> list[str]:
    """List what follows each ``-device``, in order."""
    return [value for option, value in itertools.pairwise(argv) if option == "-device"]


def without(device: str, *names: str) -> list[str]:
    """List the properties of a device, but for *names*."""
    if device.startswith("{"):
        return [
            f"{name}={value}" for name, value in json.loads(device).items() if name not in names
        ]
    return [each for each in device.split(",") if each.partition("=")[0] not in names]


@pytest.mark.parametrize("case", GOLDEN)
def test_the_command_is(case: str) -> None:
    """Word by word: one that is lost or misspelt shows on a host only, minutes later."""
    spec, place, golden = GOLDEN[case]
    wanted = [word.replace("KERNEL_LINE", kernel_line(spec)) for word in golden.split()]
    assert command_line(spec, place) == wanted


@pytest.mark.parametrize("trigger", Trigger)
def test_source_and_destination_have_the_same_devices_in_the_same_places(trigger: Trigger) -> None:
    """A migration stream names devices by their places; one that moved is `Unknown section`.

    Only the address of the VF may differ, which is the host's.
    """
    spec = replace(SPEC, trigger=trigger)
    source, destination = (command_line(spec, place) for place in (SOURCE, DESTINATION))
    assert [without(each, "host") for each in devices(source)] == [
        without(each, "host") for each in devices(destination)
    ]
    assert devices(source)[-1] != devices(destination)[-1], "each has a VF of its own host"


def test_only_what_belongs_to_a_place_differs_between_two_places() -> None:
    """Memory, processors, kernel and its parameters are the guest's, wherever it runs."""
    source, destination = command_line(SPEC, SOURCE), command_line(SPEC, DESTINATION)
    differing = [(a, b) for a, b in itertools.zip_longest(source, destination) if a != b]
    assert [pair[0] and pair[0].partition("=")[0].partition(":")[0] for pair in differing] == [
        "file", "unix", '{"driver"', None, None,
    ]  # fmt: skip


@pytest.mark.parametrize("place", [SOURCE, WITHOUT_VF, DESTINATION])
def test_no_device_has_an_option_rom(place: Place) -> None:
    """It is part of the stream: another version of it on the other host ends the migration.

    virtio-net-pci has one unless it is told not to; a VF has none (SR-IOV 1.1, section 3.4.1).
    """
    argv = command_line(SPEC, place)
    cards = [each for each in devices(argv) if each.startswith("virtio-net-pci")]
    assert len(cards) == 2
    assert all("romfile=" in each.split(",") for each in cards)
    assert [each for each in devices(argv) if "rom" in each and "romfile=" not in each] == []


def test_the_vf_and_its_standby_are_a_pair() -> None:
    """Each names the other, or QEMU neither hides the VF nor unplugs it."""
    *_, standby, vf = devices(command_line(SPEC, SOURCE))
    assert "failover=on" in standby.split(",")
    assert json.loads(vf)["failover_pair_id"] == _property(standby, "id")
    assert _property(standby, "bus") != json.loads(vf)["bus"]


class Vf:
    """A VF that reaches its guest's memory as a file, or as the kernel pins it."""

    def __init__(self, *, needs_shared_memory: bool) -> None:
        self.needs_shared_memory = needs_shared_memory


TWIN_VF, PORTS_VF = (cast("vf.Vf", Vf(needs_shared_memory=needs)) for needs in (True, False))


@pytest.mark.parametrize(
    ("wanted", "lent", "shared"),
    [
        (None, TWIN_VF, True),
        (True, TWIN_VF, True),
        (None, PORTS_VF, False),
        (True, PORTS_VF, True),
        (False, PORTS_VF, False),
        (None, None, False),
    ],
)
def test_memory_is_shared_where_the_vf_needs_it_or_somebody_wants_it(
    wanted: bool | None, lent: vf.Vf | None, shared: bool
) -> None:
    assert shares_memory(replace(SPEC, shared_memory=wanted), lent) is shared


def test_a_twins_guest_without_shared_memory_is_refused_before_it_is_started() -> None:
    """It would boot, find its VF, and have no frame ever reach its memory."""
    with pytest.raises(UsageError, match="its VF is a twin, and its memory is not shared"):
        shares_memory(replace(SPEC, shared_memory=False), TWIN_VF)


def test_kvm_and_tcg_have_a_processor_that_they_can_run() -> None:
    """``-cpu host`` is refused without KVM."""
    argv = command_line(SPEC, replace(SOURCE, accelerator="tcg"))
    assert argv[argv.index("-accel") + 1] == "tcg"
    assert argv[argv.index("-cpu") + 1] == "max"


def test_the_kernel_is_told_the_guests_addresses() -> None:
    """The guest has no other way to learn them."""
    words = kernel_line(SPEC).split()
    assert {
        "guest.mac=52:54:00:12:34:56",
        "guest.address=198.18.0.2/24",
        "guest.mtu=9000",
        "guest.management=52:54:00:82:57:ff",
    } <= set(words)


def test_a_processor_that_the_topology_names_is_the_guests() -> None:
    """Hosts with different processors have no other way to be a pair."""
    argv = command_line(replace(SPEC, cpu="Skylake-Server"), SOURCE)
    assert argv[argv.index("-cpu") + 1] == "Skylake-Server"


def test_a_spec_is_what_the_topology_says() -> None:
    """A field that is not taken over leaves the guest with a default that nobody chose."""
    entry = load(find("emulated")).guest
    spec = GuestSpec.of(entry, Trigger.PCIE)
    for name in ("memory_mib", "cpus", "cpu", "mac", "address", "mtu"):
        assert getattr(spec, name) == getattr(entry, name)
    assert spec.trigger is Trigger.PCIE


def _property(device: str, name: str) -> str:
    return next(each.partition("=")[2] for each in device.split(",") if each.startswith(f"{name}="))
