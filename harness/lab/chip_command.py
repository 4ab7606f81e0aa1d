"""``vf-harness chip`` runs a user's QEMU with a software 82599 in its machine."""

from __future__ import annotations

import argparse
import os
import re
import select
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import NoReturn

from harness.errors import UsageError
from harness.lab.cable import cables
from harness.lab.card import PORT_MAC
from harness.lab.qemu_command import QemuCommand
from harness.lab.software_chip import SoftwareChip, chip_ended
from harness.waiting import Deadline

HELP = "run a QEMU of yours, with a software 82599 in its machine"
DESCRIPTION = """\
Run a QEMU of yours, with a software 82599 in its machine: one or two ports with SR-IOV, driven by
the guest's own ixgbe, and VFs for ixgbevf, DPDK or vfio-pci. Neither root nor a network card is
needed. What the chip needs is added to QEMU's command: a root port, a device for each port and
each VF, and shared memory in place of `-m` alone.

for example, with an image of Debian that logs root in without a password:
  wget https://cloud.debian.org/images/cloud/trixie/latest/debian-13-nocloud-amd64.qcow2
  vf-harness chip --vfs 4 -- qemu-system-x86_64 -M q35,accel=kvm -cpu host -smp 2 -m 2G \\
    -nographic -snapshot -drive file=debian-13-nocloud-amd64.qcow2,if=virtio

and in that guest:
  port=/sys/bus/pci/devices/0000:01:00.0
  ip link set "$(ls $port/net)" up
  echo 4 > $port/sriov_numvfs
  ip link                     # the port with its VFs, and an interface of ixgbevf for each
"""
NOTES = """\
the wires: by default two ports are cabled to each other. The cable of a single port leads nowhere;
port and VFs still reach each other, through the switch in the chip. With --wire each port leads to
a tap of this machine, which has to be there:
  sudo ip tuntap add dev wire0 mode tap user $USER
  sudo ip link set wire0 mtu 9000 up
  sudo ip address add 192.0.2.1/24 dev wire0

vfio in the guest (a nested guest, DPDK) needs a vIOMMU, which is yours to choose: add
`-M kernel-irqchip=split -device intel-iommu,intremap=on,caching-mode=on` to QEMU's command, and
`intel_iommu=on iommu=pt` to the guest's kernel command line.

QEMU must be 10.1 or newer (Debian 13 has one in trixie-backports), its machine q35, its firmware
SeaBIOS, which is QEMU's own choice. When QEMU or the chip ends, the other ends too, and nothing is
left behind; the exit code is QEMU's, or 128 and the number of the signal that ended QEMU.

QEMU warns for each function that it "could not enable error recovery", and for each VF that its
slot "is not valid". Both warnings are harmless: the chip reports no PCI errors, and its SR-IOV
capability tells the guest where the VFs are.
"""

_START_SECONDS = 30
_END_SECONDS = 5
_POLL_MS = 1000
_PATH_BYTES = 107  # sockaddr_un.sun_path has 108, and the last is zero
_MOST_PORTS, _MOST_VFS = 2, 63  # an 82599's: two ports, 64 pools, of which one is the port's


def add_options(parser: argparse.ArgumentParser) -> None:
    """Give *parser* the options of the command, and its help."""
    parser.description, parser.epilog = DESCRIPTION, NOTES
    parser.usage = "vf-harness chip [OPTION ...] -- qemu-system-x86_64 ..."
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    add = parser.add_argument
    add("--ports", type=int, choices=range(1, _MOST_PORTS + 1), default=1,
        help="number of ports of the chip (default: 1)")  # fmt: skip
    add("--vfs", type=_vfs, default=8, metavar="N",
        help=f"number of VFs that a port can have, {_MOST_VFS} at most (default: 8)")  # fmt: skip
    add("--wire", type=lambda text: text.split(","), default=[], metavar="TAP[,TAP]",
        help="an existing tap for each port")  # fmt: skip
    add(
        "--mac",
        type=_mac,
        default=f"{PORT_MAC}:00",
        help="address of the first port; the second has the next one (default: %(default)s)",
    )
    add("--bus", type=_bus, metavar="N",
        help="number of the chip's PCI bus in the guest (default: 1); another number if another "
        "bridge has a lower place than --place on the machine's own bus")  # fmt: skip
    add("--place", type=_place, metavar="HEX",
        help="device number of the chip's root port on the machine's own bus, 1 to 1e "
        "(default: the first that is free)")  # fmt: skip
    add("qemu", nargs=argparse.REMAINDER, metavar="-- qemu-system-x86_64 ...",
        help="QEMU's command, without anything for the chip")  # fmt: skip


