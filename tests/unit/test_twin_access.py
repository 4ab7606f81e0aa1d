"""The device as a client reaches it: registers, configuration space, and interrupts."""

from __future__ import annotations

import os

import pytest
from descriptors import eventfds, open_descriptors, signals
from vfio_client import Client, Twin, access, first_client, served_twin

from harness.twin.config_bytes import PBA_OFFSET
from harness.twin.config_space import MSIX_BAR
from harness.uapi import ixgbe_vf, vfio_user
from harness.uapi.ixgbe_vf import BAR_BYTES, EXPRESS, MSIX, VECTORS
from harness.uapi.ixgbe_vf import Register as Bar
from harness.uapi.pci_regs import CapabilityId, Express, Msix, Register
from harness.uapi.pci_regs import Command as PciCommand
from harness.uapi.vfio import IrqSetFlag, PciIrq, PciRegion
from harness.uapi.vfio_user import Command

BAR0, BAR3, CONFIG = PciRegion.BAR0, PciRegion.BAR3, PciRegion.CONFIG
NONE, BOOL, EVENTFD = IrqSetFlag.DATA_NONE, IrqSetFlag.DATA_BOOL, IrqSetFlag.DATA_EVENTFD
TRIGGER = IrqSetFlag.ACTION_TRIGGER
MASK, UNMASK = IrqSetFlag.ACTION_MASK, IrqSetFlag.ACTION_UNMASK

twin, client = pytest.fixture(served_twin), pytest.fixture(first_client)


# --- registers ------------------------------------------------------------------------------


def test_eight_bytes_are_two_registers(client: Client) -> None:
    """A guest's 64-bit access is one message: with its halves swapped a ring is elsewhere."""
    client.write(BAR0, ixgbe_vf.TRANSMIT, 0x1122334455667780, 8)
    assert client.read(BAR0, ixgbe_vf.TRANSMIT) == 0x55667780
    assert client.read(BAR0, ixgbe_vf.TRANSMIT + 4) == 0x11223344
    assert client.read(BAR0, ixgbe_vf.TRANSMIT, 8) == 0x1122334455667780


def test_several_writes_come_in_one_message(twin: Twin, client: Client) -> None:
    """QEMU gathers a guest's posted writes: their order counts, and each has its own length."""
    entry, head = vfio_user.WRITE_MULTI_ENTRY, vfio_user.WRITE_MULTI_HEAD
    writes = [
        entry.pack(Register.COMMAND, CONFIG, 2, b"\6\0junk"),
        entry.pack(Bar.VFMBMEM, BAR0, 4, b"\1\0\0\0"),
        entry.pack(Bar.VFMBMEM + 8, BAR0, 8, b"\2\0\0\0\3\0\0\0"),
        entry.pack(Bar.VFMBMEM, BAR0, 4, b"\4\0\0\0junk"),
    ]
    reply = client.ask(Command.REGION_WRITE_MULTI, head.pack(4) + b"".join(writes))
    assert reply == head.pack(4)
    assert [client.read(BAR0, Bar.VFMBMEM + 4 * word) for word in range(4)] == [4, 0, 2, 3]
    assert twin.commanded == [PciCommand.MASTER | PciCommand.MEMORY]


def test_the_msix_bar_takes_everything_and_keeps_nothing(client: Client) -> None:
    """The client keeps table and pending bits itself; a refusal would show as a bus error."""
    client.write(BAR3, BAR_BYTES - 8, 0xFFFFFFFF, 8)
    assert client.read(BAR3, BAR_BYTES - 8, 8) == 0
    assert client.read(BAR3, 1, 1) == 0


def test_a_whole_region_is_read_at_once(client: Client) -> None:
    """As QEMU does with configuration space; a limit of a few bytes is for several writes only."""
    reply = client.ask(Command.REGION_READ, access(CONFIG, 0, 4096))
    assert len(reply) == vfio_user.REGION_ACCESS.size + 4096


# --- configuration space --------------------------------------------------------------------


def test_configuration_space_has_the_ids_that_vfio_shows(client: Client) -> None:
    """A real VF's read as all ones, by which no guest finds a driver."""
    assert client.read(CONFIG, Register.VENDOR_ID) == 0x10ED8086
    assert client.read(CONFIG, Register.SUBSYSTEM_VENDOR_ID, 2) == 0x8086
    assert client.read(CONFIG, Register.CLASS_REVISION) >> 8 == 0x020000
    client.write(CONFIG, Register.VENDOR_ID, 0)
    assert client.read(CONFIG, Register.VENDOR_ID) == 0x10ED8086


