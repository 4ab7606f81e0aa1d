"""A software 82599 runs as a process beside QEMU, whose command line names the chip's functions."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from harness.chip.configuration import FIRST_VF_OFFSET, VF_STRIDE
from harness.chip.loop import CONTROL
from harness.errors import LabError
from harness.waiting import Deadline, wait_for

DEVICE = "vfio-user-pci"
"""QEMU 10.1 and newer has this device, which another process serves."""


@dataclass(frozen=True, slots=True)
class SoftwareChip:
    """A chip has *ports* ports with *vfs* VFs each; *mac* is the address of the first port.

    QEMU has the chip on the PCI bus number *bus*, behind a root port of its own.
    """

    ports: int
    vfs: int
    mac: str
    bus: int = 1

    def functions(self) -> list[tuple[str, int]]:
        """Return name and place of each function, ports first.

        The name is the name of the function's socket.  The place is the PCI device and function as
        one number, as First VF Offset and VF Stride of the ports' SR-IOV capability say.
        """
        ports = [(f"port{port}", port) for port in range(self.ports)]
        return ports + [
            (f"port{port}-vf{vf}", port + FIRST_VF_OFFSET + vf * VF_STRIDE)
            for port in range(self.ports)
            for vf in range(self.vfs)
        ]

    def devices(self, root_port: str, sockets: str, *, prefix: str = "") -> list[str]:
        """Return QEMU's arguments for every function of the chip, on the bus of *root_port*.

        *sockets* is the path that the folder of the sockets has for QEMU.  The id of each device
        begins with *prefix*.  Each VF is a device of its own, since QEMU knows no VFs of a port
        that another process serves.
        """
        arguments = []
        for name, place in self.functions():
            described = {
                "driver": DEVICE, "id": f"{prefix}{name}", "bus": root_port,
                "addr": f"{place >> 3:x}.{place & 7}", "multifunction": place & 7 == 0,
                "socket": {"type": "unix", "path": f"{sockets}/{name}"},
            }  # fmt: skip
            arguments += ["-device", json.dumps(described)]
        return arguments

    def start(
        self, folder: Path, log: Path, *, whose: str, name: str, wires: Sequence[int],
        dies_with_us: bool, deadline: Deadline, options: Sequence[str] = (),
    ) -> subprocess.Popen[bytes]:  # fmt: skip
        """Start a process for the chip, and return the process once QEMU can connect to the chip.

        The chip makes its sockets in *folder*, and writes its log to *log*.  *wires* are
        descriptors, one for each port, and *options* are further options of ``harness.chip``.
        *name* is the name in the command line by which the process is found again, and *whose* is
        the machine that errors name.  The caller has to end the chip; with *dies_with_us* the
        kernel also ends the chip when this process ends.

        Raises LabError if the chip ends before QEMU can connect, and WaitError if *deadline* passes
        before that; no process is left then.
        """
        guard = ("setpriv", "--pdeathsig", "KILL") if dies_with_us else ()
        argv = [
            *guard, sys.executable, "-P", "-m", "harness.chip", "--name", name,
            "--folder", str(folder), "--vfs", str(self.vfs), "--mac", self.mac,
            "--bus", str(self.bus), *(f"--tap={wire}" for wire in wires), *options,
        ]  # fmt: skip
        with log.open("wb") as words:
            process = subprocess.Popen(
                argv, pass_fds=list(wires), start_new_session=True,
                stdin=subprocess.DEVNULL, stdout=words, stderr=words,
                env={**os.environ, "PYTHONPATH": str(Path(__file__).resolve().parents[2])},
            )  # fmt: skip

        def look() -> bool:
            if process.poll() is not None:
                raise chip_ended(whose, process.returncode, log)
            return (folder / CONTROL).exists()  # the chip makes this socket last

        try:
            wait_for(f"the chip of {whose}", look, within=deadline)
        except BaseException:
            process.kill()
            process.wait()
            raise
        return process


def root_port(name: str, *, chassis: int, place: str = "") -> list[str]:
    """Return QEMU's arguments for the root port *name*, with room for 63 VFs of two ports.

    *place* is the device number of the root port on the machine's own bus, in hex; QEMU chooses the
    first free number if *place* is empty.  No other root port may have the same *chassis*.
    """
    address = f",addr=0x{place}" if place else ""
    described = f"pcie-root-port,id={name},chassis={chassis},slot=1{address}"
    return ["-device", f"{described},bus-reserve=1,pref64-reserve=8M"]


def shared_memory(name: str, size: str) -> list[str]:
    """Return QEMU's arguments for shared memory, which the chip reads and writes by itself.

    *size* is a number with a unit, as QEMU takes sizes, such as ``2G``.
    """
    return [
        *("-machine", f"memory-backend={name}"),
        *("-object", f"memory-backend-memfd,id={name},size={size},share=on"),
    ]


def chip_ended(whose: str, status: int, log: Path) -> LabError:
    """Return the error that says how the chip of *whose* ended, with the text of its *log*."""
    return LabError(
        f"{whose}: its chip ended with status {status}",
        because=f"the chip's last words: {log.read_text(errors='replace').strip() or 'none'}",
        fix="start the machine and its chip again: the machine has no port without the chip",
    )
