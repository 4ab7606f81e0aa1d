"""The SR-IOV card in an emulated host: QEMU's own 82576, or the software 82599."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from harness.chip.configuration import FIRST_VF_OFFSET, VF_STRIDE
from harness.errors import LabError, UsageError
from harness.lab.probe import FIRST, SECOND, Ways
from harness.waiting import Deadline, wait_for

PORT_MAC = "52:54:00:82:58"
SLOT = "slot1"
"""The root port that the card is behind: bus 1, since it is the machine's first."""


@dataclass(frozen=True, slots=True)
class Card:
    """A card of one family (*device*, the name of its profile) with *ports* and *vfs* of each."""

    device: str
    ports: int
    vfs: int
    ways: Ways = FIRST
    fails: tuple[str, ...] = ()
    """Names of ways that the chip is to fail at, for tests of what is done then."""

    def __post_init__(self) -> None:
        if self.device not in ("82576", "82599"):
            raise UsageError(
                f"an emulated host cannot have a port of family {self.device!r}",
                because="QEMU has an 82576, and the harness brings an 82599; there is no other",
                fix='name one of these as the `device` of its port: "82599" or "82576"',
            )

    @property
    def is_software_chip(self) -> bool:
        """Whether the card is a program of ours, which reaches the machine's memory by itself."""
        return self.device == "82599"

    def mac(self, host: int) -> str:
        """Return the address of the first port of host number *host*."""
        return f"{PORT_MAC}:{host << 4:02x}"

    def arguments(self, host: str, number: int, wires: Sequence[int]) -> list[str]:
        """Return QEMU's arguments for the card; *wires* are descriptors of taps, one a port."""
        if self.is_software_chip:
            return self._chip(host)
        return [
            *("-device", f"pcie-root-port,id={SLOT},chassis=1,slot=1,bus-reserve=1"),
            *("-netdev", f"tap,id=wire,fd={wires[0]}"),
            *("-device", f"igb,netdev=wire,bus={SLOT},romfile=,mac={self.mac(number)}"),
        ]

    def memory(self, mib: int) -> list[str]:
        """Return QEMU's arguments for the machine's memory; a chip of ours needs it shared."""
        if not self.is_software_chip:
            return ["-m", str(mib)]
        return [
            *("-m", str(mib), "-machine", "memory-backend=memory"),
            *("-object", f"memory-backend-memfd,id=memory,size={mib}M,share=on"),
        ]

    def _chip(self, host: str) -> list[str]:
        """The functions of the chip, each a device of its own: QEMU knows no VFs of such ports."""
        root = f"pcie-root-port,id={SLOT},chassis=1,slot=1,bus-reserve=1,pref64-reserve=8M"
        arguments = ["-device", root]
        if self.ways.placing == SECOND.placing:
            arguments += ["-qtest", f"unix:/run/{_qtest(host)},server=on,wait=off"]
        for port in range(self.ports):
            arguments += _function(f"port{port}", port, host)
        for port in range(self.ports):
            for vf in range(self.vfs):
                place = port + FIRST_VF_OFFSET + vf * VF_STRIDE
                arguments += _function(f"port{port}-vf{vf}", place, host)
        return arguments


def _qtest(host: str) -> str:
    return f"{host}.qtest"


def _function(name: str, place: int, host: str) -> list[str]:
    described = {
        "driver": "vfio-user-pci", "id": name, "bus": SLOT,
        "addr": f"{place >> 3:x}.{place & 7}", "multifunction": place & 7 == 0,
        "socket": {"type": "unix", "path": f"/run/{sockets(host)}/{name}"},
    }  # fmt: skip
    return ["-device", json.dumps(described)]


def _chosen(card: Card, qtest: Path) -> list[str]:
    """The chip's options for the ways that it takes; those it is to fail at are made faults."""
    disguise = "never" if card.ways.disguise in card.fails else card.ways.disguise
    placing = str(qtest) if card.ways.placing == SECOND.placing else card.ways.placing
    if card.ways.placing in card.fails:
        placing = "nowhere"
    return ["--disguise", disguise, "--placing", placing]


def sockets(host: str) -> str:
    """Return the name of the folder, in the lab's own, with the sockets of a host's chip."""
    return f"{host}-chip"


def start_chip(
    card: Card, *, name: str, host: str, number: int, run: Path, wires: Sequence[int],
    dies_with_us: bool, deadline: Deadline,
) -> subprocess.Popen[bytes]:  # fmt: skip
    """Start the chip of *host*, and return once QEMU can connect to each function.

    *run* is the lab's folder; *name* is how the process is found again.  Raises LabError if the
    chip ends before that.
    """
    folder = run / sockets(host)
    shutil.rmtree(folder, ignore_errors=True)  # of a chip that was ended to be started another way
    folder.mkdir(mode=0o700)
    log = run / f"{host}-chip.log"
    guard = ("setpriv", "--pdeathsig", "KILL") if dies_with_us else ()
    with log.open("wb") as words:
        process = subprocess.Popen(
            [
                *guard, sys.executable, "-m", "harness.chip", "--name", name,
                "--folder", str(folder), "--vfs", str(card.vfs), "--mac", card.mac(number),
                "--dma-logs", str(folder), *(f"--tap={wire}" for wire in wires),
                *_chosen(card, run / _qtest(host)),
            ],
            pass_fds=list(wires), start_new_session=True,
            stdin=subprocess.DEVNULL, stdout=words, stderr=words,
            env={**os.environ, "PYTHONPATH": str(Path(__file__).resolve().parents[2])},
        )  # fmt: skip
    last = folder / f"port{card.ports - 1}-vf{card.vfs - 1}"

    def look() -> bool:
        if process.poll() is not None:
            raise LabError(
                f"{host}: its chip ended with status {process.returncode}",
                because=f"its last words: {log.read_text(errors='replace').strip() or 'none'}",
                fix=f"see {log}; every frame of the host goes through that program",
            )
        return last.exists()

    wait_for(f"the chip of {host}", look, within=deadline)
    return process
