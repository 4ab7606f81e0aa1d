"""``vf-harness chip`` as its users have it: a plain Debian 13 guest, systemd and all.

The guest's disk is made of Debian's packages; QEMU is that of the lab's tree, whatever this machine
has.  It takes root, since packages are unpacked, and some two minutes, half of them for the tree.
"""

from __future__ import annotations

import json
import shlex
import subprocess
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from harness.lab.accelerator import CPU, accelerator
from harness.lab.chroot import in_tree
from harness.lab.image import image
from harness.lab.packages import LEFT_OUT
from harness.lab.tree import Recipe, cache, check_root, tree
from harness.plugin.progress import progress
from harness.topology import find, load

PLAIN = Recipe(
    (
        "ethtool",            # which driver an interface has
        "iperf3",             # the figure
        "iproute2",           # VFs and namespaces
        "iputils-ping",
        "linux-image-amd64",  # ixgbe and ixgbevf, as shipped
        "systemd-sysv",
        "udev",
    ),
    left_out=LEFT_OUT,
)  # fmt: skip
DISK_MIB = 600
SECONDS = 240
SHOW = Path(__file__).with_name("show-vf")
"""The guest's part; it is the guest's second disk, so that its first is Debian's packages alone."""

Say = Callable[[str], None]


@dataclass(frozen=True)
class Debian:
    """A plain Debian: its kernel, its own initramfs, and a disk that QEMU does not write to."""

    kernel: Path
    initramfs: Path
    disk: Path


@pytest.fixture
def say(request: pytest.FixtureRequest) -> Say:
    return progress(request.config)


@pytest.fixture
def debian(tmp_path: Path, say: Say) -> Debian:
    check_root()
    plain = tree(PLAIN, "a plain Debian's file tree", say)
    say("building its disk")
    disk = tmp_path / "disk.img"
    make = ["mke2fs", "-q", "-t", "ext4", "-m", "0", "-d", str(plain), str(disk), f"{DISK_MIB}M"]
    subprocess.run(make, check=True)
    (kernel,) = (plain / "boot").glob("vmlinuz-*")
    (initramfs,) = (plain / "boot").glob("initrd.img-*")
    return Debian(kernel, initramfs, disk)


@pytest.fixture
def qemu(tmp_path: Path, say: Say) -> list[str]:
    """The lab's QEMU as a program of its own, which sees all that is temporary; and a machine."""
    lab = image(tuple(load(find("emulated")).hosts), say)
    program = tmp_path / "qemu-system-x86_64"
    seen = (Path(tempfile.gettempdir()), tmp_path, SHOW.parent, cache())
    command = shlex.join(in_tree(lab.tree, program.name, binds={str(each): each for each in seen}))
    program.write_text(f'#!/bin/sh\nexec {command} "$@"\n')
    program.chmod(0o755)
    found = accelerator(lab, say)
    return [str(program), "-M", "q35", "-accel", found, "-cpu", CPU[found]]


def test_a_vf_in_a_namespace_and_another_port_reach_the_port(
    qemu: list[str], debian: Debian, say: Say
) -> None:
    """Through the switch in the port and through the cable between two; then the guest is off."""
    shown = _run(qemu, debian)
    assert (shown["drivers"], shown["vfs"]) == (["ixgbe ixgbevf"], ["4"])
    assert len(shown["iperf3"]) == 3
    for each in shown["iperf3"]:
        way, _, told = each.partition(": ")
        end = json.loads(told)["end"]
        mbit_per_s = end["sum_received"]["bits_per_second"] / 1e6
        assert mbit_per_s > 1
        say(f"iperf3, {way}: {mbit_per_s:.0f} Mbit/s, "
            f"{end['sum_sent']['retransmits']} segments sent again")  # fmt: skip


def _run(qemu: list[str], debian: Debian) -> dict[str, list[str]]:
    """Boot *debian* by the command, and return what it showed, by kind."""
    line = 'console=ttyS0 root=/dev/vda rw quiet systemd.run="/bin/sh /dev/vdb"'
    argv = [
        *(sys.executable, "-m", "harness.cli", "chip", "--ports", "2", "--vfs", "4", "--", *qemu),
        *("-smp", "2", "-m", "1G", "-nographic", "-no-reboot", "-nic", "none", "-snapshot"),
        *("-kernel", str(debian.kernel), "-initrd", str(debian.initramfs), "-append", line),
        *("-drive", f"file={debian.disk},format=raw,if=virtio"),
        *("-drive", f"file={SHOW},format=raw,if=virtio"),
    ]
    done = subprocess.run(
        argv, capture_output=True, text=True, check=False, timeout=SECONDS, errors="replace",
        stdin=subprocess.DEVNULL,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr + done.stdout[-2000:]
    shown: dict[str, list[str]] = {}
    for row in done.stdout.splitlines():
        _, told, words = row.partition("shown: ")
        if told:
            kind, _, text = words.strip().partition(" ")
            shown.setdefault(kind, []).append(text)
    assert shown.get("status") == ["0"], done.stdout[-4000:]
    return shown
