"""Faults that are put into a host's VF, for a test that sees them found."""

from __future__ import annotations

from harness.errors import UsageError
from harness.host.sriov import VirtualFunction
from harness.host.twin import Twin
from harness.host.vf import Vf
from harness.uapi.pci_regs import Command, Register


def master_unowned(vf: Vf) -> None:
    """Set Bus Master Enable of a VF that its guest has let go, as one does that never let go."""
    if isinstance(vf, Twin):
        vf.set_master(True, qemu_pid=0)
    elif isinstance(vf, VirtualFunction):
        config = f"/sys/bus/pci/devices/{vf.pci}/config"
        argv = ["python3", "-c", _SET_MASTER, config, str(Register.COMMAND), str(Command.MASTER)]
        vf.host.run(*argv, changes=True)
    else:
        raise UsageError(
            f"{vf.host.name}: BME of VF {vf.name} cannot be set from outside",
            because="its provider is neither of ports nor of twins",
            fix="say here how it is done there",
        )


_SET_MASTER = """
import os, sys
path, at, bit = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
config = os.open(path, os.O_RDWR)
command = int.from_bytes(os.pread(config, 2, at), "little") | bit
os.pwrite(config, command.to_bytes(2, "little"), at)
"""
