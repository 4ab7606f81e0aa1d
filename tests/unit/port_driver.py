"""A driver in this process writes the registers of a port as ixgbe does.

Which registers, and in which order, is ixgbe's: Linux 6.12, drivers/net/ethernet/intel/ixgbe,
ixgbe_main.c, ixgbe_common.c and ixgbe_82599.c; the names of its functions stand at ours.  What the
driver does for its VFs is in ``vf_of_port``, and its filters are in ``port_filters``.
"""

from __future__ import annotations

import mmap
from collections.abc import Iterator
from contextlib import contextmanager

from descriptors import memory_file
from port_filters import PortFilters
from vf_rings import MEMORY, MEMORY_BYTES, Memory, ReceiveRing, Registers, TransmitRing
from vfio_client import LENT

from harness.chip.configuration import SRIOV
from harness.chip.physical_function import PhysicalFunction
from harness.twin.memory import GuestMemory
from harness.twin.transmit import Part
from harness.uapi import ixgbe_pf, ixgbe_vf
from harness.uapi.ixgbe_pf import (
    RECEIVE_BLOCKS,
    TRANSMIT_BLOCKS,
    Ctrl,
    CtrlExt,
    Fctrl,
    Mrqe,
    Register,
    Row,
    RssField,
    Vmolr,
    VtCtl,
)
from harness.uapi.ixgbe_vf import QueueControl, QueueRegister
from harness.uapi.pci_regs import Command, Sriov
from harness.uapi.pci_regs import Register as PciRegister

PORT_MAC = bytes.fromhex("020000000010")
PEER_MAC = bytes.fromhex("020000000002")
HASHED = RssField.IPV4 | RssField.IPV4_TCP | RssField.IPV6 | RssField.IPV6_TCP
"""What ixgbe_setup_mrqc has hashes made of."""

_LOW = 0xFFFFFFFF


class QueueView:
    """The queues of a port from *first* on look like queues 0, 1, ... of a VF."""

    def __init__(self, port: Registers, first: int) -> None:
        self._port = port
        self._first = first

    def read(self, offset: int) -> int:
        return self._port.read(self._place(offset))

    def write(self, offset: int, value: int) -> None:
        self._port.write(self._place(offset), value)

    def _place(self, offset: int) -> int:
        transmits = offset >= ixgbe_vf.TRANSMIT
        number, register = divmod(offset & 0xFFF, ixgbe_vf.QUEUE_BYTES)
        blocks = TRANSMIT_BLOCKS if transmits else RECEIVE_BLOCKS
        high, index = divmod(self._first + number, 64)
        return blocks[high][0] + index * ixgbe_vf.QUEUE_BYTES + register


