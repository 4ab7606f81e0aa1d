"""A driver's rings and buffers in a guest's memory, and the registers of their queues.

Which registers, and in which order, is ixgbevf's: Linux 6.12, drivers/net/ethernet/intel/ixgbevf,
ixgbevf_main.c; the names of its functions stand at ours.
"""

from __future__ import annotations

import mmap
from dataclasses import dataclass
from typing import Protocol

from harness.uapi import ixgbe_vf
from harness.uapi.ixgbe_vf import (
    DESCRIPTOR_BYTES,
    QueueControl,
    QueueRegister,
    RxStatus,
    TxCommand,
)

MAC = bytes.fromhex("020000000001")
"""The VF's; frames from it pass the port's check, and frames to it its filter."""

PEER = bytes.fromhex("020000000002")

MEMORY, MEMORY_BYTES = 0x1_4000_0000, 2 << 20
"""What the guest lends, above 4 GiB: both halves of each address count."""

SLOT = 4096
"""From one receive buffer to the next, none of them larger: what is behind a buffer is seen."""

TX_DATA, TX_DATA_BYTES = 0x100000, 0x100000
_RINGS, _RX_BUFFERS, _RX_BYTES = 0x1000, 0x20000, 0x60000

Memory = mmap.mmap | bytearray
"""The guest's, as it sees it itself."""


class Registers(Protocol):
    """BAR 0 of a VF, or what looks like one."""

    def read(self, offset: int) -> int: ...

    def write(self, offset: int, value: int) -> None: ...


def frame_of(size: int, number: int = 0, *, head: bytes = MAC + PEER) -> bytes:
    """A frame of no known protocol, to the VF if *head* says nothing else; it has no 0 in it."""
    front = head + b"\x88\xb5"
    return front + bytes((number + at) % 255 + 1 for at in range(size - len(front)))


@dataclass(frozen=True)
class Got:
    """A frame as the driver finds it; what a descriptor says is the last one's of the frame."""

    data: bytes
    lengths: list[int]
    first_word: int
    hash: int
    status: int
    tag: int


class Ring:
    """One queue's descriptors in memory, and its registers; *next* is the driver's next place."""

    def __init__(
        self, device: Registers, memory: Memory, first: int, number: int, count: int
    ) -> None:
        self._device = device
        self._memory = memory
        self.count = count
        self.place = _RINGS * (1 + 2 * number + (first == ixgbe_vf.TRANSMIT))
        self.next = self.cleaned = 0
        self._registers = first + number * ixgbe_vf.QUEUE_BYTES

    def read(self, register: int) -> int:
        return self._device.read(self._registers + register)

    def write(self, register: int, value: int) -> None:
        self._device.write(self._registers + register, value)

    def configure(self, control: int = QueueControl.ENABLE) -> None:
        """ixgbevf_configure_rx_ring and ixgbevf_configure_tx_ring: off, placed, emptied, on."""
        self.write(QueueRegister.DCTL, 0)
        base = MEMORY + self.place
        self.write(QueueRegister.BAL, base & 0xFFFFFFFF)
        self.write(QueueRegister.BAH, base >> 32)
        self.write(QueueRegister.LEN, self.count * DESCRIPTOR_BYTES)
        self.write(QueueRegister.HEAD, 0)
        self.write(QueueRegister.TAIL, 0)
        self.next = self.cleaned = 0
        self.write(QueueRegister.DCTL, control)

    def descriptor(self, index: int) -> bytes:
        at = self.place + index % self.count * DESCRIPTOR_BYTES
        return bytes(self._memory[at : at + DESCRIPTOR_BYTES])

    def put(self, descriptor: bytes) -> None:
        """Write the next descriptor; the device does not know yet."""
        at = self.place + self.next * DESCRIPTOR_BYTES
        self._memory[at : at + DESCRIPTOR_BYTES] = descriptor
        self.next = (self.next + 1) % self.count

    def go(self) -> None:
        """Let the device have what was put."""
        self.write(QueueRegister.TAIL, self.next)


