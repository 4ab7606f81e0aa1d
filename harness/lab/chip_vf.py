"""A lab's software chip records in files what a VF does, and makes a VF misbehave when asked to.

The files are on this machine.  The peer of an emulated lab is on this machine too, so the times in
the files are in the peer's monotonic clock.
"""

from __future__ import annotations

import json
import socket
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from harness.chip.configuration import FIRST_VF_OFFSET, VF_STRIDE
from harness.chip.control import VF_FAULTS
from harness.chip.loop import CONTROL
from harness.chip.record import COMMANDS, LOG
from harness.errors import MeasurementError, RemoteError
from harness.host.twin_control import TwinControl
from harness.host.vf import Vf
from harness.lab.card import sockets
from harness.lab.emulated import run_folder
from harness.topology import PEER, Topology
from harness.twin.dma_log import HEAD, RECORD
from harness.uapi.pci_regs import Command


@dataclass(frozen=True, slots=True)
class ChipVf:
    """VF number *vf* of port number *port* belongs to the chip in *folder*.

    `ChipVf` is a ``harness.host.software_vf.SoftwareVf``.  Raises MeasurementError where the chip
    has no files of the VF, and RemoteError where the chip cannot be asked.
    """

    folder: Path
    port: int
    vf: int
    clock_of = PEER

    @property
    def accesses(self) -> int:
        """The number of accesses since the VF was enabled, those that left the log included."""
        with self._file(LOG).open("rb") as log:
            count, dropped, *_ = HEAD.unpack(log.read(HEAD.size))
        return int(count + dropped)

    def dma_log(self) -> bytes:
        """Return head and records of the DMA log, in the layout of ``harness.twin.dma_log``."""
        with self._file(LOG).open("rb") as log:
            count, *_ = HEAD.unpack(log.read(HEAD.size))
            log.seek(0)
            return log.read(HEAD.size + count * RECORD.size)

    def mastered(self) -> list[tuple[int, bool]]:
        """Return the time in ns and the new value of each change of Bus Master Enable.

        The first entry is the first COMMAND on record, a change or not.
        """
        changes: list[tuple[int, bool]] = []
        for line in self._file(COMMANDS).read_text().splitlines():
            said = json.loads(line)
            master = bool(said["command"] & Command.MASTER)
            if not changes or changes[-1][1] != master:
                changes.append((said["t_ns"], master))
        return changes

    def misbehave(self, **faults: Any) -> None:
        """Give the VF these *faults* and no others; faults that no VF can have go to the port.

        ``harness.chip.control`` says what the faults are.  Raises TwinRefused for an unknown fault.
        """
        of_port = {name: faults.pop(name) for name in faults.keys() - VF_FAULTS}
        with self._control() as control:
            control.ask("misbehave", port=self.port, **of_port)
            control.ask("misbehave", port=self.port, vf=self.vf, **faults)

    def set_link(self, up: bool) -> None:
        """Plug the cable of the VF's port in, or pull the cable."""
        with self._control() as control:
            control.ask("set_link", port=self.port, up=up)

    @property
    def cpu_s(self) -> float:
        """The processor time in seconds that the whole chip has used."""
        with self._control() as control:
            return float(control.ask("status")["cpu_s"])

    @contextmanager
    def _control(self) -> Iterator[TwinControl]:
        with closing(socket.socket(socket.AF_UNIX)) as connection:
            try:
                connection.connect(str(self.folder / CONTROL))
            except OSError as refused:
                raise RemoteError(
                    f"{self.folder.name}: the chip cannot be asked: {refused.strerror}",
                    because="the program of the chip has ended, or hangs",
                    fix="see `vf-harness lab status`, and the chip's log beside its folder",
                ) from None
            yield TwinControl(self.folder.name, connection, "chip")

    def _file(self, kind: str) -> Path:
        path = self.folder / f"port{self.port}-vf{self.vf}.{kind}"
        if not path.exists():
            raise MeasurementError(
                f"this machine: there is no {path}",
                because="a chip records a VF once the port's driver has enabled the VF",
                fix="see whether the chip of that host runs (`vf-harness lab status`), and its log",
            )
        return path


def chip_vf(topology: Topology, vf: Vf) -> ChipVf | None:
    """Return the `ChipVf` of *vf*; None if *vf* belongs to no software chip of a lab."""
    entry = topology.hosts[vf.host.name]
    port = next((each for each in entry.ports.values() if each.device == "82599"), None)
    if topology.emulation is None or port is None:
        return None
    device, function = vf.name.rpartition(":")[2].split(".")
    index, port_number = divmod((int(device, 16) << 3 | int(function)) - FIRST_VF_OFFSET, VF_STRIDE)
    return ChipVf(run_folder(topology) / sockets(vf.host.name), port_number, index)
