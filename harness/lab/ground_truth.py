"""The software chips of a lab write down what their VFs do; that record is the ground truth.

The files are on this machine, and so is the peer of such a lab: their times are the peer's own
monotonic clock, and need not be related to it.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

from harness.chip.configuration import FIRST_VF_OFFSET, VF_STRIDE
from harness.chip.record import COMMANDS, LOG
from harness.errors import MeasurementError
from harness.host.vf import Vf
from harness.lab.card import sockets
from harness.lab.emulated import run_folder
from harness.topology import Topology
from harness.twin.dma_log import HEAD, RECORD
from harness.uapi.pci_regs import Command


@dataclass(frozen=True, slots=True)
class ChipLog:
    """The record of one VF, a ``Logged``; the names of its files begin with *stem*."""

    stem: Path

    @property
    def accesses(self) -> int:
        """The number of accesses since the VF was enabled, logged or not."""
        with self._file(LOG).open("rb") as log:
            count, dropped, _ = HEAD.unpack(log.read(HEAD.size))
        return int(count + dropped)

    def dma_log(self) -> bytes:
        """Return the DMA log's head and records, as ``harness.twin.dma_log`` lays them out."""
        with self._file(LOG).open("rb") as log:
            count, _, _ = HEAD.unpack(log.read(HEAD.size))
            log.seek(0)
            return log.read(HEAD.size + count * RECORD.size)

    def mastered(self) -> list[tuple[int, bool]]:
        """Return the time in ns and the new value of each change of Bus Master Enable."""
        changes: list[tuple[int, bool]] = []
        for line in self._file(COMMANDS).read_text().splitlines():
            said = json.loads(line)
            master = bool(said["command"] & Command.MASTER)
            if not changes or changes[-1][1] != master:
                changes.append((said["t_ns"], master))
        return changes

    def _file(self, kind: str) -> Path:
        path = self.stem.with_name(f"{self.stem.name}.{kind}")
        if not path.exists():
            raise MeasurementError(
                f"this machine: there is no {path}",
                because="a chip records a VF from when its port's driver enables the VF",
                fix="see that the chip of that host runs (`vf-harness lab status`), and its log",
            )
        return path


def chip_log(topology: Topology, vf: Vf) -> ChipLog | None:
    """Return the record that a software chip keeps of *vf*; None where *vf* is of no such chip."""
    entry = topology.hosts[vf.host.name]
    port = next((each for each in entry.ports.values() if each.device == "82599"), None)
    if topology.emulation is None or port is None:
        return None
    device, function = vf.name.rpartition(":")[2].split(".")
    index, port_number = divmod((int(device, 16) << 3 | int(function)) - FIRST_VF_OFFSET, VF_STRIDE)
    folder = run_folder(topology) / sockets(vf.host.name)
    return ChipLog(folder / f"port{port_number}-vf{index}")
