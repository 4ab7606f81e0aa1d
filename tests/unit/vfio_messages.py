"""Messages of vfio-user by chance: as a client would send them, and with something wrong."""

from __future__ import annotations

import os
import random
from collections.abc import Callable

from vfio_client import LENT, access, irqs, mapping

from harness.uapi import ixgbe_vf, vfio_user
from harness.uapi.ixgbe_vf import QueueControl, QueueRegister, TxCommand
from harness.uapi.vfio import PciRegion
from harness.uapi.vfio_user import Command, Flag, UnmapFlag

PAGE, PAGES = 4096, 64
ODD = [
    *(0, 1, 2, 3, 4, 7, 8, 9, 15, 16, 20, 24, 32, 255, 256, PAGE - 1, PAGE, PAGE + 1, 1 << 14),
    *(0x7FFFFFFF, 0x80000000, 0xFFFFFFFF, 1 << 32, 1 << 63, (1 << 64) - PAGE, (1 << 64) - 1),
]
DESCRIPTOR = ixgbe_vf.TX_DESCRIPTOR.pack(
    32 * PAGE, ixgbe_vf.TX_TYPE_DATA | TxCommand.EOP | TxCommand.RS | 60, 60 << 14
)
RING = [
    (QueueRegister.BAL, 0), (QueueRegister.BAH, 0), (QueueRegister.LEN, 512),
    (QueueRegister.DCTL, QueueControl.ENABLE), (QueueRegister.TAIL, 16),
]  # fmt: skip

Wanted = tuple[int, bytes, str]
"""A command, its payload, and the kinds of descriptors that go with it, a letter each."""


