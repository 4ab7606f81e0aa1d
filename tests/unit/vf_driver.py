"""A VF and its driver in one process: registers as a driver writes them, memory that they share.

Which registers, and in which order, is ixgbevf's: Linux 6.12, drivers/net/ethernet/intel/ixgbevf,
ixgbevf_main.c, mbx.c and vf.c; the names of its functions stand at ours.
"""

from __future__ import annotations

import mmap
import os
import socket
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from descriptors import memory_file
from vf_rings import MAC, MEMORY, MEMORY_BYTES, Memory, ReceiveRing, TransmitRing
from vfio_client import LENT, Client

from harness.twin.channel import Channel
from harness.twin.channel import Message as Command
from harness.twin.device import Device
from harness.twin.dma_log import HEAD, RECORD, DmaLog
from harness.twin.driver import IXGBE_6_18
from harness.twin.port import Port
from harness.twin.transmit import Part
from harness.uapi import ixgbe_vf
from harness.uapi.ixgbe_vf import Api, Mailbox, Message, Register
from harness.uapi.pci_regs import Command as PciCommand
from harness.uapi.pci_regs import Register as PciRegister

_VECTOR = {"receive": 0, "transmit": 1, "mailbox": 2}
_PATIENCE_SECONDS = 5.0


@dataclass(frozen=True)
class Record:
    """One access as the DMA log has it."""

    time_ns: int
    address: int
    length: int
    kind: int
    queue: int


class Guest:
    """The device, what its driver has set up, and the wire: *sent* are the frames put onto it."""

    rx: list[ReceiveRing]
    tx: list[TransmitRing]

    def __init__(self, memory: Memory, log: DmaLog, port_mtu: int) -> None:
        self.memory = memory
        self.sent: list[bytes] = []
        self.takes = True
        """Whether the wire takes what is sent."""
        self.device = Device(port=Port(mtu=port_mtu, driver=IXGBE_6_18), send=self._send, log=log)
        self._log = log

    def start(
        self, *, mtu: int = 1500, queues: int = 1, descriptors: int = 16, buffer_bytes: int = 2048
    ) -> None:
        """ixgbevf_probe and ixgbevf_open: reset, mailbox, rings, interrupts."""
        self.set_master(True)
        self.device.write(Register.VFCTRL, ixgbe_vf.VfControl.RST)
        self.ask(Message.RESET)
        self.ask(Message.API_NEGOTIATE, Api.V17)
        low, high = MAC[:4], MAC[4:]
        self.ask(
            Message.SET_MAC_ADDR, int.from_bytes(low, "little"), int.from_bytes(high, "little")
        )
        spread = (queues - 1).bit_length() << ixgbe_vf.PSRTYPE_RQPL_SHIFT
        self.device.write(Register.VFPSRTYPE, spread)  # ixgbevf_setup_psrtype
        vf = self.device, self.memory
        self.tx = [TransmitRing(*vf, number, descriptors) for number in range(queues)]
        self.rx = [ReceiveRing(*vf, number, descriptors, buffer_bytes) for number in range(queues)]
        for ring in (*self.tx, *self.rx):
            ring.configure()
        self.ask(Message.SET_LPE, mtu + 14 + ixgbe_vf.CHECKSUM_BYTES)
        for receive in self.rx:
            receive.give(descriptors - 1)
        self._enable_interrupts()

    def lend_by_message(self, client: Client) -> None:
        """Have *client* read and write all memory for the VF: it is lent without a descriptor."""
        self.device.memory.unmap(MEMORY, MEMORY_BYTES)
        self.device.memory.map(MEMORY, MEMORY_BYTES, LENT, 0, None)
        self.memory = client.keep(MEMORY, MEMORY_BYTES)

    def set_master(self, on: bool) -> None:
        """Bus Master Enable."""
        command = PciCommand.MEMORY | (PciCommand.MASTER if on else 0)
        self.device.config.write(PciRegister.COMMAND, int(command).to_bytes(2, "little"))

    def post(self, *words: int) -> None:
        """ixgbevf_write_mbx_vf."""
        self.device.write(Register.VFMAILBOX, Mailbox.VFU)
        for at, word in enumerate(words):
            self.device.write(Register.VFMBMEM + 4 * at, word)
        self.device.write(Register.VFMAILBOX, Mailbox.REQ)

    def reply(self) -> int | None:
        """ixgbevf_read_mbx_vf: the first word of what the port's driver said, if it did."""
        if not self.device.read(Register.VFMAILBOX) & Mailbox.PFSTS:
            return None
        word = self.device.read(Register.VFMBMEM)
        self.device.write(Register.VFMAILBOX, Mailbox.ACK)
        return word

    def ask(self, *words: int) -> int:
        """Post a message that is answered at once."""
        self.post(*words)
        word = self.reply()
        assert word is not None
        return word

    def hear(self, *frames: bytes) -> None:
        """Frames come from the wire, all in one go."""
        for frame in frames:
            self.device.receive(memoryview(frame))
        self.turn()

    def turn(self) -> float:
        """One turn of the program's loop; for how many seconds an interrupt has to wait.

        Ref: harness/twin/__main__.py.
        """
        self.device.receiver.write_late()
        self.device.receiver.settle()
        self.device.port.mailbox.deliver()
        waits = self.device.interrupts.deliver()
        self._log.settle()
        return waits

    def records(self) -> list[Record]:
        """The DMA log, from its file."""
        self._log.settle()
        content = Path(self._log.path).read_bytes()
        count, *_ = HEAD.unpack_from(content)
        end = HEAD.size + count * RECORD.size
        return [Record(*fields) for fields in RECORD.iter_unpack(content[HEAD.size : end])]

    def _enable_interrupts(self) -> None:
        """ixgbevf_configure_msix and ixgbevf_irq_enable: a vector each for what there is."""
        valid = ixgbe_vf.IVAR_VALID
        pair = _VECTOR["receive"] | valid | (_VECTOR["transmit"] | valid) << 8
        self.device.write(Register.VTIVAR, pair | pair << 16)
        self.device.write(Register.VTIVAR_MISC, _VECTOR["mailbox"] | valid)
        for register in (Register.VTEIAC, Register.VTEIMS):
            self.device.write(register, (1 << ixgbe_vf.VECTORS) - 1)

    def _send(self, parts: list[Part]) -> bool:
        assert len(parts) <= os.sysconf("SC_IOV_MAX"), "writev(2) refuses that"
        if self.takes:
            self.sent.append(b"".join(parts))
        return self.takes


