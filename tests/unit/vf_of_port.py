"""A VF of a port has what the port's driver grants, and rings of its own driver.

The port's part is ixgbe's: Linux 6.12, drivers/net/ethernet/intel/ixgbe/ixgbe_sriov.c; the names of
its functions stand at ours.  The VF's part is ixgbevf's, as in ``vf_driver``.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from port_driver import Port, lent_memory
from vf_rings import Memory, ReceiveRing, TransmitRing

from harness.uapi import ixgbe_pf, ixgbe_vf
from harness.uapi.ixgbe_pf import Row, Vmolr
from harness.uapi.ixgbe_vf import QueueControl, Register
from harness.uapi.pci_regs import Command
from harness.uapi.pci_regs import Register as PciRegister


def mac_of(vf: int) -> bytes:
    """Return the address that a test gives to a VF."""
    return bytes.fromhex("0200000001") + bytes([vf])


class PortVf:
    """VF *number* of *port* has one queue each way; its guest lends *memory*."""

    rx: ReceiveRing
    tx: TransmitRing

    def __init__(self, port: Port, number: int, memory: Memory) -> None:
        self.port = port
        self.number = number
        self.memory = memory
        self.mac = mac_of(number)
        self.function = port.chip.vfs[number]

    def start(self, *, strips: bool = True) -> None:
        """Do as ixgbevf_reset and ixgbevf_open, and as the port's driver for each message."""
        self.set_master(True)
        self.function.write(Register.VFCTRL, ixgbe_vf.VfControl.RST)
        self.reset_event()
        self.reset_message()
        self.tx = TransmitRing(self.function, self.memory, 0, 16)
        self.rx = ReceiveRing(self.function, self.memory, 0, 16, 2048)
        self.tx.configure()
        self.rx.configure(QueueControl.ENABLE | (QueueControl.VME if strips else 0))
        self.rx.give(15)

    def set_master(self, on: bool) -> None:
        """Set or clear Bus Master Enable."""
        command = Command.MEMORY | (Command.MASTER if on else 0)
        self.function.config.write(PciRegister.COMMAND, int(command).to_bytes(2, "little"))

    # The port's driver.

    def reset_event(self) -> None:
        """Do as ixgbe_vf_reset_event: VLAN 0, what every VF receives, and no port VLAN."""
        self.port.set_vfta(0, self.number, on=True)
        self._set_vmolr(untagged=True)
        self.port.write(Row.VMVIR.at(self.number), 0)

    def reset_message(self) -> None:
        """Do as ixgbe_vf_reset_msg: address, receive and transmit, and the count of spoofing."""
        self.port.set_rar(1 + self.number, self.mac, self.number)
        self.enable(True)
        self.port.set_bits(Row.VMECM.at(self.number >> 5), 1 << (self.number & 31))

    def enable(self, on: bool) -> None:
        """Do as ixgbe_set_vf_rx_tx."""
        for row in (Row.VFTE, Row.VFRE):
            self.port.set_bits(row.at(self.number >> 5), 1 << (self.number & 31), on=on)

    def add_vlan(self, vlan: int) -> None:
        """Do as ixgbe_set_vf_vlan_msg."""
        self.port.set_vfta(vlan, self.number, on=True)

    def set_port_vlan(self, vlan: int, priority: int = 0) -> None:
        """Do as ixgbe_enable_port_vlan."""
        self.port.set_vfta(vlan, self.number, on=True)
        self.port.set_vfta(0, self.number, on=False)
        tag = vlan | priority << 13 | ixgbe_pf.VMVIR_VLANA_DEFAULT
        self.port.write(Row.VMVIR.at(self.number), tag)
        self._set_vmolr(untagged=False)

    def clear_port_vlan(self, vlan: int) -> None:
        """Do as ixgbe_disable_port_vlan."""
        self.port.set_vfta(vlan, self.number, on=False)
        self.port.set_vfta(0, self.number, on=True)
        self.port.write(Row.VMVIR.at(self.number), 0)
        self._set_vmolr(untagged=True)

    def set_rate(self, mbit: int, *, link_mbit: int = 10_000) -> None:
        """Do as ixgbe_set_vf_rate_limit; 0 for no limit."""
        value = 0
        if mbit:
            factor = (link_mbit << ixgbe_pf.RTTBCNRC_RF_INT_SHIFT) // mbit
            value = factor & ixgbe_pf.RTTBCNRC_RF_MASK | ixgbe_pf.RTTBCNRC_RS_ENA
        self.port.write(ixgbe_pf.Register.RTTBCNRM, 0x4)
        for queue in range(self.port.queues_per_pool):
            number = self.number * self.port.queues_per_pool + queue
            self.port.write(ixgbe_pf.Register.RTTDQSEL, number)
            self.port.write(ixgbe_pf.Register.RTTBCNRC, value)

    def _set_vmolr(self, *, untagged: bool) -> None:
        place = Row.VMOLR.at(self.number)
        self.port.set_bits(place, Vmolr.BAM)
        self.port.set_bits(place, Vmolr.AUPE, on=untagged)

    def got(self) -> list[bytes]:
        """Return the frames that the VF received since the last call."""
        self.port.turn()
        return [each.data for each in self.rx.took()]


@contextmanager
def vf_of(port: Port, number: int) -> Iterator[PortVf]:
    """Start VF *number* of a port that is started, with a guest's memory."""
    with lent_memory(port.chip.vfs[number].memory) as memory:
        vf = PortVf(port, number, memory)
        vf.start()
        yield vf
