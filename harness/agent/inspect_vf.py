"""The verb ``vfio.inspect``: what VFIO says of a VF that nobody uses, and whether it obeys."""

from __future__ import annotations

import struct
from typing import Any

from harness.agent.device import VfioDevice
from harness.uapi.pci_regs import Command, Register
from harness.uapi.vfio import DeviceFlag, MigrationFlag, PciIrq, PciRegion, state_name

REGIONS = [region for region in PciRegion if region != PciRegion.VGA]  # EINVAL but for a display
INTERRUPTS = (PciIrq.INTX, PciIrq.MSI, PciIrq.MSIX)


def inspect(address: str) -> dict[str, Any]:
    """Open the VF at *address*, look at it, set its Bus Master Enable, reset it, let it go.

    Returns flags, the names of ``DeviceFlag``; region_bytes and interrupts, by the names of
    ``PciRegion`` and ``PciIrq``; and the COMMAND register when opened, after BME was set, and after
    the reset.  *migration* is what it offers, the names of ``MigrationFlag``, and *migration_state*
    its ``DeviceState``, None where it offers nothing.  Raises AgentError, as when somebody else has
    it open.
    """
    with VfioDevice.open(address) as device:
        info = device.info()
        flags = [flag.name for flag in DeviceFlag if info.flags & flag]
        regions = {
            region.name: device.region_info(region).size
            for region in REGIONS
            if region < info.num_regions
        }
        interrupts = {
            irq.name: device.irq_info(irq).count for irq in INTERRUPTS if irq < info.num_irqs
        }
        offered = device.migration()
        opened = _command(device)
        device.config_write(Register.COMMAND, struct.pack("<H", opened | Command.MASTER))
        mastering = _command(device)
        device.reset()
        return {
            "flags": flags,
            "region_bytes": regions,
            "interrupts": interrupts,
            "migration": [flag.name for flag in MigrationFlag if offered & flag],
            "migration_state": state_name(device.migration_state()) if offered else None,
            "command_opened": opened,
            "command_mastering": mastering,
            "command_reset": _command(device),
        }


def _command(device: VfioDevice) -> int:
    (command,) = struct.unpack("<H", device.config_read(Register.COMMAND, 2))
    return int(command)