def run(options: argparse.Namespace, say: Callable[[str], None]) -> int:
    """Run the QEMU of *options* with a chip until QEMU ends, and return QEMU's exit status.

    The status of a QEMU that a signal ended is 128 and the signal's number.  *say* prints a line to
    the user.  Raises UsageError or LabError if this QEMU cannot have the chip, and LabError if the
    chip ends before QEMU.
    """
    words = options.qemu[1:] if options.qemu[:1] == ["--"] else options.qemu
    if not words:
        raise UsageError(
            "there is no QEMU to run",
            because="the chip is a device of QEMU's machine",
            fix="give QEMU's command after `--`; `vf-harness chip --help` has an example",
        )
    command = QemuCommand.of(words)
    command.check()
    chip = SoftwareChip(options.ports, options.vfs, options.mac, bus=options.bus or 1)
    with ExitStack() as stack:
        stack.enter_context(_ended_by_signals())
        folder = Path(tempfile.mkdtemp(prefix="vf-harness-chip-"))
        stack.callback(shutil.rmtree, folder)
        _check_paths(chip, folder)
        argv = command.with_chip(
            chip, folder, place=options.place or "", bus_is_known=options.bus is not None
        )
        wires = cables(chip.ports, options.wire, stack)
        log = folder / "chip.log"
        process = chip.start(
            folder, log, whose="this QEMU", name=folder.name, wires=wires,
            dies_with_us=True, deadline=Deadline(_START_SECONDS),
        )  # fmt: skip
        stack.callback(_end, process)
        say(_summary(chip, options.wire, folder))
        qemu = subprocess.Popen(["setpriv", "--pdeathsig", "KILL", *argv])
        stack.callback(_end, qemu)
        _wait_for_either(process, qemu)
        if process.poll() is not None:
            raise chip_ended("this QEMU", process.returncode, log)
        status = qemu.wait()
    return status if status >= 0 else 128 - status


def _check_paths(chip: SoftwareChip, folder: Path) -> None:
    longest = max(len(os.fsencode(folder / name)) for name, _ in chip.functions())
    if longest > _PATH_BYTES:
        raise UsageError(
            f"this machine: the path of the folder for the chip's sockets is too long: {folder}",
            because=f"a socket's path may have {_PATH_BYTES} bytes, and the longest of the chip's "
            f"sockets would have {longest}",
            fix="name a folder with a shorter path in TMPDIR, such as TMPDIR=/tmp",
        )


def _summary(chip: SoftwareChip, taps: list[str], folder: Path) -> str:
    ports = "a port" if chip.ports == 1 else f"{chip.ports} ports"
    if taps:
        wire = f"cabled to {' and '.join(taps)}"
    else:
        wire = "cabled to each other" if chip.ports > 1 else "whose cable leads nowhere"
    each = "" if chip.ports == 1 else " each"
    return (
        f"the guest has an 82599 at {chip.bus:02x}:00: {ports}, {wire}, with up to {chip.vfs} "
        f"VFs{each}; its sockets and its log are in {folder}; QEMU's warnings of error recovery "
        "and of slots that are not valid are harmless"
    )


def _wait_for_either(*processes: subprocess.Popen[bytes]) -> None:
    """Return once one of the processes has ended, or raise what a signal's handler raises.

    A signal that comes just before a poll begins reaches its handler only after the poll.  So no
    poll lasts longer than a second.
    """
    with ExitStack() as stack:
        ended = select.poll()
        for process in processes:
            descriptor = os.pidfd_open(process.pid)
            stack.callback(os.close, descriptor)
            ended.register(descriptor, select.POLLIN)
        while not ended.poll(_POLL_MS):
            pass


def _end(process: subprocess.Popen[bytes]) -> None:
    """End a process by SIGTERM, or by SIGKILL after _END_SECONDS, and reap the process.

    A process that Ctrl-C reached too may be ending already, and take no notice of SIGTERM.
    """
    process.terminate()
    try:
        process.wait(_END_SECONDS)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


@contextmanager
def _ended_by_signals() -> Iterator[None]:
    """Let SIGTERM and SIGHUP raise SystemExit in the body, so that the body undoes its work."""

    def end(number: int, _: object) -> NoReturn:
        raise SystemExit(128 + number)

    before = {number: signal.signal(number, end) for number in (signal.SIGTERM, signal.SIGHUP)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _mac(text: str) -> str:
    is_mac = re.fullmatch(r"([0-9a-f]{2}:){5}[0-9a-f]{2}", text.lower())
    if not is_mac or int(text[:2], 16) & 1 or not int(text.replace(":", ""), 16):
        raise argparse.ArgumentTypeError(
            f"{text!r} is no address of one port, such as {PORT_MAC}:00"
        )
    return text


def _bus(text: str) -> int:
    return _number(text, 0xFF)


def _vfs(text: str) -> int:
    return _number(text, _MOST_VFS)


def _place(text: str) -> str:
    return f"{_number(text.removeprefix('0x'), 0x1E, base=16):x}"


def _number(text: str, most: int, *, base: int = 10) -> int:
    is_number = re.fullmatch("[0-9a-f]+" if base == 16 else "[0-9]+", text.lower())
    if not is_number or not 1 <= int(text, base) <= most:
        last = f"{most:x}" if base == 16 else most
        raise argparse.ArgumentTypeError(f"{text!r} is no number from 1 to {last}")
    return int(text, base)