@pytest.mark.parametrize("bar", [Register.BASE_ADDRESS_0, Register.BASE_ADDRESS_3])
def test_a_bar_tells_its_size(client: Client, bar: int) -> None:
    """All ones are written and what stays 0 is the size: writable low bits make a BAR too small."""
    client.write(CONFIG, bar, (1 << 64) - 1, 8)
    assert client.read(CONFIG, bar, 8) == (1 << 64) - BAR_BYTES | 0b0100
    client.write(CONFIG, bar, 0x12_3456_4000, 8)
    assert client.read(CONFIG, bar, 8) == 0x12_3456_4004


def test_capabilities_lead_from_one_to_the_next(client: Client) -> None:
    """MSI-X has three vectors, with its table and pending bits in a BAR that is there."""
    assert client.read(CONFIG, Register.CAPABILITY_LIST, 1) == MSIX
    assert client.read(CONFIG, MSIX, 2) == EXPRESS << 8 | CapabilityId.MSIX
    assert client.read(CONFIG, MSIX + Msix.FLAGS, 2) + 1 == VECTORS
    assert client.read(CONFIG, MSIX + Msix.TABLE) == MSIX_BAR
    assert client.read(CONFIG, MSIX + Msix.PBA) == PBA_OFFSET | MSIX_BAR
    assert client.read(CONFIG, EXPRESS, 2) == CapabilityId.EXP


def test_msix_is_switched_on_and_its_size_stays(client: Client) -> None:
    """The size shares a register with the switch: a plain write would set it to 1."""
    client.write(CONFIG, MSIX + Msix.FLAGS, Msix.FLAGS_ENABLE, 2)
    assert client.read(CONFIG, MSIX + Msix.FLAGS, 2) == Msix.FLAGS_ENABLE | VECTORS - 1


def test_bus_master_enable_is_told_as_it_changes(twin: Twin, client: Client) -> None:
    """The second byte alone is no change of it, and yet of the register; bit 3 is reserved."""
    client.write(CONFIG, Register.COMMAND, PciCommand.MASTER | PciCommand.SPECIAL, 2)
    assert twin.device.config.masters_bus
    client.write(CONFIG, Register.COMMAND + 1, PciCommand.INTX_DISABLE >> 8, 1)
    client.write(CONFIG, Register.STATUS, 0xFFFF, 2)
    twin.device.config.set_master(False)
    assert not twin.device.config.masters_bus
    both = PciCommand.MASTER | PciCommand.INTX_DISABLE
    assert twin.commanded == [PciCommand.MASTER, both, PciCommand.INTX_DISABLE]


def test_a_function_level_reset_resets_registers_and_takes_the_bus_away() -> None:
    """The bit is in DEVCTL's second byte: a write of the first, or of another bit, is none."""
    with Twin(erratum_35=False) as twin:
        _resets_its_function(twin, twin.connect())


def test_a_vf_as_real_ones_are_has_its_guests_reset_swallowed(twin: Twin, client: Client) -> None:
    """Erratum 35: its Device Capabilities name no reset, so VFIO does none."""
    client.write(CONFIG, Register.COMMAND, PciCommand.MASTER, 2)
    client.write(BAR0, Bar.VTEIMS, 1)
    client.write(CONFIG, EXPRESS + Express.DEVCTL, Express.DEVCTL_BCR_FLR, 2)
    assert client.read(BAR0, Bar.VTEIMS) == 1
    assert twin.commanded == [PciCommand.MASTER]


def _resets_its_function(twin: Twin, client: Client) -> None:
    client.write(CONFIG, Register.COMMAND, PciCommand.MASTER, 2)
    client.write(CONFIG, MSIX + Msix.FLAGS, Msix.FLAGS_ENABLE, 2)
    client.write(BAR0, Bar.VTEIMS, 1)
    client.write(CONFIG, EXPRESS + Express.DEVCTL, 0x80, 1)
    client.write(CONFIG, EXPRESS + Express.DEVCTL, 0x7FFF, 2)
    assert client.read(BAR0, Bar.VTEIMS) == 1
    client.write(CONFIG, EXPRESS + Express.DEVCTL, Express.DEVCTL_BCR_FLR, 2)
    assert client.read(BAR0, Bar.VTEIMS) == 0
    assert client.read(CONFIG, Register.COMMAND, 2) == 0
    assert client.read(CONFIG, MSIX + Msix.FLAGS, 2) == VECTORS - 1
    assert client.read(CONFIG, EXPRESS + Express.DEVCTL, 2) & Express.DEVCTL_BCR_FLR == 0
    assert twin.commanded == [PciCommand.MASTER, 0]


@pytest.mark.parametrize("erratum_35", [False, True])
def test_erratum_35_leaves_zeros_where_the_device_tells_what_it_can(erratum_35: bool) -> None:
    """With it no guest sees that there is a function level reset, as with a real 82599 VF."""
    with Twin(erratum_35=erratum_35) as twin:
        client = twin.connect()
        told = [
            client.read(CONFIG, EXPRESS + Express.FLAGS, 2) & 0xF,
            client.read(CONFIG, EXPRESS + Express.DEVCAP) & Express.DEVCAP_FLR,
            client.read(CONFIG, EXPRESS + Express.LNKCAP),
        ]
        assert client.read(CONFIG, EXPRESS, 2) == CapabilityId.EXP
    assert told == [0, 0, 0] if erratum_35 else all(told)


