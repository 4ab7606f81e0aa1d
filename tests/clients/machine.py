"""A machine of QEMU's with a software 82599 in it, in which somebody else's programs run.

The machine boots out of memory alone.  A person would speak to it on its serial console, and so do
the tests; the wire of its port is a socket that frames go through as they are.
"""

from __future__ import annotations

import os
import re
import select
import shutil
import socket
import subprocess
from collections.abc import Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from harness.errors import LabError, WaitError
from harness.lab import initramfs
from harness.lab.accelerator import ACCEL, CPU, VIOMMU, accelerator
from harness.lab.chroot import in_tree
from harness.lab.image import Image
from harness.lab.programs import last_words
from harness.lab.qemu_command import QemuCommand
from harness.lab.software_chip import SoftwareChip
from harness.waiting import Deadline, wait_for

PORT, VF = "0000:01:00.0", "0000:01:10.0"
PORT_MAC = "52:54:00:82:58:00"
_VFS = 2
_IN_TREE = Path("/client")
_MEMORY, _HUGE_PAGES = "1G", 128
_BOOT_SECONDS = 120
_COMMAND_SECONDS = 60
_ROOM_BYTES = 1 << 22
_FRAME_BYTES = 1 << 14

INIT = b"""\
#!/bin/sh
/usr/bin/busybox --install -s /usr/bin
export PATH=/usr/sbin:/usr/bin
export LD_LIBRARY_PATH=$(echo /usr/lib/x86_64-linux-gnu/dpdk/pmds-*)
chmod 755 / # DPDK opens no library in a folder that everybody may write to
mount -t proc proc /proc
mount -t sysfs sys /sys
mount -t devtmpfs dev /dev
mount -t tmpfs tmpfs /run
mkdir -p /dev/hugepages /var
mount -t hugetlbfs hugetlbfs /dev/hugepages
ln -s /run /var/run
while read -r module; do insmod "$module"; done < /modules/order
echo 1 > /proc/sys/net/ipv4/conf/all/arp_ignore # or the port answers for its VF's address
dmesg -n 1 # the console is for the tests
stty -echo
echo "the client is up"
PS1= exec setsid cttyhack sh
"""


class Console:
    """The serial console of a machine, which is QEMU's own input and output.

    All that was said there is written to *log* as well.
    """

    def __init__(self, qemu: subprocess.Popen[bytes], log: Path) -> None:
        assert qemu.stdin is not None
        assert qemu.stdout is not None
        self._qemu = qemu
        self._input, self._output = qemu.stdin, qemu.stdout
        self._log = log
        self._unread = ""

    def say(self, line: str) -> None:
        """Type *line*, as a person would."""
        self._input.write(f"{line}\n".encode())

    def hear(self, pattern: str, *, within: float | Deadline) -> re.Match[str]:
        """Return the first match of *pattern* in what was not heard yet.

        What comes up to the match's end is heard then.  Raises LabError if the machine ended, or
        does not say that in time.
        """

        def look() -> re.Match[str] | None:
            self._read()
            return re.search(pattern, self._unread, re.DOTALL)

        try:
            found = wait_for(f"{pattern!r} on the console", look, within=within, every_s=0.01)
        except WaitError as late:
            raise LabError(
                f"the client: {late.what}",
                because=f"the last that it said: {last_words(self._unread)}",
                fix=f"read {self._log}, which has all of it",
            ) from None
        assert found is not None
        self._unread = self._unread[found.end() :]
        return found

    def _read(self) -> None:
        while select.select([self._output], [], [], 0)[0]:
            said = os.read(self._output.fileno(), 1 << 16)
            if not said:
                raise LabError(
                    f"the client: its QEMU ended with status {self._qemu.wait()}",
                    because=f"the last that was heard: {last_words(self._unread)}",
                    fix=f"read {self._log}, which has all of it",
                )
            self._unread += said.decode(errors="replace").replace("\r", "")
            with self._log.open("ab") as log:
                log.write(said)


class CableEnd:
    """The other end of the cable in the port: frames without checksum, as they are on the wire."""

    def __init__(self, end: socket.socket) -> None:
        self._end = end

    def send(self, frame: bytes) -> None:
        """Send *frame* to the port."""
        self._end.send(frame)

    def take(self, count: int = 1, *, within: float = 5) -> list[bytes]:
        """Return what comes from the port until *count* frames are there; fewer if time is up."""
        frames: list[bytes] = []
        deadline = Deadline(within)
        while len(frames) < count and select.select([self._end], [], [], deadline.remaining)[0]:
            frames.append(self._end.recv(_FRAME_BYTES))
        return frames

    def exchange(self, frame: bytes, count: int = 1, *, within: float = 5) -> list[bytes]:
        """Send *frame* and return the *count* frames that come back; fewer if time is up."""
        self.take(1 << 16, within=0)
        self.send(frame)
        return self.take(count, within=within)


