"""Chance makes messages of vfio-user that a client of a port, or of a VF, would send.

Tables, rings, mailboxes, SR-IOV and resets of the port, as its driver writes them and as nobody
would; what is wrong with a message itself is ``vfio_messages``'s.
"""

from __future__ import annotations

import random
from collections.abc import Callable

from vfio_client import access, mapping
from vfio_messages import KINDS, ODD, PAGE, PAGES, RING, Wanted, wanted

from harness.chip.configuration import SRIOV
from harness.uapi import ixgbe_pf, ixgbe_vf, vfio_user
from harness.uapi.ixgbe_pf import RECEIVE_BLOCKS, TRANSMIT_BLOCKS, Register, Row
from harness.uapi.ixgbe_vf import EXPRESS, QueueRegister
from harness.uapi.pci_regs import Express, Sriov
from harness.uapi.vfio import PciRegion
from harness.uapi.vfio_user import Command, UnmapFlag

MAC_WORDS = (0x00000002, 0x01000002, 0xFFFFFFFF, 0x00000333)
"""Lower halves of addresses that frames go to; see ``fuzz.chip_server``."""

_ROWS, _REGISTERS = list(Row), list(Register)


def wanted_of_port(chance: random.Random) -> Wanted:
    """Return one message of a port's client; rings and tables come most often."""
    return chance.choice(PORT_KINDS)(chance)


def wanted_of_vf(chance: random.Random) -> Wanted:
    """One that a VF's client would send: what a twin's would, and how its frames are spread."""
    if chance.random() < 0.02:
        return write((ixgbe_vf.Register.VFPSRTYPE, chance.randrange(8) << 29))
    return wanted(chance)


def write(*writes: tuple[int, int]) -> Wanted:
    """Writes to registers of BAR 0, in one message."""
    entries = [
        vfio_user.WRITE_MULTI_ENTRY.pack(at, PciRegion.BAR0, 4, value.to_bytes(4, "little"))
        for at, value in writes
    ]
    head = vfio_user.WRITE_MULTI_HEAD.pack(len(entries))
    return Command.REGION_WRITE_MULTI, head + b"".join(entries), ""


def _value(chance: random.Random) -> int:
    return chance.choice((
        chance.getrandbits(32), chance.choice(ODD) & 0xFFFFFFFF, 1 << chance.randrange(32),
        0xFFFFFFFF, 0, chance.choice(MAC_WORDS),
    ))  # fmt: skip


def _table(chance: random.Random) -> Wanted:
    row = chance.choice(_ROWS)
    return write(*((row.at(chance.randrange(row.count)), _value(chance)) for _ in range(4)))


def _known(chance: random.Random) -> Wanted:
    return write((chance.choice(_REGISTERS), _value(chance)))


