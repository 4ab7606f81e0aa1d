"""The lab tries once for each image whether QEMU does what the software chip needs.

No document of QEMU promises by which reads of configuration space QEMU hides capabilities, nor that
a write to ECAM moves a BAR.  The chip has two ways to hide SR-IOV from QEMU and two ways to place
VFs, and the lab takes a second way where the first way does not work.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from harness.errors import UnsupportedQemu
from harness.remote import Host, connect
from harness.topology import PortEntry, Topology
from harness.uapi.ixgbe_vf import Register
from harness.uapi.pci_regs import NO_ANSWER_32

_KEPT = "chip-ways.json"

_READ_REGISTER = """
import mmap, os, struct, sys
file = os.open(sys.argv[1], os.O_RDWR | os.O_SYNC)
bar = mmap.mmap(file, 4096)
print(struct.unpack_from("<I", bar, int(sys.argv[2]))[0])
"""


@dataclass(frozen=True, slots=True)
class Ways:
    """*disguise* says when a port hides SR-IOV, and *placing* how QEMU learns where VFs are.

    *disguise* is a value of ``harness.chip.configuration.Disguise``.  *placing* is ``dma``, or
    ``qtest`` for QEMU's test socket.
    """

    disguise: str = "in-whole-reads"
    placing: str = "dma"


FIRST = Ways()
SECOND = Ways("until-reset", "qtest")


def kept_ways(image: Path) -> Ways | None:
    """Return the ways that work with the image in the folder *image*; None if none was tried."""
    file = image / _KEPT
    return Ways(**json.loads(file.read_text())) if file.exists() else None


def keep_ways(image: Path, ways: Ways) -> None:
    """Write *ways* to the folder *image*, so that later starts take them and try none."""
    whole = image / f"{_KEPT}.partial"
    whole.write_text(json.dumps(asdict(ways)))
    whole.rename(image / _KEPT)


def next_ways(ways: Ways, topology: Topology) -> Ways:
    """Return *ways* if a VF can be made on the first host of *topology*, else the next ways to try.

    The hosts must run with a chip that takes *ways*; the VF is removed again.  The next ways have
    the second disguise if the host sees no SR-IOV capability, and the second placing if the VF's
    registers do not answer.  Raises UnsupportedQemu if that second way was tried already.
    """
    name, entry = next(iter(topology.hosts.items()))
    with connect(name, topology.connection(name)) as host:
        port = next(iter(entry.ports.values()))
        if not _shows_sriov(host, port):
            if ways.disguise == SECOND.disguise:
                raise _unsupported(name, "shows its kernel no SR-IOV capability of the port")
            return replace(ways, disguise=SECOND.disguise)
        if not _maps_vf(host, port):
            if ways.placing == SECOND.placing:
                raise _unsupported(name, "maps no registers of a VF")
            return replace(ways, placing=SECOND.placing)
    return ways


def _shows_sriov(host: Host, port: PortEntry) -> bool:
    return host.exists(f"/sys/bus/pci/devices/{port.pci}/sriov_totalvfs")


def _maps_vf(host: Host, port: PortEntry) -> bool:
    """Make a VF, say whether its registers answer, and remove the VF.

    VFMAILBOX of a new VF has RSTI or RSTD set, which tell of the port's reset.  Where QEMU maps no
    registers, the host reads 0.
    """
    device = f"/sys/bus/pci/devices/{port.pci}"
    host.write_text(f"{device}/sriov_drivers_autoprobe", "0")
    host.write_text(f"{device}/sriov_numvfs", "1")
    try:
        registers = f"{device}/virtfn0/resource0"
        argv = ["python3", "-c", _READ_REGISTER, registers, str(int(Register.VFMAILBOX))]
        return int(host.run(*argv).stdout) not in (0, NO_ANSWER_32)
    finally:
        host.write_text(f"{device}/sriov_numvfs", "0")
        host.write_text(f"{device}/sriov_drivers_autoprobe", "1")


def _unsupported(name: str, what: str) -> UnsupportedQemu:
    return UnsupportedQemu(
        f"{name}: its QEMU {what}",
        because="the software 82599 needs that, and neither of its two ways works with this QEMU",
        fix="use the lab with QEMU's own 82576 (--lab emulated-82576); docs/software-82599.md "
        "describes the two ways",
    )