class ReceiveRing(Ring):
    """Buffers of one size, each at its descriptor's own place in memory."""

    def __init__(
        self, device: Registers, memory: Memory, number: int, count: int, buffer_bytes: int
    ) -> None:
        super().__init__(device, memory, ixgbe_vf.RECEIVE, number, count)
        self._buffers = _RX_BUFFERS + number * _RX_BYTES
        self.buffer_bytes = buffer_bytes

    def buffer(self, index: int) -> int:
        """Where in memory the buffer of that descriptor is."""
        return self._buffers + index % self.count * SLOT

    def configure(self, control: int = QueueControl.ENABLE) -> None:
        """ixgbevf_configure_srrctl, as well: buffers of so many KiB."""
        super().configure(0)
        shift = ixgbe_vf.SRRCTL_BSIZEPKT_SHIFT
        self.write(QueueRegister.SRRCTL, 0x02000000 | self.buffer_bytes >> shift)
        self.write(QueueRegister.DCTL, control)

    def give(self, count: int) -> None:
        """ixgbevf_alloc_rx_buffers."""
        for _ in range(count):
            self.put(ixgbe_vf.RX_READ.pack(MEMORY + self.buffer(self.next), 0))
        self.go()

    def refill(self) -> None:
        """Give back what was taken, all of it: one descriptor stays the driver's."""
        self.give((self.cleaned - self.next - 1) % self.count)

    def took(self) -> list[Got]:
        """ixgbevf_clean_rx_irq: the frames that are there, one after the other."""
        found: list[Got] = []
        data, lengths = b"", list[int]()
        while True:
            first_word, hashed, status, length, tag = ixgbe_vf.RX_WRITEBACK.unpack(
                self.descriptor(self.cleaned)
            )
            if not status & RxStatus.DD or self.cleaned == self.next:
                return found
            at = self.buffer(self.cleaned)
            data, lengths = data + self._memory[at : at + length], [*lengths, length]
            self.cleaned = (self.cleaned + 1) % self.count
            if status & RxStatus.EOP:
                found.append(Got(data, lengths, first_word, hashed, status, tag))
                data, lengths = b"", []


class TransmitRing(Ring):
    """Frames in buffers of their own; what was sent is overwritten when memory is used up."""

    def __init__(self, device: Registers, memory: Memory, number: int, count: int) -> None:
        super().__init__(device, memory, ixgbe_vf.TRANSMIT, number, count)
        self._begin = TX_DATA + number * TX_DATA_BYTES // 2
        self._used = 0

    def send(self, *parts: bytes, command: int = TxCommand.RS, options: int = 0) -> None:
        """ixgbevf_xmit_frame: one frame, a descriptor for each part."""
        self.put_frame(*parts, command=command, options=options)
        self.go()

    def put_frame(self, *parts: bytes, command: int = TxCommand.RS, options: int = 0) -> None:
        """ixgbevf_tx_map: *options* in the first descriptor alone, RS of *command* in the last."""
        for index, part in enumerate(parts, 1):
            end = TxCommand.EOP | command & TxCommand.RS if index == len(parts) else 0
            flags = ixgbe_vf.TX_TYPE_DATA | TxCommand.DEXT | TxCommand.IFCS | end
            word = flags | command & ~TxCommand.RS | len(part)
            status = sum(map(len, parts)) << 14 & 0xFFFFFFFF | options if index == 1 else 0
            self.put(ixgbe_vf.TX_DESCRIPTOR.pack(MEMORY + self._keep(part), word, status))

    def put_context(
        self, *, mac: int = 14, network: int = 20, transport: int = 0,
        segment: int = 0, kind: int = 0, vlan: int = 0, index: int = 0,
    ) -> None:  # fmt: skip
        """ixgbevf_tx_ctxtdesc; lengths in bytes, *kind* the bits of TUCMD, *index* 0 or 1."""
        words = network | mac << 9 | vlan << 16, 0, (
            ixgbe_vf.TX_TYPE_CONTEXT | TxCommand.DEXT | kind
        ), transport << 8 | segment << 16 | index << ixgbe_vf.TX_CONTEXT_SHIFT  # fmt: skip
        self.put(ixgbe_vf.CONTEXT_DESCRIPTOR.pack(*words))

    def done(self) -> list[int]:
        """Those descriptors of which the device says that it is done with them."""
        places = range(self.count)
        return [at for at in places if self.descriptor(at)[12:] == b"\1\0\0\0"]

    def _keep(self, part: bytes) -> int:
        if self._used + len(part) > TX_DATA_BYTES // 2:
            self._used = 0
        at = self._begin + self._used
        self._memory[at : at + len(part)] = part
        self._used += len(part)
        return at
