"""An emulated host: its QEMU command line, and which saved state fits it."""

from __future__ import annotations

import itertools
import json
import os
import subprocess
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from harness.errors import LabError
from harness.lab import machine as machine_module
from harness.lab.card import Card
from harness.lab.image import Image
from harness.lab.machine import Cables, Machine, MachineSpec
from harness.waiting import Deadline

SPEC = MachineSpec(
    lab="emulated",
    host="alder",
    number=1,
    memory_mib=3072,
    cpus=2,
    accelerator="tcg",
    card=Card("82599", ports=1, vfs=2),
    forwards=((22022, 22),),
)
IGB = replace(SPEC, card=Card("82576", ports=1, vfs=2))
IMAGE = Image(Path("/cache/tree"), Path("/cache/image"), "0123456789ab")
CABLES = Cables(wires=(7,), migration=8)


def values(argv: list[str], option: str) -> list[str]:
    """List what follows each *option*, in order."""
    return [value for name, value in itertools.pairwise(argv) if name == option]


def test_the_command_is() -> None:
    """Word by word: one that is lost shows minutes later, as a host that does not come up."""
    golden = """
    qemu-system-x86_64 -name vf-harness-lab-emulated-alder
    -nodefaults -display none -no-reboot
    -M q35 -accel tcg,thread=multi,tb-size=1024 -cpu EPYC-Rome,+svm,phys-bits=36
    -smp 2 -m 3072 -machine memory-backend=memory
    -object memory-backend-memfd,id=memory,size=3072M,share=on
    -device intel-iommu,intremap=on,caching-mode=on
    -kernel /lab/vmlinuz -initrd /lab/host-initramfs -append KERNEL_LINE
    -drive if=none,id=disk,file=/lab/disk.img,format=raw,readonly=on
    -device virtio-blk-pci,drive=disk
    -netdev user,id=management,hostfwd=tcp:127.0.0.1:22022-:22
    -device virtio-net-pci,netdev=management,romfile=,mac=52:54:00:82:57:fe
    -netdev dgram,id=migration,local.type=fd,local.str=8
    -device virtio-net-pci,netdev=migration,romfile=,host_mtu=16000,mac=52:54:00:82:59:01
    -object rng-random,id=random,filename=/dev/urandom
    -device virtio-rng-pci,rng=random
    -device pcie-root-port,id=slot1,chassis=1,slot=1,bus-reserve=1,pref64-reserve=8M
    -device PORT -device VF -device VF
    -serial file:/run/alder.console
    -qmp unix:/run/alder.qmp,server=on,wait=off
    """
    (kernel_line,) = values(SPEC.argv(CABLES), "-append")
    functions = [value for value in values(SPEC.argv(CABLES), "-device") if value[0] == "{"]
    places = iter(functions)
    wanted = [
        next(places) if word in ("PORT", "VF") else word.replace("KERNEL_LINE", kernel_line)
        for word in golden.split()
    ]
    assert SPEC.argv(CABLES) == wanted
    assert [json.loads(each)["addr"] for each in functions] == ["0.0", "10.0", "10.2"]
    assert {"intel_iommu=on", "lab.host=alder", "lab.number=1"} <= set(kernel_line.split())


def test_the_iommu_comes_before_every_device_it_translates_for() -> None:
    """One that is made earlier is left out of it, and its VFs have no group."""
    assert values(SPEC.argv(CABLES), "-device")[0].startswith("intel-iommu")


def test_no_card_has_an_option_rom() -> None:
    """The firmware would try to boot from each of them: seconds of a TCG boot."""
    cards = [each for each in values(IGB.argv(CABLES), "-device") if "netdev=" in each]
    assert len(cards) == 3
    assert all("romfile=" in card.split(",") for card in cards)


def test_two_hosts_share_no_address_on_a_common_wire() -> None:
    """Their ports and migration cables meet; the same address twice is an outage at random."""
    first, second = IGB.argv(CABLES), replace(IGB, host="birch", number=2).argv(CABLES)
    met = [
        {each for card in values(argv, "-device") for each in card.split(",")
         if each.startswith("mac=") and ":fe" not in each}
        for argv in (first, second)
    ]  # fmt: skip
    assert [len(each) for each in met] == [2, 2]
    assert met[0] & met[1] == set()


def test_kvm_runs_the_hosts_own_processor() -> None:
    """A nested guest needs the virtualization that only the real model has.

    QEMU refuses a vIOMMU that remaps interrupts unless part of their controller is its own.
    """
    argv = replace(SPEC, accelerator="kvm").argv(CABLES)
    assert values(argv, "-accel") == ["kvm,kernel-irqchip=split"]
    assert values(argv, "-cpu") == ["host"]