# --- interrupts -----------------------------------------------------------------------------


def test_each_vector_leads_to_its_own_eventfd(client: Client) -> None:
    """Given to vectors 1 and 2: a start that is ignored leads them to 0 and 1."""
    with eventfds(2) as ends:
        client.set_irqs(EVENTFD | TRIGGER, *ends, start=1, count=2)
        client.set_irqs(NONE | TRIGGER, start=0, count=2)
        assert signals(*ends) == [1, 0]
        client.set_irqs(NONE | TRIGGER, start=2)
        assert signals(*ends) == [0, 1]


def test_those_vectors_are_triggered_whose_byte_is_set(client: Client) -> None:
    """A byte of 0 leaves its vector alone."""
    with eventfds(VECTORS) as ends:
        client.set_irqs(EVENTFD | TRIGGER, *ends, count=VECTORS)
        client.set_irqs(BOOL | TRIGGER, count=VECTORS, data=b"\1\0\2")
        assert signals(*ends) == [1, 0, 1]


def test_a_masked_vector_signals_once_when_it_is_unmasked(client: Client) -> None:
    """What came meanwhile is held back and not lost; twice pending is pending."""
    with eventfds(2) as ends:
        client.set_irqs(EVENTFD | TRIGGER, *ends, count=2)
        client.set_irqs(NONE | MASK, start=1)
        for _ in range(2):
            client.set_irqs(NONE | TRIGGER, count=2)
        assert signals(*ends) == [2, 0]
        client.set_irqs(BOOL | UNMASK, count=2, data=b"\1\1")
        assert signals(*ends) == [0, 1]


def test_the_devices_own_interrupt_takes_the_same_way(client: Client) -> None:
    """A driver sets a cause and finds it at the vector: a client's mask holds it as well."""
    with eventfds(1) as (end,):
        client.set_irqs(EVENTFD | TRIGGER, end, start=2)
        client.write(CONFIG, Register.COMMAND, PciCommand.MASTER, 2)
        client.write(BAR0, Bar.VTEIMS, 0b100)
        client.write(BAR0, Bar.VTEICS, 0b101)
        assert signals(end) == [1]
        client.set_irqs(NONE | MASK, start=2)
        client.write(BAR0, Bar.VTEICS, 0b100)
        assert signals(end) == [0]
        client.set_irqs(NONE | UNMASK, start=2)
        assert signals(end) == [1]


def test_a_vector_is_taken_from_its_eventfd(client: Client) -> None:
    """No descriptor where eventfds are announced takes away; the other vector stays."""
    with eventfds(2) as ends:
        client.set_irqs(EVENTFD | TRIGGER, *ends, count=2)
        client.set_irqs(EVENTFD | TRIGGER, start=0, count=1)
        client.set_irqs(NONE | TRIGGER, count=2)
        assert signals(*ends) == [0, 1]


@pytest.mark.parametrize("index", [PciIrq.MSIX, PciIrq.INTX])
def test_all_vectors_of_an_index_are_taken_away_at_once(client: Client, index: PciIrq) -> None:
    """QEMU disables INTx so before it enables MSI-X, which that must not touch."""
    with eventfds(1) as (end,):
        client.set_irqs(EVENTFD | TRIGGER, end)
        client.set_irqs(NONE | MASK)
        client.set_irqs(NONE | TRIGGER, index=index, count=0)
        client.set_irqs(NONE | UNMASK, index=PciIrq.MSIX)
        client.set_irqs(NONE | TRIGGER)
        assert signals(end) == [0 if index == PciIrq.MSIX else 1]


def test_an_eventfd_is_kept_no_longer_than_its_vector_leads_there(client: Client) -> None:
    """A guest's driver is loaded again and again, each time with new ones."""
    before = len(open_descriptors())
    for _ in range(20):
        with eventfds(VECTORS) as ends:
            client.set_irqs(EVENTFD | TRIGGER, *ends, count=VECTORS)
            assert len(open_descriptors()) == before + 2 * VECTORS
    client.set_irqs(NONE | TRIGGER, count=0)
    assert len(open_descriptors()) == before


def test_an_eventfd_that_can_count_no_further_is_signalled_already(client: Client) -> None:
    """A write to it would block, and with it every guest's traffic; as an error it ends the twin.

    That it is there for the client too shows that both use the same one.
    """
    with eventfds(1) as (end,):
        most = (1 << 64) - 2
        os.set_blocking(end, True)
        os.eventfd_write(end, most)
        client.set_irqs(EVENTFD | TRIGGER, end)
        client.set_irqs(NONE | TRIGGER)
        assert signals(end) == [most]
