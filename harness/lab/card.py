"""An emulated host has an SR-IOV card: QEMU's own 82576 (igb), or the software 82599."""

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
"""The card is behind the root port of this name.

That root port is the machine's first bridge, so the card is on PCI bus 1.
"""


@dataclass(frozen=True, slots=True)
class Card:
    """A card has *ports* ports with *vfs* VFs each.

    *device* is the name of the card's device profile: 82576 or 82599.  *ways* are the ways of a
    software chip to hide SR-IOV and to place VFs.  Raises UsageError for another *device*.
    """

    device: str
    ports: int
    vfs: int
    ways: Ways = FIRST
    fails: tuple[str, ...] = ()
    """The chip fails at the ways of these names, for tests of the lab itself."""

    def __post_init__(self) -> None:
        if self.device not in ("82576", "82599"):
            raise UsageError(
                f"an emulated host cannot have a port of family {self.device!r}",
                because="QEMU has an 82576, and the harness brings an 82599; there is no other",
                fix='name one of these as the `device` of its port: "82599" or "82576"',
            )

    @property
    def is_software_chip(self) -> bool:
        """Say whether the card is the software 82599, a process beside QEMU."""
        return self.device == "82599"

    def mac(self, host: int) -> str:
        """Return the address of the first port of host number *host*."""
        return f"{PORT_MAC}:{host << 4:02x}"

    def arguments(self, host: str, number: int, wires: Sequence[int]) -> list[str]:
        """Return QEMU's arguments for the card of host *host*, which is host number *number*.

        *wires* are descriptors of taps, one for each port.  A software chip inherits the taps, and
        QEMU then connects to the chip's sockets.
        """
        if self.is_software_chip:
            return self._chip(host)
        return [
            *("-device", f"pcie-root-port,id={SLOT},chassis=1,slot=1,bus-reserve=1"),
            *("-netdev", f"tap,id=wire,fd={wires[0]}"),
            *("-device", f"igb,netdev=wire,bus={SLOT},romfile=,mac={self.mac(number)}"),
        ]

    def memory(self, mib: int) -> list[str]:
        """Return QEMU's arguments for *mib* MiB of memory, which a software chip can share."""
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
    """Return the chip's options for `Card.ways`, with a fault for each way in `Card.fails`."""
    disguise = "never" if card.ways.disguise in card.fails else card.ways.disguise
    placing = str(qtest) if card.ways.placing == SECOND.placing else card.ways.placing
    if card.ways.placing in card.fails:
        placing = "nowhere"
    return ["--disguise", disguise, "--placing", placing]


def sockets(host: str) -> str:
    """Return the name of the folder for the sockets of the chip of *host*, in the lab's folder."""
    return f"{host}-chip"


def start_chip(
    card: Card, *, name: str, host: str, number: int, run: Path, wires: Sequence[int],
    dies_with_us: bool, deadline: Deadline,
) -> subprocess.Popen[bytes]:  # fmt: skip
    """Start the chip of *host*, and return its process once QEMU can connect to each function.

    *run* is the lab's folder, *name* the name in the process's command line by which the process is
    found again, *number* the number of the host, and *wires* are descriptors of taps, one for each
    port.  With *dies_with_us* the kernel ends the chip when this process ends.  Raises LabError if
    the chip ends, and WaitError if *deadline* passes, before QEMU can connect.
    """
    folder = run / sockets(host)
    shutil.rmtree(folder, ignore_errors=True)  # left by a chip with other ways
    folder.mkdir(mode=0o700)
    return SoftwareChip(card.ports, card.vfs, card.mac(number)).start(
        folder, run / f"{host}-chip.log", whose=host, name=name, wires=wires,
        dies_with_us=dies_with_us, deadline=deadline,
        options=("--dma-logs", str(folder), *_chosen(card, run / _qtest(host))),
    )  # fmt: skip