def _any(chance: random.Random) -> Wanted:
    return write((4 * chance.randrange(ixgbe_pf.BAR_BYTES // 4), _value(chance)))


def _read(chance: random.Random) -> Wanted:
    at = 4 * chance.randrange(ixgbe_pf.BAR_BYTES // 4)
    if chance.random() < 0.5:
        at = chance.choice((*_REGISTERS, *(row.first for row in _ROWS)))
    region = chance.choice((PciRegion.BAR0, PciRegion.BAR0, PciRegion.CONFIG))
    return Command.REGION_READ, access(region, at, 4), ""


def _whole_space(chance: random.Random) -> Wanted:
    return Command.REGION_READ, access(PciRegion.CONFIG, 0, chance.choice((4096, 4, 256))), ""


def _ring(chance: random.Random) -> Wanted:
    """A whole ring of a queue, the port's own or a VF's, or its tail alone."""
    high = chance.randrange(2)
    block = chance.choice((RECEIVE_BLOCKS, TRANSMIT_BLOCKS))[high][0]
    first = block + ixgbe_vf.QUEUE_BYTES * chance.choice((0, 1, 16, 24, 25, chance.randrange(64)))
    if chance.random() < 0.5:
        return write((first + QueueRegister.TAIL, chance.randrange(40)))
    page = chance.randrange(PAGES) * PAGE
    return write(*((first + at, page if at == QueueRegister.BAL else to) for at, to in RING))


def _mailbox(chance: random.Random) -> Wanted:
    vf = chance.randrange(8)
    words = [(Row.PFMBMEM.at(16 * vf + at), _value(chance)) for at in range(3)]
    return write(*words, (Row.PFMAILBOX.at(vf), chance.choice((1, 2, 8, 16, 0))))


def _on(chance: random.Random) -> Wanted:
    """Receive and transmit as a driver turns them on, so that frames get anywhere."""
    return write(
        (Register.RXCTRL, 1), (Register.DMATXCTL, 1),
        (Register.FCTRL, chance.choice((0x400, 0x700))),
        (Register.MAXFRS, chance.choice((1518, 9728)) << 16), (Register.HLREG0, 4),
        (Register.VT_CTL, chance.choice((0, 0x40000001 | chance.randrange(64) << 7))),
        (Register.GCR_EXT, chance.randrange(4)), (Register.PFDTXGSWC, chance.randrange(2)),
        (Row.VFRE.at(0), 0xFFFFFFFF), (Row.VFTE.at(0), 0xFFFFFFFF),
    )  # fmt: skip


def _rate(chance: random.Random) -> Wanted:
    value = chance.choice((0, 1 << 31 | chance.getrandbits(28), 1 << 31 | 1 << 20, _value(chance)))
    queue = chance.choice((0, 1, 16, 24, 127, 128, 200))
    return write((Register.RTTDQSEL, queue), (Register.RTTBCNRC, value))


def _interrupts(chance: random.Random) -> Wanted:
    """Vectors that there are and that there are not, for queues and for other causes."""
    entry = chance.choice((0x80, 0x81, 0x82, 0xBF, 0xC0, 0xFF, 0x00)) * 0x01010101
    place = chance.choice((Register.IVAR_MISC, *map(Row.IVAR.at, (0, 8, 12, 63))))
    return write(
        (place, entry), (Register.EIMS, _value(chance)), (Row.EIMS_EX.at(1), _value(chance)),
        (Row.EITR.at(chance.randrange(24)), chance.choice((0, 8, 0xFF8))),
        (chance.choice((Register.EICS, Row.EICS_EX.at(0), Row.EICS_EX.at(1))), _value(chance)),
    )  # fmt: skip


def _nvm(chance: random.Random) -> Wanted:
    """A word of the EEPROM, or what is behind its last one; and bits of its own bus."""
    word = chance.choice((0, 0x3F, 0x3FF, 0x400, 0x3FFF)) << 2 | 1
    register = chance.choice((Register.EERD, Register.EEWR))
    wires = [(Register.EEC_8259X, 0x40 | chance.getrandbits(4)) for _ in range(8)]
    return write((register, chance.getrandbits(16) << 16 | word), *wires)


def _reset(chance: random.Random) -> Wanted:
    return chance.choice((
        write((Register.CTRL, chance.choice((1 << 26, 1 << 3)))),
        write((Register.CTRL_EXT, 1 << 14)),
        _config(EXPRESS + Express.DEVCTL, int(Express.DEVCTL_BCR_FLR)),
        (Command.DEVICE_RESET, b"", ""),
    ))  # fmt: skip


def _vfs(chance: random.Random) -> Wanted:
    """How many VFs there are to be, or that there are to be some, or none."""
    if chance.random() < 0.3:
        return _config(SRIOV + Sriov.NUM_VF, chance.choice((0, 1, 4, 6, 7, 63, 64, 0xFFFF)))
    return _config(SRIOV + Sriov.CTRL, chance.choice((0, 0x1, 0x8, 0x9, 0x19, 0x19, 0x19, 0xFF)))


def _bus(chance: random.Random) -> Wanted:
    return _config(4, chance.choice((6, 6, 6, 0)))


def _config(offset: int, value: int) -> Wanted:
    data = value.to_bytes(2, "little")
    return Command.REGION_WRITE, access(PciRegion.CONFIG, offset, len(data), data), ""


def started(first: int) -> list[Wanted]:
    """Messages by which a function has memory, the bus, and a ring each way.

    *first* is where the registers of its receive queue are, in a port's BAR or a VF's.
    """
    transmit = first - ixgbe_vf.RECEIVE + TRANSMIT_BLOCKS[0][0]
    if first == ixgbe_vf.RECEIVE:
        transmit = ixgbe_vf.TRANSMIT
    rings = [(first + at, PAGE if at == QueueRegister.BAL else to) for at, to in RING]
    rings += [(transmit + at, 2 * PAGE if at == QueueRegister.BAL else to) for at, to in RING]
    unmap = vfio_user.DMA_UNMAP.pack(24, UnmapFlag.ALL, 0, 0)
    return [
        (Command.DMA_UNMAP, unmap, ""), (Command.DMA_MAP, mapping(0, PAGES * PAGE), "m"),
        _config(4, 6), write(*rings),
    ]  # fmt: skip


PORT_KINDS: list[Callable[[random.Random], Wanted]] = [
    *KINDS, *(_table, _table, _table, _known, _known, _any, _read, _read, _whole_space),
    *[_ring] * 6, *(_mailbox, _mailbox, _on, _on, _rate, _interrupts, _interrupts, _nvm),
    *(_reset, _vfs, _bus, _bus),
]  # fmt: skip
