"""The harness puts a chip into somebody's QEMU command, or says why it cannot."""

from __future__ import annotations

import itertools
import re
from collections.abc import Sequence
from pathlib import Path

import pytest

from harness.errors import UsageError
from harness.lab.qemu_command import QemuCommand
from harness.lab.software_chip import SoftwareChip

MACHINE = ("-M", "q35", "-m", "512")
CHIP = SoftwareChip(1, 1, "52:54:00:82:58:00")
SOCKETS = Path("/run/chip")


@pytest.fixture
def qemu(tmp_path: Path) -> str:
    """Make a program that knows the device; the check asks QEMU nothing else."""
    program = tmp_path / "qemu-system-x86_64"
    program.write_text("#!/bin/sh\necho 'name \"vfio-user-pci\", bus PCI'\n")
    program.chmod(0o755)
    return str(program)


def with_chip(*words: str) -> list[str]:
    return QemuCommand.of(["qemu-system-x86_64", *words]).with_chip(CHIP, SOCKETS)


def devices(words: Sequence[str]) -> list[str]:
    """List the driver of each device, in order."""
    values = [after for word, after in itertools.pairwise(words) if word == "-device"]
    return [re.split('[,"]', each.removeprefix('{"driver": "'))[0] for each in values]


def test_the_chip_comes_after_a_viommu_and_before_all_else() -> None:
    """A vIOMMU translates for devices after it, and a bridge before the chip would take bus 1."""
    viommu = ("-device", "intel-iommu,intremap=on,caching-mode=on")
    others = ("-device", "pcie-root-port,id=mine", "-device", "virtio-net-pci,bus=mine")
    assert devices(with_chip(*MACHINE, *viommu, *others)) == [
        *("intel-iommu", "pcie-root-port", "vfio-user-pci", "vfio-user-pci"),
        *("pcie-root-port", "virtio-net-pci"),
    ]


@pytest.mark.parametrize("before", [["env", "A=b"], ["taskset", "-c", "1"], []])
@pytest.mark.parametrize("name", ["/opt/bin/qemu-system-x86_64", "/usr/libexec/qemu-kvm"])
def test_what_runs_qemu_stays_before_it(before: list[str], name: str) -> None:
    words = QemuCommand.of([*before, name, *MACHINE]).with_chip(CHIP, SOCKETS)
    assert words[: len(before) + 2] == [*before, name, "-machine"]
    assert tuple(words[-4:]) == MACHINE


def test_a_program_of_another_name_is_the_first_word() -> None:
    assert QemuCommand.of(["./emulator", *MACHINE]).program == ("./emulator",)


@pytest.mark.parametrize(
    ("asked", "size"), [("2G", "2G"), ("768", "768M"), ("size=1G,slots=2,maxmem=4G", "1G")]
)
def test_the_memory_is_shared_and_as_large_as_asked(asked: str, size: str) -> None:
    """``-m`` counts MiB without a unit, a backend counts bytes."""
    words = with_chip("-M", "q35", "-m", asked)
    assert f"memory-backend-memfd,id=chip-memory,size={size},share=on" in words


@pytest.mark.parametrize(
    "backend",
    [
        "memory-backend-file,id=ram,size=512M,mem-path=/dev/hugepages,share=on",
        "memory-backend-memfd,id=ram,size=512M",
        '{"qom-type": "memory-backend-ram", "id": "ram", "size": 536870912, "share": true}',
    ],
)
@pytest.mark.parametrize("use", [("-M", "memory-backend=ram"), ("-numa", "node,memdev=ram")])
def test_memory_that_is_shared_already_is_left_alone(backend: str, use: tuple[str, str]) -> None:
    words = with_chip(*MACHINE, *use, "-object", backend)
    assert not any("chip-memory" in word for word in words)


def test_place_and_bus_are_the_users_to_say() -> None:
    """A user may put another bridge before the chip on purpose."""
    own = ("-device", "pcie-root-port,id=mine", "-device", "intel-iommu")
    command = QemuCommand.of(["qemu-system-x86_64", *MACHINE, *own])
    words = command.with_chip(CHIP, SOCKETS, place="1e", bus_is_known=True)
    assert any("id=chip,chassis=82,slot=1,addr=0x1e," in word for word in words)
    with pytest.raises(UsageError, match="a pcie-root-port before its vIOMMU"):
        command.with_chip(CHIP, SOCKETS, place="1e")


@pytest.mark.parametrize("machine", ["q35", "pc-q35-10.1", "type=q35,accel=tcg"])
def test_a_q35_is_known_by_its_names(qemu: str, machine: str) -> None:
    QemuCommand.of([qemu, "--machine", machine, "-M", "accel=tcg"]).check()


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["-m", "1G"], "names no machine"),
        (["-M", "pc"], "is 'pc', not q35"),
        (["-machine", "type=microvm,accel=kvm"], "is 'microvm', not q35"),
        ([*MACHINE, "-drive", "if=pflash,file=OVMF_CODE.fd,format=raw"], "firmware of its own"),
        ([*MACHINE, "-M", "pflash0=code"], "firmware of its own"),
        ([*MACHINE, "-bios", "OVMF.fd"], "firmware of its own"),
    ],
)
def test_a_machine_that_cannot_have_a_chip_is_refused(
    qemu: str, words: list[str], told: str
) -> None:
    with pytest.raises(UsageError) as refused:
        QemuCommand.of([qemu, *words]).check()
    assert told in refused.value.what


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["-M", "q35"], "how much memory"),
        (["-M", "memory-backend=ram", "-object", "memory-backend-ram,id=ram,size=1G"],
         "'ram' (memory-backend-ram) is not shared"),
        (["-m", "1G", "-object", "memory-backend-memfd,id=ram,size=1G,share=off",
          "-numa", "node,memdev=ram"], "'ram' (memory-backend-memfd) is not shared"),
    ],
)  # fmt: skip
def test_memory_that_the_chip_cannot_reach_is_refused(words: list[str], told: str) -> None:
    with pytest.raises(UsageError) as refused:
        with_chip(*words)
    assert told in refused.value.what
