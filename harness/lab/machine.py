"""An emulated host is a QEMU process, and the process of a software chip if the host has one."""

from __future__ import annotations

import hashlib
import json
import socket
import subprocess
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

from harness.errors import LabError, UnsupportedQemu, WaitError
from harness.guest.qmp import Qmp
from harness.lab.accelerator import ACCEL, CPU, VIOMMU
from harness.lab.card import Card, start_chip
from harness.lab.chroot import in_tree
from harness.lab.image import Image
from harness.lab.processes import chip_name, ours, process_name
from harness.lab.software_chip import chip_ended
from harness.waiting import Deadline, wait_for

BOOT_SECONDS = 120
MANAGEMENT_MAC = "52:54:00:82:57:fe"
MIGRATION_MAC = "52:54:00:82:59"
MIGRATION_MTU = 16000
"""The MTU between the hosts is large, since each packet costs an emulated processor time."""


@dataclass(frozen=True, slots=True)
class Cables:
    """A machine inherits these descriptors.

    *wires* has a tap for each port.  *migration* is one end of a cable to the other host, which
    carries nothing but migrations.
    """

    wires: tuple[int, ...]
    migration: int


@dataclass(frozen=True, slots=True)
class MachineSpec:
    """A spec says what an emulated host is; equal specs share a saved state.

    *number* counts the lab's hosts from 1.  *accelerator* is ``kvm`` or ``tcg``.  *forwards* are
    pairs of TCP ports, one of this machine's loopback and one of the host; the first pair leads to
    the host's sshd.
    """

    lab: str
    host: str
    number: int
    memory_mib: int
    cpus: int
    accelerator: str
    card: Card
    forwards: tuple[tuple[int, int], ...]

    @property
    def process_name(self) -> str:
        """The name in QEMU's command line by which the process of QEMU is found again."""
        return process_name(self.lab, self.host)

    @property
    def chip_name(self) -> str:
        """The name in the chip's command line by which the process of the chip is found again."""
        return chip_name(self.lab, self.host)

    def argv(self, cables: Cables) -> list[str]:
        """Return QEMU's command line; paths are those inside the image's tree."""
        forwards = "".join(
            f",hostfwd=tcp:127.0.0.1:{here}-:{there}" for here, there in self.forwards
        )
        append = (
            "console=ttyS0 quiet panic=-1 intel_iommu=on iommu=pt net.ifnames=0 mitigations=off "
            f"lab.host={self.host} lab.number={self.number}"
        )
        return [
            "qemu-system-x86_64", "-name", self.process_name,
            "-nodefaults", "-display", "none", "-no-reboot",
            "-M", "q35", "-accel", ACCEL[self.accelerator], "-cpu", CPU[self.accelerator],
            "-smp", str(self.cpus), *self.card.memory(self.memory_mib),
            # The vIOMMU comes first: QEMU lets a vIOMMU translate only for later devices.
            "-device", VIOMMU,
            "-kernel", "/lab/vmlinuz", "-initrd", "/lab/host-initramfs", "-append", append,
            "-drive", "if=none,id=disk,file=/lab/disk.img,format=raw,readonly=on",
            "-device", "virtio-blk-pci,drive=disk",
            "-netdev", f"user,id=management{forwards}",
            "-device", f"virtio-net-pci,netdev=management,romfile=,mac={MANAGEMENT_MAC}",
            "-netdev", f"dgram,id=migration,local.type=fd,local.str={cables.migration}",
            "-device", f"virtio-net-pci,netdev=migration,romfile=,host_mtu={MIGRATION_MTU},"
            f"mac={MIGRATION_MAC}:{self.number:02x}",
            "-object", "rng-random,id=random,filename=/dev/urandom",
            "-device", "virtio-rng-pci,rng=random",
            *self.card.arguments(self.host, self.number, cables.wires),
            "-serial", f"file:/run/{self.host}.console",
            "-qmp", f"unix:/run/{self.host}.qmp,server=on,wait=off",
        ]  # fmt: skip

    def state_name(self, image: Image) -> str:
        """Return the name of the file with a saved state of this spec, made from *image*.

        The name has a hash of the image and of QEMU's command line, since a state fits no other.
        """
        content = json.dumps([image.hash, self.argv(Cables((0,) * self.card.ports, 0))])
        return f"state-{self.host}-{hashlib.sha256(content.encode()).hexdigest()[:12]}"