class Port(PortFilters):
    """A port has memory that its driver lends, and a wire, which got *sent*."""

    rx: list[ReceiveRing]
    tx: list[TransmitRing]

    def __init__(self, memory: Memory, vfs: int) -> None:
        self.memory = memory
        self.sent: list[bytes] = []
        self.vfs = 0
        self.mtu = 1500
        super().__init__(
            PhysicalFunction(number=0, mac=PORT_MAC, vfs=vfs, to_wire=self._put_on_wire)
        )
        self.link_up()

    @property
    def pool(self) -> int:
        """Return the port's own pool, VMDQ_P(0), which follows those of the VFs."""
        return self.vfs

    @property
    def queues_per_pool(self) -> int:
        """Return 4 queues where 32 pools do, else 2 (ixgbe_set_vmdq_queues)."""
        return 4 if self.vfs < 32 else 2

    @property
    def first_queue(self) -> int:
        """Return the first queue of the port's own pool."""
        return self.pool * self.queues_per_pool if self.vfs else 0

    def link_up(self) -> None:
        """End the link's training at once, since no test waits for it here."""
        self.chip.link.plug(True, self.chip.link.mbit, trained=True)

    def set_master(self, on: bool) -> None:
        """Set or clear Bus Master Enable."""
        command = Command.MEMORY | (Command.MASTER if on else 0)
        self.chip.config.write(PciRegister.COMMAND, int(command).to_bytes(2, "little"))

    def enable_vfs(self, count: int) -> None:
        """Do as pci_enable_sriov and pci_disable_sriov (drivers/pci/iov.c)."""
        number, control = count.to_bytes(2, "little"), Sriov.CTRL_VFE | Sriov.CTRL_MSE
        if count:
            self.chip.config.write(SRIOV + Sriov.NUM_VF, number)
        on = int(control | Sriov.CTRL_ARI if count else Sriov.CTRL_ARI)
        self.chip.config.write(SRIOV + Sriov.CTRL, on.to_bytes(2, "little"))
        if not count:
            self.chip.config.write(SRIOV + Sriov.NUM_VF, number)
        self.vfs = count

    def start(self, *, vfs: int = 0, mtu: int = 1500, queues: int = 1) -> None:
        """Do as ixgbe_probe, ixgbe_pci_sriov_enable and ixgbe_open, with so many queues."""
        self.set_master(True)
        self.mtu = mtu
        self.reset_hw()
        if vfs != self.vfs:
            self.enable_vfs(vfs)
        self.configure(queues)
        self.up_complete(queues)

    def reset_hw(self) -> None:
        """Do as ixgbe_reset_hw_82599: stop everything, reset, clear the tables of addresses."""
        self.stop_adapter()
        self.write(Register.CTRL, self.read(Register.CTRL) | Ctrl.RST)
        assert not self.read(Register.CTRL) & Ctrl.RST, "the driver waits for that bit"
        for index in range(1, ixgbe_pf.RECEIVE_ADDRESSES):
            self.write(Row.RAL.at(index), 0)
            self.write(Row.RAH.at(index), 0)
        self.clear_rows(Row.MTA, Row.UTA, Row.VFTA, Row.VLVF, Row.VLVFB)
        self.link_up()

    def stop_adapter(self) -> None:
        """Do as ixgbe_stop_adapter_generic, which stops the queues of the VFs as well."""
        self.disable_rx()
        self.write(Register.EIMC, _LOW)
        self.read(Register.EICR)
        for number in range(ixgbe_pf.QUEUES):
            high, index = divmod(number, 64)
            transmit = TRANSMIT_BLOCKS[high][0] + index * ixgbe_vf.QUEUE_BYTES
            self.write(transmit + QueueRegister.DCTL, QueueControl.SWFLSH)
            receive = RECEIVE_BLOCKS[high][0] + index * ixgbe_vf.QUEUE_BYTES
            value = self.read(receive + QueueRegister.DCTL) & ~QueueControl.ENABLE
            self.write(receive + QueueRegister.DCTL, value | QueueControl.SWFLSH)

    def disable_rx(self) -> None:
        """Do as ixgbe_disable_rx_generic, which ends loopback between pools too."""
        self.set_bits(Register.PFDTXGSWC, ixgbe_pf.PFDTXGSWC_VT_LBEN, on=False)
        self.set_bits(Register.RXCTRL, ixgbe_pf.RXCTRL_RXEN, on=False)

    def configure(self, queues: int) -> None:
        """Do as ixgbe_configure: virtualization, receive mode, VLAN 0, then the rings."""
        if self.vfs:
            self.configure_virtualization()
        self.set_rx_mode()
        self.set_vfta(0, self.pool, on=True)
        self.set_bits(Register.DMATXCTL, ixgbe_pf.DMATXCTL_TE)
        self._configure_queues(queues)
        self.set_bits(Register.RXCTRL, ixgbe_pf.RXCTRL_RXEN)
        if self.vfs:
            self.set_bits(Register.PFDTXGSWC, ixgbe_pf.PFDTXGSWC_VT_LBEN)

    def configure_virtualization(self) -> None:
        """Do as ixgbe_configure_virtualization: only the port's own pool may receive and send."""
        control = VtCtl.VT_ENABLE | VtCtl.REPLEN | self.pool << ixgbe_pf.VT_CTL_POOL_SHIFT
        self.write(Register.VT_CTL, control)
        self.write(Row.VMOLR.at(self.pool), Vmolr.AUPE)
        high = self.pool >> 5
        for row in (Row.VFRE, Row.VFTE):
            self.write(row.at(high), _LOW << (self.pool & 31) & _LOW)
            self.write(row.at(high ^ 1), 0 if high else _LOW)
        self.set_vmdq(0, self.pool)
        self.write(Register.GCR_EXT, 2 if self.queues_per_pool == 4 else 3)
        for vf in range(self.vfs):
            self.set_spoof_check(vf, True)

    def set_rx_mode(self, *, fctrl: int = 0, vmolr: int = 0) -> None:
        """Do as ixgbe_set_rx_mode, with further bits of FCTRL and of the own pool's VMOLR."""
        self.write(Register.FCTRL, Fctrl.BAM | fctrl)
        self.write(Register.MCSTCTRL, ixgbe_pf.MCSTCTRL_MFE)
        self.write(Row.VMOLR.at(self.pool), Vmolr.AUPE | Vmolr.BAM | vmolr)
        self.set_bits(Register.VLNCTRL, ixgbe_pf.VLNCTRL_VFE)

    def up_complete(self, queues: int) -> None:
        """Do as ixgbe_up_complete: interrupts, and the VFs are told that the port is back."""
        eiame = 1 << 30
        self.write(Register.GPIE, eiame | 1 << 5 | 1 << 4)
        for half in (0, 1):
            self.write(Row.EIAM_EX.at(half), _LOW)
        for number in range(queues):
            self.set_ivar(self.first_queue + number, vector=number)
        self.write(Register.IVAR_MISC, (queues | 0x80) << 8)
        self.write(Register.EIAC, 0xFFFF)
        self.read(Register.EICR)
        self.write(Register.EIMS, ixgbe_pf.Eicr.MAILBOX | ixgbe_pf.Eicr.LSC)
        self.write(Row.EIMS_EX.at(0), (1 << queues) - 1)
        self.write(Register.CTRL_EXT, self.read(Register.CTRL_EXT) | CtrlExt.PFRSTD)

    def set_ivar(self, queue: int, *, vector: int) -> None:
        """Do as ixgbe_set_ivar, for both directions of a queue."""
        entry = vector | 0x80
        shift = 16 * (queue & 1)
        value = self.read(Row.IVAR.at(queue >> 1)) & ~(0xFFFF << shift)
        self.write(Row.IVAR.at(queue >> 1), value | (entry | entry << 8) << shift)

    def hear(self, *frames: bytes) -> None:
        """Take frames from the wire, all in one go."""
        for frame in frames:
            self.chip.receive(memoryview(frame))
        self.turn()

    def turn(self) -> float:
        """Turn the program's loop once; return in how many seconds the next turn is due, or 0."""
        self.chip.settle()
        return self.chip.deliver_interrupts()

    def _configure_queues(self, queues: int) -> None:
        """Do as ixgbe_setup_mrqc, ixgbe_setup_reta, ixgbe_set_rx_buffer_len, and the rings."""
        modes = {4: Mrqe.VMDQRSS32EN, 2: Mrqe.VMDQRSS64EN}
        mode = modes[self.queues_per_pool] if self.vfs else Mrqe.RSSEN
        self.write(Register.MRQC, mode | HASHED)
        for index in range(Row.RETA.count):
            entries = [(4 * index + byte) % queues for byte in range(4)]
            self.write(Row.RETA.at(index), int.from_bytes(bytes(entries), "little"))
        spread = (queues - 1).bit_length() << ixgbe_vf.PSRTYPE_RQPL_SHIFT
        self.write(Row.PSRTYPE.at(self.pool), spread)
        largest = max(self.mtu, 1500) + 14 + ixgbe_vf.CHECKSUM_BYTES
        self.write(Register.MAXFRS, largest << ixgbe_pf.MAXFRS_SHIFT)
        self.set_bits(Register.HLREG0, ixgbe_pf.HLREG0_JUMBOEN)
        view = QueueView(self.chip, self.first_queue)
        self.tx = [TransmitRing(view, self.memory, number, 16) for number in range(queues)]
        self.rx = [ReceiveRing(view, self.memory, number, 16, 2048) for number in range(queues)]
        for ring in (*self.tx, *self.rx):
            ring.configure()
        for receive in self.rx:
            receive.give(15)

    def _put_on_wire(self, parts: list[Part]) -> bool:
        self.sent.append(b"".join(parts))
        return True


@contextmanager
def lent_memory(function: GuestMemory) -> Iterator[mmap.mmap]:
    """Lend memory to one function, as its driver sees it."""
    with memory_file(MEMORY_BYTES) as file, mmap.mmap(file, MEMORY_BYTES) as memory:
        function.map(MEMORY, MEMORY_BYTES, LENT, 0, file)
        try:
            yield memory
        finally:
            function.unmap_all()


@contextmanager
def port_of_chip(vfs: int = 4) -> Iterator[Port]:
    """Yield a port that may have so many VFs; its driver has not started it yet."""
    port = Port(bytearray(), vfs)
    with lent_memory(port.chip.memory) as memory:
        port.memory = memory
        yield port
