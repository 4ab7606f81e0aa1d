"""A port (PF) of the chip joins the modules that ``ixgbe`` sees as one device."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial

from harness.chip.configuration import MSIX_BAR, Disguise, PortConfig, VfConfig
from harness.chip.data_path import DataPath
from harness.chip.general import General
from harness.chip.interrupts import PortInterrupts
from harness.chip.link import Link
from harness.chip.mailbox import Mailboxes
from harness.chip.nvm import Nvm, image
from harness.chip.pool import OwnPool, Pool
from harness.chip.queue_statistics import QueueStatistics
from harness.chip.queues import QueueRegisters
from harness.chip.rate import PoolRate, RateLimits
from harness.chip.record import Record
from harness.chip.registers import Registers
from harness.chip.sfp import I2cBus, Module
from harness.chip.statistics import PortStatistics
from harness.chip.switch import Switch
from harness.twin.config_bytes import BYTES
from harness.twin.memory import GuestMemory
from harness.twin.misbehaviour import Misbehaviour
from harness.twin.receive import Receiver
from harness.twin.transmit import Part, Transmitter
from harness.twin.vectors import Vectors
from harness.twin.vf import Vf
from harness.uapi import ixgbe_pf, ixgbe_vf
from harness.uapi.ixgbe_eeprom import MSCA_MDI_COMMAND
from harness.uapi.ixgbe_pf import DMATXCTL_TE, RAH_AV, Ctrl, CtrlExt, Eicr, Mrqe, Register, Row
from harness.uapi.vfio import PciRegion

_REGIONS: Mapping[int, int] = {
    PciRegion.BAR0: ixgbe_pf.BAR_BYTES,
    PciRegion(MSIX_BAR): ixgbe_vf.BAR_BYTES,
    PciRegion.CONFIG: BYTES,
}
_SOON_SECONDS = 0.001
_NO_PHY = 0xFFFF0000
_VT_MODES = {1: 8, 2: 4, 3: 2}  # GCR_EXT_VT_MODE_*: queues of a pool


class PhysicalFunction:
    """Port *number* of a chip has *vfs* VFs, which the port's driver may enable.

    *mac* is the port's address.  *to_wire* puts a frame, given in parts, onto the port's wire, and
    says whether the wire took the frame.  *records*, one for each VF or none at all, keep what the
    VFs did since the driver enabled them.  The port calls *placed* with the number of VFs when the
    driver enabled VFs, so that QEMU learns where they are; see ``harness.chip.placing``.
    """

    def __init__(
        self,
        *,
        number: int,
        mac: bytes,
        vfs: int,
        to_wire: Callable[[list[Part]], bool],
        disguise: Disguise = Disguise.IN_WHOLE_READS,
        records: Sequence[Record] = (),
        placed: Callable[[int], None] = lambda _: None,
    ) -> None:
        self.number = number
        self._mac = mac
        self._placed = placed
        self.vfs_enabled = 0
        self.registers = Registers()
        self.config = PortConfig(
            number=number,
            mac=mac,
            total_vfs=vfs,
            disguise=disguise,
            enabled=self._enable_vfs,
            reset=self.reset,
            mastered=self._master_changed,
        )
        self.misbehaviour = Misbehaviour(self.config)
        self.memory = GuestMemory(self.misbehaviour, None)
        self.interrupts = PortInterrupts(self.registers, self.misbehaviour)
        self.statistics = PortStatistics(self.registers)
        self.switch = Switch(self.registers)
        self.link = Link(self.registers, self._link_changed)
        self.mailboxes = Mailboxes(
            self.registers, lambda: self.interrupts.set_causes(Eicr.MAILBOX), self._ring
        )
        General(self.registers, number, self.config)
        Nvm(self.registers, image())
        I2cBus(self.registers, Module())
        self.path = DataPath(self, to_wire)
        own = OwnPool(self)
        parts = (self.memory, own, self.interrupts, self.statistics)
        self.receiver = Receiver(*parts, self.misbehaviour, ixgbe_pf.QUEUES)
        self.transmitter = Transmitter(*parts, self.path.send_own, ixgbe_pf.QUEUES)
        self._records = records
        self._pools = [Pool(self, index) for index in range(vfs)]
        self.vfs = [self._vf(pool) for pool in self._pools]
        for receiver in (self.receiver, *(vf.receiver for vf in self.vfs)):
            receiver.spread.fields = partial(self.registers.held, Register.MRQC)
        queues = QueueRegisters(self)
        self.queue_statistics = QueueStatistics(self.registers, queues.find)
        self.rates = RateLimits(self.registers, lambda: self.link.mbit, queues.transmit)
        self.transmitter.rate = self.rates
        for pool, vf in zip(self._pools, self.vfs, strict=True):
            vf.transmitter.rate = PoolRate(self.rates, self._first_queue_of(pool.number))
        self._claim()
        self._load_defaults()
        self._set_key()

    @property
    def regions(self) -> Mapping[int, int]:
        return _REGIONS

    @property
    def vectors(self) -> Vectors:
        return self.interrupts

    @property
    def is_transmitting(self) -> bool:
        """Say whether the port's transmit DMA is on."""
        return bool(self.registers.held(Register.DMATXCTL) & DMATXCTL_TE)

    @property
    def queues_per_pool(self) -> int:
        """Return how many queues each pool has; without pools, how many the port has."""
        return _VT_MODES.get(self.registers.held(Register.GCR_EXT) & 3, ixgbe_pf.QUEUES)

    @property
    def spreads(self) -> bool:
        """Say whether the port spreads frames over queues by their hash (RSS)."""
        mode = self.registers.held(Register.MRQC) & ixgbe_pf.MRQC_MRQE_MASK
        return mode in (Mrqe.RSSEN, Mrqe.VMDQRSS32EN, Mrqe.VMDQRSS64EN)

    def table_entry(self, hashed: int) -> int:
        """Return the entry of RETA for a frame's hash; 0 while the port does not spread frames."""
        if not self.spreads:
            return 0
        index = hashed % ixgbe_vf.RETA_ENTRIES
        return self.registers.held(Row.RETA.at(index >> 2)) >> 8 * (index & 3) & 0xF

    def read(self, offset: int) -> int:
        return self.registers.read(offset)

    def write(self, offset: int, value: int) -> None:
        self.registers.write(offset, value)

    def connect(self) -> None:
        """Put the port into its state after power-on, since a client has connected."""
        self.reset()
        self.config.disguise_again()

    def reset(self) -> None:
        """Reset the function: registers get their initial values, and the port has no VF."""
        self.config.clear()
        self._reset_port()

    def receive(self, frame: memoryview) -> None:
        """Take a frame, without its checksum, from the wire."""
        self.path.receive(frame)

    def settle(self) -> None:
        """Interrupt the driver of each queue that got frames."""
        self.path.settle()

    def deliver_interrupts(self) -> float:
        """Do the work that is due now; return in how many seconds more is due, 0 for no more.

        The work is to send frames of queues with a rate limit, to send interrupts, to tell of
        changes of the link, and to make the late writes of a VF that misbehaves.
        """
        waits = [self.rates.resume(), self.interrupts.deliver(), self.link.settle()]
        for vf in self.vfs[: self.vfs_enabled]:
            vf.receiver.write_late()
            vf.receiver.settle()
            waits += [vf.interrupts.deliver(), _SOON_SECONDS if vf.receiver.has_late_writes else 0]
        return min((wait for wait in waits if wait), default=0.0)

    def _vf(self, pool: Pool) -> Vf:
        noted = self._records[pool.number].note_command if self._records else lambda _: None
        return Vf(
            port=pool, send=self.path.sender_of(pool.number), erratum_35=True,
            configuration=VfConfig, queues=ixgbe_pf.VF_QUEUES, commanded=noted,
        )  # fmt: skip

    def _first_queue_of(self, pool: int) -> Callable[[], int]:
        return lambda: pool * self.queues_per_pool

    def _claim(self) -> None:
        claim = self.registers.claim
        claim(Register.CTRL, write=self._control)
        claim(Register.CTRL_EXT, write=self._control_extended)
        claim(Register.MSCA, write=self._ask_phy)
        self.registers.claim_row(Row.RSSRK, write=self._set_key_word)

    def _load_defaults(self) -> None:
        self.registers.default(Row.RAL.at(0), int.from_bytes(self._mac[:4], "little"))
        high = int.from_bytes(self._mac[4:], "little") | RAH_AV
        self.registers.default(Row.RAH.at(0), high)

    def _control(self, value: int) -> None:
        """Write CTRL, where a reset clears every bit; ixgbe_reset_hw_82599 waits for that."""
        if not value & (Ctrl.RST | Ctrl.LNK_RST):
            self.registers.hold(Register.CTRL, value)
            return
        self._reset_port()
        if value & Ctrl.LNK_RST:
            self.link.train()

    def _control_extended(self, value: int) -> None:
        self.registers.hold(Register.CTRL_EXT, value & ~CtrlExt.PFRSTD)
        if value & CtrlExt.PFRSTD:
            self.mailboxes.port_is_up()

    def _set_key_word(self, index: int, value: int) -> None:
        self.registers.hold(Row.RSSRK.at(index), value)
        self._set_key()

    def _set_key(self) -> None:
        """Let every pool hash with the key in RSSRK, which ixgbe_store_key writes word by word."""
        words = (self.registers.held(Row.RSSRK.at(index)) for index in range(Row.RSSRK.count))
        key = b"".join(word.to_bytes(4, "little") for word in words)
        for receiver in (self.receiver, *(vf.receiver for vf in self.vfs)):
            receiver.spread.set_key(key)

    def _ask_phy(self, value: int) -> None:
        """Answer MSCA with all ones, which mdio45_probe takes for no PHY."""
        self.registers.hold(Register.MSCA, value & ~MSCA_MDI_COMMAND)
        self.registers.hold(Register.MSRWD, _NO_PHY)

    def _reset_port(self) -> None:
        self.registers.reset()
        self._set_key()
        self.switch.clear()
        self.receiver.clear()
        self.transmitter.clear()
        self.rates.clear()
        self.queue_statistics.clear()
        self.interrupts.clear()
        self.mailboxes.port_resets()
        for pool, vf in zip(self._pools, self.vfs, strict=True):
            pool.psrtype = 0
            vf.receiver.clear()
            vf.transmitter.clear()

    def _enable_vfs(self, count: int) -> None:
        self.vfs_enabled = min(count, len(self.vfs))
        for vf, record in zip(self.vfs[:count], self._records[:count], strict=False):
            record.begin()
            vf.memory.log = record.log
        if count:
            self._placed(self.vfs_enabled)
            return
        for pool, vf in zip(self._pools, self.vfs, strict=True):
            vf.reset()  # the port's driver learns of no reset, since no VF is enabled
            vf.receiver.clear()
            vf.transmitter.clear()
            self.mailboxes.forget(pool.number)
            vf.memory.log = None

    def _master_changed(self) -> None:
        self.interrupts.deliver()

    def _link_changed(self) -> None:
        self.interrupts.set_causes(Eicr.LSC)
        for transmitter in (self.transmitter, *(vf.transmitter for vf in self.vfs)):
            transmitter.run_all()

    def _ring(self, number: int) -> None:
        if number < len(self._pools):
            self._pools[number].ring()
