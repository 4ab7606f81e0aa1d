"""A q35 machine has its configuration space in memory at this address.

Ref: SeaBIOS, src/fw/dev-q35.h, Q35_HOST_BRIDGE_PCIEXBAR_ADDR; QEMU has the same before any firmware
ran: include/hw/pci-host/q35.h, MCH_HOST_BRIDGE_PCIEXBAR_DEFAULT.
"""

from __future__ import annotations

ECAM = 0xB0000000