class Files:
    """What can be sent along: Memory, Eventfds, Pipes, Nothing at all, and Directories."""

    def __init__(self) -> None:
        self._memory = os.memfd_create("guest")
        for _ in range(PAGES):
            os.write(self._memory, DESCRIPTOR * (PAGE // len(DESCRIPTOR)))
        self._eventfd = os.eventfd(0, os.EFD_NONBLOCK)
        reading, self._pipe = os.pipe()
        os.close(reading)
        self._null = os.open("/dev/null", os.O_RDONLY)
        self._directory = os.open("/", os.O_PATH)
        self._by_kind = {
            "m": self._memory, "e": self._eventfd, "p": self._pipe,
            "n": self._null, "d": self._directory,
        }  # fmt: skip

    def of(self, kinds: str) -> list[int]:
        return [self._by_kind[kind] for kind in kinds]

    def close(self) -> None:
        for each in self._by_kind.values():
            os.close(each)


# --- messages that a client would send ------------------------------------------------------


def wanted(chance: random.Random) -> Wanted:
    """One of them; lending, registers and configuration space come most often."""
    return chance.choice(KINDS)(chance)


def _map(chance: random.Random) -> Wanted:
    page, count = chance.randrange(PAGES), chance.choice((1, 1, 4, 16, PAGES))
    payload = mapping(page * PAGE, count * PAGE, flags=chance.choice((1, 2, LENT, LENT)))
    return Command.DMA_MAP, payload, chance.choice(("m", "m", ""))


def _map_all(chance: random.Random) -> Wanted:
    return Command.DMA_MAP, mapping(0, PAGES * PAGE), chance.choice(("m", ""))


def _unmap(chance: random.Random) -> Wanted:
    page, count = chance.randrange(PAGES), chance.choice((1, 1, 4, 16, PAGES))
    if chance.random() < 0.05:
        return Command.DMA_UNMAP, vfio_user.DMA_UNMAP.pack(24, UnmapFlag.ALL, 0, 0), ""
    address = 0 if count == PAGES else page * PAGE
    return Command.DMA_UNMAP, vfio_user.DMA_UNMAP.pack(24, 0, address, count * PAGE), ""


def _info(chance: random.Random) -> Wanted:
    command, size = chance.choice((
        (Command.DEVICE_GET_INFO, 16), (Command.DEVICE_GET_REGION_INFO, 32),
        (Command.DEVICE_GET_IRQ_INFO, 16),
    ))  # fmt: skip
    words = [size, 0, 0 if size == 16 and command == 4 else chance.randrange(5), 0]
    payload = b"".join(word.to_bytes(4, "little") for word in words)
    return command, payload.ljust(size, b"\0"), ""


def _irqs(chance: random.Random) -> Wanted:
    kind, action = chance.choice((1, 2, 4)), chance.choice((8, 16, 32, 32))
    start = chance.randrange(3)
    count = chance.randint(0, 3 - start)
    data = chance.randbytes(count) if kind == 2 else b""
    many = chance.choice((0, count, count)) if kind == 4 else 0
    files = "".join(chance.choices("eeeeeepnd", k=many))
    return Command.DEVICE_SET_IRQS, irqs(kind | action, start=start, count=count, data=data), files


def _read(chance: random.Random) -> Wanted:
    region = chance.choice((PciRegion.BAR0, PciRegion.BAR3, PciRegion.CONFIG))
    place = access(region, 4 * chance.randrange(1024), chance.choice((4, 8)))
    return Command.REGION_READ, place, ""


def _config(chance: random.Random) -> Wanted:
    offset, data = chance.choice((
        (4, b"\6\4"), (4, b"\6\4"), (4, b"\6\4"), (4, b"\0\0"), (0x10, b"\xff" * 8),
        (0x72, b"\0\x80"), (0xA8, b"\0\x80"), (chance.randrange(4088), chance.randbytes(8)),
    ))  # fmt: skip
    return Command.REGION_WRITE, access(PciRegion.CONFIG, offset, len(data), data), ""


def _ring(chance: random.Random) -> Wanted:
    """All of a queue's ring at once, or the tail alone, which makes the device look."""
    first = chance.choice((ixgbe_vf.TRANSMIT, ixgbe_vf.RECEIVE)) + 64 * chance.randrange(2)
    if chance.random() < 0.5:
        return _registers([(first + QueueRegister.TAIL, chance.randrange(40))])
    page = chance.randrange(PAGES) * PAGE
    return _registers([(first + at, page if at == QueueRegister.BAL else to) for at, to in RING])


def _mailbox(chance: random.Random) -> Wanted:
    kind = chance.choice(list(ixgbe_vf.Message)) | chance.choice((0, 0, 1 << 16, 0x80000000))
    words = [kind, chance.choice(ODD) & 0xFFFFFFFF, chance.getrandbits(32)]
    writes = [(ixgbe_vf.Register.VFMBMEM + 4 * at, word) for at, word in enumerate(words)]
    return _registers([*writes, (ixgbe_vf.Register.VFMAILBOX, chance.choice((1, 2, 3, 4)))])


def _register(chance: random.Random) -> Wanted:
    count = chance.choice((4, 4, 8))
    place = access(PciRegion.BAR0, 4 * chance.randrange(0x1000), count)
    return Command.REGION_WRITE, place + chance.randbytes(count), ""


def _reset(chance: random.Random) -> Wanted:
    return chance.choice((Command.DEVICE_RESET, Command.VERSION)), b"", ""


def _registers(writes: list[tuple[int, int]]) -> Wanted:
    entries = [
        vfio_user.WRITE_MULTI_ENTRY.pack(at, PciRegion.BAR0, 4, value.to_bytes(4, "little"))
        for at, value in writes
    ]
    head = vfio_user.WRITE_MULTI_HEAD.pack(len(entries))
    return Command.REGION_WRITE_MULTI, head + b"".join(entries), ""


KINDS: list[Callable[[random.Random], Wanted]] = [
    *(_map, _map, _map_all, _unmap, _unmap, _unmap, _info, _irqs, _irqs, _read, _read),
    *(_config, _config, *[_ring] * 6, _mailbox, _register, _register, _reset),
]


WHILE_ASKED = [_map, _unmap, _info, _irqs, _read]
"""No registers: what becomes of a ring that changes meanwhile is the device's, not the server's."""


# --- and what becomes of them ---------------------------------------------------------------


def spoilt(chance: random.Random, message: Wanted) -> tuple[bytes, str]:
    """The message as bytes, with something wrong in every third, and its descriptors' kinds."""
    command, payload, files = message
    flags, change = 0, 0
    if chance.random() < 0.35:
        which = chance.randrange(7)
        if which <= 1 and payload:
            payload = _changed(chance, payload)
        elif which == 2:
            payload = payload[: chance.randrange(len(payload) + 1)]
        elif which == 3:
            payload += chance.randbytes(chance.choice((1, 4, 24, 5000)))
        elif which == 4:
            command = chance.choice((chance.randrange(20), chance.getrandbits(16)))
        elif which == 5:
            flags = chance.choice((Flag.NO_REPLY, Flag.NO_REPLY, Flag.REPLY, Flag.ERROR, 0x21, 2))
        else:
            files = "".join(chance.choices("mepnd", k=chance.choice((0, 1, 2, 3, 20, 100))))
    if chance.random() < 0.002:
        change = chance.choice((-1, 1, 40, -17, 1 << 20, 1 << 30))
    size = vfio_user.HEADER.size + len(payload) + change
    number = chance.getrandbits(16)
    head = vfio_user.HEADER.pack(number, command, max(size, 0), flags, chance.choice((0, 0, 7)))
    return head + payload, files


def _changed(chance: random.Random, payload: bytes) -> bytes:
    """One field, or one bit, is another."""
    width = chance.choice((1, 4, 8))
    at = chance.randrange(len(payload)) & -width
    field_now = int.from_bytes(payload[at : at + width], "little")
    odd = chance.choice((chance.choice(ODD), field_now ^ 1 << chance.randrange(8 * width)))
    field_then = (odd & (1 << 8 * width) - 1).to_bytes(width, "little")
    return (payload[:at] + field_then + payload[at + width :])[: len(payload)]
