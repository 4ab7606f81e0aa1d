"""The device passes ixgbevf's ``ethtool -t DEV offline``, which tests the bits of registers.

Ref: Linux 6.12, drivers/net/ethernet/intel/ixgbevf/ethtool.c; the names of its table, patterns and
functions stand at ours.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from vf_driver import Guest, guest_with_vf
from vf_rings import MAC, PEER, frame_of

from harness.twin.device import Device
from harness.uapi.ixgbe_vf import (
    QUEUE_BYTES,
    QUEUES,
    RECEIVE,
    TRANSMIT,
    Link,
    QueueControl,
    QueueRegister,
    Register,
)

PATTERNS = (0x5A5A5A5A, 0xA5A5A5A5, 0x00000000, 0xFFFFFFFF)
"""register_test_patterns."""


@dataclass(frozen=True)
class Row:
    """A row of reg_test_vf tests one register of each queue; without *mask* it only writes."""

    first: int
    register: QueueRegister
    mask: int | None
    write: int

    def places(self) -> list[int]:
        return [self.first + self.register + number * QUEUE_BYTES for number in range(QUEUES)]


TABLE = [
    Row(RECEIVE, QueueRegister.BAL, 0xFFFFFF80, 0xFFFFFF80),
    Row(RECEIVE, QueueRegister.BAH, 0xFFFFFFFF, 0xFFFFFFFF),
    Row(RECEIVE, QueueRegister.LEN, 0x000FFF80, 0x000FFFFF),
    Row(RECEIVE, QueueRegister.DCTL, None, QueueControl.ENABLE),
    Row(RECEIVE, QueueRegister.TAIL, 0x0000FFFF, 0x0000FFFF),
    Row(RECEIVE, QueueRegister.DCTL, None, 0),
    Row(TRANSMIT, QueueRegister.BAL, 0xFFFFFF80, 0xFFFFFFFF),
    Row(TRANSMIT, QueueRegister.BAH, 0xFFFFFFFF, 0xFFFFFFFF),
    Row(TRANSMIT, QueueRegister.LEN, 0x000FFF80, 0x000FFF80),
]
"""reg_test_vf."""


def reg_test(device: Device) -> list[tuple[str, int, str]]:
    """Run ixgbevf_reg_test to the end of its table; return all that it would have failed on."""
    failed = []
    for row in TABLE:
        for place in row.places():
            if row.mask is None:
                device.write(place, row.write)
                continue
            for pattern in PATTERNS:  # reg_pattern_test
                before = device.read(place)
                device.write(place, pattern & row.write)
                value, right = device.read(place), pattern & row.write & row.mask
                if value != right:
                    failed.append((row.register.name, place, f"{value:#x} instead of {right:#x}"))
                device.write(place, before)
    return failed


@pytest.fixture
def guest(tmp_path: Path) -> Iterator[Guest]:
    with guest_with_vf(tmp_path / "dma.log") as guest:
        guest.start()
        yield guest


def test_the_register_test_passes_for_every_row(guest: Guest) -> None:
    """The driver closes the VF first, since the patterns go where the rings are."""
    for ring in (*guest.rx, *guest.tx):
        ring.write(QueueRegister.DCTL, 0)
    assert reg_test(guest.device) == []


def test_the_vf_works_again_after_an_offline_test(guest: Guest) -> None:
    """The test does as ixgbevf_diag_test: link, close, register test, reset, open."""
    assert guest.device.read(Register.VFLINKS) & Link.UP
    reg_test(guest.device)
    guest.start()
    guest.hear(frame := frame_of(200))
    assert [got.data for got in guest.rx[0].took()] == [frame]
    guest.tx[0].send(frame := frame_of(200, head=PEER + MAC))
    assert guest.sent == [frame]


def test_no_ring_is_larger_than_its_register(guest: Guest) -> None:
    """A ring has 1 MiB less 128 bytes at most; the bits above are reserved."""
    ring = guest.rx[0]
    ring.write(QueueRegister.LEN, 0xFFFFFFFF)
    assert guest.device.receiver.queues[0].count == (0x000FFF80 // 16)
    ring.write(QueueRegister.BAL, 0xFFFFFFFF)
    assert guest.device.receiver.queues[0].base & 0xFFFFFFFF == 0xFFFFFF80


READ_ONLY = [
    Register.VFSTATUS, Register.VFLINKS, Register.VFGPRC, Register.VFGPTC, Register.VFGORC_LSB,
    Register.VFGORC_MSB, Register.VFGOTC_LSB, Register.VFGOTC_MSB, Register.VFMPRC,
]  # fmt: skip


@pytest.mark.parametrize("register", READ_ONLY)
def test_what_can_only_be_read_keeps_its_value(guest: Guest, register: Register) -> None:
    """A counter takes no write, since ixgbevf_update_stats adds what is new since the last look.

    Ref: 82599 datasheet, VF statistics and status registers (RO).
    """
    guest.hear(frame_of(200))
    guest.tx[0].send(frame_of(200, head=PEER + MAC))
    before = guest.device.read(register)
    for pattern in PATTERNS:
        guest.device.write(register, pattern)
        assert guest.device.read(register) == before


@pytest.mark.parametrize(
    ("register", "bits"),
    [(Register.VTEIMS, 0b111), (Register.VTEIAC, 0b111), (Register.VTEIAM, 0b111),
     (Register.VTEITR, 0xFF8), (Register.VTIVAR_MISC, 0xFF), (Register.VTEICS, 0b111)],
)  # fmt: skip
def test_interrupt_registers_have_the_bits_of_three_vectors(
    guest: Guest, register: Register, bits: int
) -> None:
    """A driver that writes all ones means all vectors that there are."""
    guest.device.write(Register.VTEIMC, 0xFFFFFFFF)
    guest.device.write(register, 0xFFFFFFFF)
    read = Register.VTEICR if register == Register.VTEICS else register
    assert guest.device.read(read) == bits


def test_the_mailboxs_own_bits_cannot_be_written(guest: Guest) -> None:
    """The port alone says by these bits that it has read, written, or been reset."""
    before = guest.device.read(Register.VFMAILBOX)
    guest.device.write(Register.VFMAILBOX, 0xFFFFFFF0)
    assert guest.device.read(Register.VFMAILBOX) == before
