"""An emulated host has an SR-IOV card: QEMU's own 82576, or the software 82599."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from harness.errors import UsageError
from harness.lab.probe import FIRST, SECOND, Ways
from harness.lab.software_chip import SoftwareChip, root_port, shared_memory
from harness.waiting import Deadline

PORT_MAC = "52:54:00:82:58"
SLOT = "slot1"
"""The card is behind this root port, the machine's first, and so on bus 1."""


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
        return ["-m", str(mib), *shared_memory("memory", f"{mib}M")]

    def _chip(self, host: str) -> list[str]:
        chip = SoftwareChip(self.ports, self.vfs, "")
        by_test_socket = self.ways.placing == SECOND.placing
        return [
            *root_port(SLOT, chassis=1), *chip.devices(SLOT, f"/run/{sockets(host)}"),
            *(["-qtest", f"unix:/run/{_qtest(host)},server=on,wait=off"] if by_test_socket else []),
        ]  # fmt: skip


def _qtest(host: str) -> str:
    return f"{host}.qtest"


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
    return SoftwareChip(card.ports, card.vfs, card.mac(number)).start(
        folder, run / f"{host}-chip.log", whose=host, name=name, wires=wires,
        dies_with_us=dies_with_us, deadline=deadline,
        options=("--dma-logs", str(folder), *_chosen(card, run / _qtest(host))),
    )  # fmt: skip
