"""What a host does to a VF that a QEMU owns, through a copy of its descriptor.

The copy keeps the VF in use, so it is closed at once.
"""

from __future__ import annotations

import struct

from harness.agent.device import VfioDevice
from harness.uapi.pci_regs import Command, Register
from harness.uapi.vfio import PciRegion

_WORD = struct.Struct("<I")


def registers(pid: int, address: str, offsets: list[int]) -> list[int]:
    """Read registers of BAR 0, 32 bits each, of the VF at PCI *address* that process *pid* owns.

    Raises AgentError if it does not own it, or if the VF does not let itself be read.
    """
    with VfioDevice.borrow(pid, address) as device:
        words = (device.region_read(PciRegion.BAR0, offset, _WORD.size) for offset in offsets)
        return [_WORD.unpack(word)[0] for word in words]


def set_master(pid: int, address: str, on: bool) -> None:
    """Set or clear Bus Master Enable; the guest's driver is told nothing.  Raises AgentError."""
    with VfioDevice.borrow(pid, address) as device:
        master(device, on)


def master(device: VfioDevice, on: bool) -> None:
    """Set or clear Bus Master Enable of *device*.  Raises AgentError."""
    (command,) = struct.unpack("<H", device.config_read(Register.COMMAND, 2))
    command = command | Command.MASTER if on else command & ~Command.MASTER
    device.config_write(Register.COMMAND, struct.pack("<H", command))


def reset(pid: int, address: str) -> None:
    """Reset the function; the kernel puts configuration space back.  Raises AgentError."""
    with VfioDevice.borrow(pid, address) as device:
        device.reset()