@dataclass(frozen=True, slots=True)
class ClientMachine:
    """A machine that is up: its *console*, and the *wire* of its port."""

    console: Console
    wire: CableEnd

    def run(self, line: str) -> str:
        """Return what the shell command *line* prints.  Raises LabError unless it succeeds."""
        self.console.say(f'{line}; echo "status=$?"')
        heard = self.console.hear(r"(.*)status=(\d+)\n", within=_COMMAND_SECONDS)
        if heard[2] != "0":
            raise LabError(
                f"the client: `{line}` ended with status {heard[2]}",
                because=f"it says: {last_words(heard[1])}",
                fix="see what the kernel has to say to it (dmesg)",
            )
        return heard[1]

    def bind(self, address: str, driver: str) -> None:
        """Give the PCI device at *address* to *driver*, whoever has it now."""
        device = f"/sys/bus/pci/devices/{address}"
        self.run(
            f"[ ! -e {device}/driver ] || echo {address} > {device}/driver/unbind; "
            f"echo {driver} > {device}/driver_override; "
            f"echo {address} > /sys/bus/pci/drivers_probe; "
            f"readlink {device}/driver | grep -q '/{driver}$'"
        )

    def translate_strictly(self, address: str) -> None:
        """Have the vIOMMU translate for the function at *address*, which no driver has then.

        With ``iommu.strict=1`` the kernel unmaps at once what its driver is done with.
        """
        device = f"/sys/bus/pci/devices/{address}"
        self.run(
            f"echo {address} > {device}/driver/unbind; echo DMA > {device}/iommu_group/type; "
            f"grep -qx DMA {device}/iommu_group/type"
        )

    def interface(self, address: str) -> str:
        """Return the name of a function's interface, and wait until that has a link.

        The function has to be in the hands of the kernel's driver.
        """
        (name,) = self.run(f"ls /sys/bus/pci/devices/{address}/net").split()
        self.run(f"ip link set {name} up")
        wait_for(
            f"a link of {name} of the client",
            lambda: self.run(f"cat /sys/class/net/{name}/carrier").strip(),
            within=_COMMAND_SECONDS, until="1".__eq__,
        )  # fmt: skip
        return name

    def make_vfs(self) -> None:
        """Have the port's kernel driver make VFs, with frames as long as the port's own.

        The driver serves them once the port has a link again.
        """
        self.run(f"ip link set {self.interface(PORT)} mtu 9000")
        self.run(f"echo {_VFS} > /sys/bus/pci/devices/{PORT}/sriov_numvfs")
        self.interface(PORT)

    def remove_vfs(self) -> None:
        """Have the port's kernel driver take its VFs away."""
        self.run(f"echo 0 > /sys/bus/pci/devices/{PORT}/sriov_numvfs")


class Boot(Protocol):
    """Boots a machine; see `client_machine`."""

    def __call__(
        self, *, kernel_words: str, viommu: bool = True
    ) -> AbstractContextManager[ClientMachine]: ...


@contextmanager
def client_machine(
    lab: Image, programs: Path, files: tuple[str, ...], modules: tuple[str, ...], folder: Path,
    *, kernel_words: str, viommu: bool = True,
) -> Iterator[ClientMachine]:  # fmt: skip
    """Boot a machine with *files* and *modules* of the tree *programs*, by the QEMU of *lab*.

    *folder* is for what the machine is made of, and keeps its console and the words of its chip;
    its path has to be short, since sockets are in it.  *kernel_words* go to the kernel's command
    line.  The machine ends with the body.
    """
    (kernel,) = (programs / "boot").glob("vmlinuz-*")
    shutil.copy(kernel, folder / "vmlinuz")
    initramfs.write_programs(programs, modules, files, INIT, folder / "initramfs")
    chip = SoftwareChip(ports=1, vfs=_VFS, mac=PORT_MAC)
    deadline = Deadline(_BOOT_SECONDS)
    with ExitStack() as stack:
        ours, wire = (
            stack.enter_context(end)
            for end in socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        )
        for end in (ours, wire):
            end.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _ROOM_BYTES)
        process = chip.start(
            folder, folder / "chip.log", whose="the client", name=folder.name,
            wires=[wire.fileno()], dies_with_us=True, deadline=deadline,
        )  # fmt: skip
        stack.callback(_end, process)
        words = _command(accelerator(lab, print), kernel_words, viommu=viommu)
        argv = QemuCommand.of(words).with_chip(chip, _IN_TREE)
        with (folder / "qemu.log").open("wb") as log:
            qemu = subprocess.Popen(
                in_tree(lab.tree, *argv, binds={str(_IN_TREE): folder}),
                bufsize=0, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log,
            )  # fmt: skip
        stack.enter_context(qemu)
        stack.callback(_end, qemu)
        console = Console(qemu, folder / "console")
        console.hear("the client is up\n", within=deadline)
        machine = ClientMachine(console, CableEnd(ours))
        machine.run("true")  # the shell begins with a greeting, which is no command's
        yield machine


def _command(fast: str, kernel_words: str, *, viommu: bool) -> list[str]:
    append = (
        f"console=ttyS0 quiet panic=-1 mitigations=off net.ifnames=0 ipv6.disable=1 "
        f"hugepages={_HUGE_PAGES} {kernel_words}"
    )
    return [
        "qemu-system-x86_64", "-nodefaults", "-display", "none", "-no-reboot",
        "-M", "q35", "-accel", ACCEL[fast], "-cpu", CPU[fast], "-smp", "2", "-m", _MEMORY,
        *(["-device", VIOMMU] if viommu else []),
        "-kernel", f"{_IN_TREE}/vmlinuz", "-initrd", f"{_IN_TREE}/initramfs", "-append", append,
        "-serial", "stdio",
    ]  # fmt: skip


def _end(process: subprocess.Popen[bytes]) -> None:
    process.kill()
    process.wait()