@pytest.mark.parametrize(
    "change",
    [
        {"memory_mib": 2048},
        {"cpus": 1},
        {"accelerator": "kvm"},
        {"forwards": ((22024, 22),)},
        {"number": 2},
        {"host": "birch"},
        {"lab": "other"},
        {"card": Card("82599", ports=2, vfs=2)},
        {"card": Card("82576", ports=1, vfs=2)},
    ],
    ids=lambda change: next(iter(change)),
)
def test_a_saved_state_does_not_fit_another_machine(change: dict[str, object]) -> None:
    """QEMU would load it into a machine that it was not taken of, and fail, or worse, not."""
    assert replace(SPEC, **change).state_name(IMAGE) != SPEC.state_name(IMAGE)  # type: ignore[arg-type]


def test_a_saved_state_does_not_fit_another_image() -> None:
    """Its memory holds pages of a disk that is not there any more."""
    assert SPEC.state_name(replace(IMAGE, hash="ba9876543210")) != SPEC.state_name(IMAGE)


def test_a_saved_state_does_not_depend_on_where_the_image_lies() -> None:
    """The cache may be moved; only the content counts."""
    moved = replace(IMAGE, tree=Path("/else/tree"), folder=Path("/else/image"))
    assert SPEC.state_name(moved) == SPEC.state_name(IMAGE)


def test_a_saved_state_fits_whatever_the_descriptors_are() -> None:
    """They differ from start to start; with them in the name no state would be found again."""
    starts = [replace(SPEC), replace(SPEC)]
    commands = [spec.argv(Cables((n,), n + 1)) for n, spec in enumerate(starts, start=7)]
    assert commands[0] != commands[1]
    assert len({spec.state_name(IMAGE) for spec in starts}) == 1


@pytest.fixture
def started(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Callable[[MachineSpec, list[str], list[str]], Machine]]:
    """Start a host whose chip and whose QEMU are other programs; both are ended afterwards."""
    programs: list[subprocess.Popen[bytes]] = []

    def noted(process: subprocess.Popen[bytes]) -> subprocess.Popen[bytes]:
        programs.append(process)
        return process

    def start(spec: MachineSpec, chip: list[str], qemu: list[str]) -> Machine:
        monkeypatch.setattr(machine_module, "start_chip", lambda *_, **__: subprocess.Popen(chip))
        monkeypatch.setattr(machine_module, "in_tree", lambda *_, **__: qemu)
        host, wire = Machine(spec, IMAGE, tmp_path), os.open(os.devnull, os.O_RDONLY)
        cables = Cables((wire,), wire)
        host.start(cables, Deadline(30), resume=False, dies_with_us=True)
        os.close(wire)
        return host

    monkeypatch.setattr(machine_module, "ours", noted)
    yield start
    for process in programs:
        process.kill()
        process.wait()


NOBODY_LISTENS = ((1, 22),)
"""A lab that is up answers on the ports that SPEC has."""

Started = Callable[[MachineSpec, list[str], list[str]], Machine]


@pytest.mark.parametrize(("device", "status"), [("82599", 13), ("82576", 11)])
def test_a_qemu_without_the_chips_device_is_told_from_another_that_ends(
    started: Started, device: str, status: int
) -> None:
    """`make demo` goes on with the lab of QEMU's own 82576 at status 13 alone."""
    said = "qemu-system-x86_64: -device {}: 'vfio-user-pci' is not a valid device model name"
    spec = replace(SPEC, card=Card(device, ports=1, vfs=2), forwards=NOBODY_LISTENS)
    host = started(spec, ["sleep", "60"], ["sh", "-c", f'echo "{said}" >&2; exit 1'])
    with pytest.raises(LabError) as told:
        host.wait_for_ssh(Deadline(5))
    assert told.value.exit_code == status
    assert ("--lab emulated-82576" in told.value.fix) == (status == 13)


def test_a_chip_that_dies_as_its_host_boots_is_told_by_its_own_words(
    tmp_path: Path, started: Started
) -> None:
    """The host would be waited for until the deadline, and its console does not name the chip."""
    (tmp_path / "alder-chip.log").write_text("chip: the wire is gone")
    spec = replace(SPEC, forwards=NOBODY_LISTENS)
    host = started(spec, ["false"], ["sleep", "60"])
    with pytest.raises(LabError, match="alder: its chip ended with status 1") as told:
        host.wait_for_ssh(Deadline(5))
    assert "the wire is gone" in told.value.because
