"""A driver whose guest sends a frame, for which the twin's DMA goes by message.

The ring is in memory that is lent without a descriptor, so ring, frame and status all go so.
"""

from __future__ import annotations

import pytest
from vf_rings import MAC
from vfio_client import Asked, Client, Twin, access, first_client, served_twin

from harness.uapi import ixgbe_vf
from harness.uapi.ixgbe_vf import QueueControl, QueueRegister, TxCommand
from harness.uapi.pci_regs import Command as PciCommand
from harness.uapi.pci_regs import Register
from harness.uapi.vfio import PciRegion
from harness.uapi.vfio_user import Command

PAGE = 4096
BAR0, CONFIG = PciRegion.BAR0, PciRegion.CONFIG
FRAME = b"\xff" * 6 + MAC + b"\x88\xb5" + bytes(range(50))
TAIL = ixgbe_vf.TRANSMIT + QueueRegister.TAIL
DMA_OF_A_FRAME = [
    Asked(Command.DMA_READ, 0, 16),
    Asked(Command.DMA_READ, PAGE, len(FRAME)),
    Asked(Command.DMA_WRITE, 12, 4),
]

twin, client = pytest.fixture(served_twin), pytest.fixture(first_client)


@pytest.fixture
def driver(twin: Twin, client: Client) -> Client:
    """A client whose guest has eight frames in its ring, and needs to write TAIL to send them."""
    twin.device.port.set_mac(MAC)
    twin.device.port.transmits = True  # as after the VF's first message
    memory = client.lend(0, 2 * PAGE)
    command = ixgbe_vf.TX_TYPE_DATA | TxCommand.EOP | TxCommand.RS | len(FRAME)
    for place in range(8):
        descriptor = ixgbe_vf.TX_DESCRIPTOR.pack(PAGE, command, len(FRAME) << 14)
        memory[16 * place : 16 * place + 16] = descriptor
    memory[PAGE : PAGE + len(FRAME)] = FRAME
    client.write(CONFIG, Register.COMMAND, PciCommand.MASTER, 2)
    client.write(BAR0, ixgbe_vf.TRANSMIT + QueueRegister.LEN, 8 * 16)
    client.write(BAR0, ixgbe_vf.TRANSMIT + QueueRegister.DCTL, QueueControl.ENABLE)
    return client


def tail(value: int) -> bytes:
    return access(BAR0, TAIL, 4, value.to_bytes(4, "little"))