@contextmanager
def guest_with_vf(
    log: Path, *, port_mtu: int = 1500, capacity: int = 10_000, lent_bytes: int = MEMORY_BYTES
) -> Iterator[Guest]:
    """A guest that lends its memory, *lent_bytes* at a time, its VF not started yet."""
    dma_log = DmaLog(str(log), capacity)
    with memory_file(MEMORY_BYTES) as file, mmap.mmap(file, MEMORY_BYTES) as memory:
        guest = Guest(memory, dma_log, port_mtu)
        for at in range(0, MEMORY_BYTES, lent_bytes):
            guest.device.memory.map(MEMORY + at, lent_bytes, LENT, at, file)
        try:
            yield guest
        finally:
            guest.device.memory.unmap_all()
            dma_log.close()


@contextmanager
def answering(guest: Guest) -> Iterator[Client]:
    """A client for what of the VF's DMA comes by message; it answers in a thread of its own."""
    near, far = socket.socketpair()
    client, channel = Client(near), Channel(far, _no_command)
    guest.device.memory.channel = channel
    with ThreadPoolExecutor(1) as pool:
        answered = pool.submit(client.answer_dma)
        try:
            yield client
        finally:
            guest.device.memory.channel = None
            channel.close()
            answered.result(_PATIENCE_SECONDS)
            client.hang_up()


def _no_command(_channel: Channel, message: Command) -> None:
    raise AssertionError(f"{message} is none of the client's to send here")