class Machine:
    """An emulated host has its console, log and QMP socket in the folder *run*.

    *state* is the path of the host's saved state, which may not exist.
    """

    def __init__(self, spec: MachineSpec, image: Image, run: Path) -> None:
        self.spec = spec
        self._image = image
        self._run = run
        self._process: subprocess.Popen[bytes] | None = None
        self._chip: subprocess.Popen[bytes] | None = None
        self.state = image.folder / spec.state_name(image)

    def start(
        self, cables: Cables, deadline: Deadline, *, resume: bool, dies_with_us: bool
    ) -> None:
        """Start the software chip, if the host has one, and then QEMU.

        QEMU boots; with *resume*, QEMU waits for `resume` to load the saved state instead.  The
        caller still owns the descriptors in *cables*.  With *dies_with_us* the kernel ends QEMU and
        chip when this process ends.  Raises LabError if the chip ends at once, and WaitError if
        *deadline* passes before QEMU can connect to the chip.
        """
        incoming = ["-incoming", "defer"] if resume else []
        if self.spec.card.is_software_chip:
            chip = start_chip(
                self.spec.card, name=self.spec.chip_name, host=self.spec.host,
                number=self.spec.number, run=self._run, wires=cables.wires,
                dies_with_us=dies_with_us, deadline=deadline,
            )  # fmt: skip
            self._chip = ours(chip)
        with (self._run / f"{self.spec.host}.log").open("wb") as log:
            process = subprocess.Popen(
                in_tree(
                    self._image.tree, *self.spec.argv(cables), *incoming,
                    binds={"/lab": self._image.folder, "/run": self._run},
                    dies_with_us=dies_with_us,
                ),
                pass_fds=self._inherited(cables), start_new_session=True,
                stdin=subprocess.DEVNULL, stdout=log, stderr=log,
            )  # fmt: skip
        self._process = ours(process)

    def _inherited(self, cables: Cables) -> list[int]:
        """Return the descriptors that QEMU inherits; a software chip inherits *wires* itself."""
        wires = () if self.spec.card.is_software_chip else cables.wires
        return [*wires, cables.migration]

    def resume(self, deadline: Deadline) -> None:
        """Load the saved state, and let the machine run.

        Raises LabError if QEMU cannot read the state, or if QEMU or the chip has ended.
        """
        with self._qmp(deadline) as qmp:
            qmp.execute("migrate-set-capabilities", {"capabilities": _MAPPED})
            qmp.execute("migrate-incoming", {"uri": f"file:/lab/{self.state.name}"})
            self._wait_migrated(qmp, deadline)
            qmp.execute("cont")

    def begin_save(self, deadline: Deadline) -> None:
        """Stop the machine, and begin to write its state; call `finish_save` next.

        Call this only while the machine has no VF: the state of a machine with a VF cannot be
        resumed.  Raises LabError if QEMU or the chip has ended.
        """
        with self._qmp(deadline) as qmp:
            qmp.execute("stop")
            qmp.execute("migrate-set-capabilities", {"capabilities": _MAPPED})
            qmp.execute("migrate", {"uri": f"file:/lab/{self._partial.name}"})

    def finish_save(self, deadline: Deadline) -> None:
        """Wait until the state is in the file *state*, and let the machine run on.

        Raises LabError if QEMU cannot write the state, or if QEMU or the chip has ended.
        """
        with self._qmp(deadline) as qmp:
            self._wait_migrated(qmp, deadline)
            qmp.execute("cont")
        self._partial.rename(self.state)

    @property
    def _partial(self) -> Path:
        return self.state.with_suffix(".partial")

    def wait_for_ssh(self, deadline: Deadline) -> None:
        """Return when the host's sshd sends its name through the forwarded TCP port.

        Raises LabError if QEMU or the chip ends, or if *deadline* passes.
        """
        port = self.spec.forwards[0][0]

        def look() -> str:
            self._check_alive()
            try:
                with socket.create_connection(("127.0.0.1", port), timeout=1) as connection:
                    return connection.recv(64).decode("ascii", "replace").strip()
            except OSError as failed:
                return str(failed)

        try:
            wait_for(
                f"{self.spec.host} to answer on its SSH port",
                look,
                within=deadline,
                until=lambda seen: seen.startswith("SSH-"),
            )
        except WaitError as late:
            raise LabError(
                f"{self.spec.host}: not up after {deadline.seconds:g} s",
                because=f"{late.because}; its console ends: {self._tail('console')}",
                fix=f"read {self._run / self.spec.host}.console; if this machine is very busy, "
                "try again",
            ) from None

    def _check_alive(self) -> None:
        """Raise LabError if QEMU has ended, or the chip, without which the host has no port."""
        if self._chip is not None and self._chip.poll() is not None:
            log = self._run / f"{self.spec.host}-chip.log"
            raise chip_ended(self.spec.host, self._chip.returncode, log)
        if self._process is None or self._process.poll() is None:
            return
        words = self._tail("log")
        if self.spec.card.is_software_chip and "'vfio-user-pci' is not a valid" in words:
            raise UnsupportedQemu(
                f"{self.spec.host}: its QEMU has no device vfio-user-pci",
                because="the software 82599 is given to QEMU by that device (QEMU 10.1 and newer)",
                fix="use the lab with QEMU's own 82576: --lab emulated-82576",
            )
        raise LabError(
            f"{self.spec.host}: its QEMU ended with status {self._process.returncode}",
            because=f"the last words of QEMU: {words}",
            fix="if a TCP port is in use, free it with `vf-harness lab down`, or choose another "
            "TCP port in the topology (hosts.NAME.port)",
        )

    def _qmp(self, deadline: Deadline) -> closing[Qmp]:
        path = self._run / f"{self.spec.host}.qmp"

        def look() -> bool:
            self._check_alive()
            return path.exists()

        wait_for(f"QMP of {self.spec.host}", look, within=deadline)
        return closing(Qmp(f"{self.spec.host} (lab)", str(path)))

    def _wait_migrated(self, qmp: Qmp, deadline: Deadline) -> None:
        def look() -> str:
            self._check_alive()
            return str(qmp.execute("query-migrate").get("status"))

        status = wait_for(
            f"the state of {self.spec.host}",
            look,
            within=deadline,
            until=lambda seen: seen in ("completed", "failed"),
        )
        if status == "failed":
            raise LabError(
                f"{self.spec.host}: its saved state cannot be written or read",
                because=f"QEMU says: {qmp.execute('query-migrate').get('error-desc')}",
                fix=f"remove {self.state} and start again; see that the disk is not full",
            )

    def _tail(self, kind: str) -> str:
        path = self._run / f"{self.spec.host}.{kind}"
        text = path.read_text(errors="replace") if path.exists() else ""
        lines = [line for line in text.strip().splitlines() if "TCG doesn't support" not in line]
        return " | ".join(lines[-3:]) or "nothing"


_MAPPED = [{"capability": "mapped-ram", "state": True}]
