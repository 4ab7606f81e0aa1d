"""When a VF interrupts its driver, and by which vector: causes, masks, and intervals."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from descriptors import eventfds, signals
from hand_clock import HandClock
from vf_driver import Guest, guest_with_vf
from vf_rings import MAC, PEER, frame_of

from harness.twin import interrupts
from harness.uapi.ixgbe_vf import IVAR_VALID, VECTORS, Message, Register, VfControl

RECEIVE, TRANSMIT, MAILBOX = range(3)
"""The vectors that `Guest.start` gives to each."""

ALL = (1 << VECTORS) - 1
LONGEST = 0xFF8
"""Of VTEITR's intervals: 511 times 2 microseconds, in its bits 3 to 11."""

IN, OUT = frame_of(60), frame_of(60, head=PEER + MAC)


@pytest.fixture
def guest(tmp_path: Path) -> Iterator[Guest]:
    with guest_with_vf(tmp_path / "dma.log") as guest:
        guest.start(queues=2)
        yield guest


@pytest.fixture
def ends(guest: Guest) -> Iterator[list[int]]:
    """An eventfd for each vector, connected as by the client; signals so far are not counted."""
    with eventfds(VECTORS) as ends:
        for vector, end in enumerate(ends):
            guest.device.interrupts.connect(vector, os.dup(end))
        yield ends
        guest.device.interrupts.disconnect()


def write(guest: Guest, register: int, value: int) -> None:
    guest.device.write(register, value)


def only(vector: int, count: int = 1) -> list[int]:
    """That many signals at one vector, none at the others."""
    return [count if each == vector else 0 for each in range(VECTORS)]


# --- which vector ---------------------------------------------------------------------------


def test_receiving_and_sending_have_a_vector_each(guest: Guest, ends: list[int]) -> None:
    """VTIVAR has a byte for each; swapped, a driver polls the queue that has nothing."""
    guest.hear(IN)
    assert signals(*ends) == only(RECEIVE)
    guest.tx[0].send(OUT)
    assert signals(*ends) == only(TRANSMIT)


@pytest.mark.parametrize("vector", range(VECTORS))
@pytest.mark.parametrize("byte", range(4))
def test_a_byte_of_vtivar_is_one_direction_of_one_queue(
    guest: Guest, ends: list[int], byte: int, vector: int
) -> None:
    """ixgbevf_set_ivar: receive of queue 0, transmit of queue 0, then the same of queue 1."""
    write(guest, Register.VTIVAR, (IVAR_VALID | vector) << 8 * byte)
    for transmit in (False, True):
        for queue in range(2):
            guest.device.interrupts.cause(queue, transmit=transmit)
            is_it = byte == 2 * queue + transmit
            assert signals(*ends) == only(vector, count=int(is_it))


@pytest.mark.parametrize("entry", [RECEIVE, MAILBOX, IVAR_VALID | VECTORS, IVAR_VALID | 0x7F])
def test_an_entry_that_is_not_valid_leads_nowhere(
    guest: Guest, ends: list[int], entry: int
) -> None:
    """Neither does one of a vector that a VF does not have; the frame is there all the same."""
    write(guest, Register.VTIVAR, entry)
    write(guest, Register.VTIVAR_MISC, entry)
    guest.hear(IN)
    guest.post(Message.SET_LPE, 1518)
    guest.device.port.set_trust(True)
    assert signals(*ends) == [0] * VECTORS
    assert guest.device.read(Register.VTEICR) == 0
    assert len(guest.rx[0].took()) == 1


def test_what_the_port_says_unasked_comes_by_the_mailboxs_vector(
    guest: Guest, ends: list[int]
) -> None:
    """A reply is polled for, and interrupts nobody; ixgbe_ping_vf does."""
    guest.ask(Message.SET_LPE, 1518)
    assert signals(*ends) == [0] * VECTORS
    guest.device.port.set_link(False, 10_000)
    assert signals(*ends) == only(MAILBOX)


def test_frames_of_one_go_are_one_interrupt(guest: Guest, ends: list[int]) -> None:
    """The driver polls until nothing is left: one for each would cost more than the frames."""
    guest.hear(*[IN] * 5)
    assert signals(*ends) == only(RECEIVE)
    guest.hear()
    assert signals(*ends) == [0] * VECTORS


def test_a_frame_that_was_dropped_is_no_interrupt(guest: Guest, ends: list[int]) -> None:
    guest.hear(frame_of(60, head=PEER + PEER))
    guest.rx[0].configure()
    guest.hear(IN)
    assert signals(*ends) == [0] * VECTORS


def test_only_a_frame_that_is_to_be_reported_is_an_interrupt(guest: Guest, ends: list[int]) -> None:
    """RS asks for it; several of them at once are one."""
    guest.tx[0].send(OUT, command=0)
    assert signals(*ends) == [0] * VECTORS
    for _ in range(3):
        guest.tx[0].put_frame(OUT)
    guest.tx[0].go()
    assert signals(*ends) == only(TRANSMIT)


# --- masks ----------------------------------------------------------------------------------


@pytest.mark.parametrize("times", [1, 3])
def test_a_masked_cause_waits_and_comes_once(guest: Guest, ends: list[int], times: int) -> None:
    """VTEIMC masks, VTEIMS unmasks, each those bits that are set: what came must not get lost."""
    write(guest, Register.VTEIMC, 1 << RECEIVE)
    for _ in range(times):
        guest.hear(IN)
    guest.tx[0].send(OUT)
    assert signals(*ends) == only(TRANSMIT)
    write(guest, Register.VTEIMS, 1 << MAILBOX)
    assert signals(*ends) == [0] * VECTORS
    write(guest, Register.VTEIMS, 1 << RECEIVE)
    assert signals(*ends) == only(RECEIVE)


def test_the_mask_can_be_read(guest: Guest) -> None:
    write(guest, Register.VTEIMC, 0b010)
    assert guest.device.read(Register.VTEIMS) == guest.device.read(Register.VTEIMC) == 0b101
    write(guest, Register.VTEIMS, 0xFFFFFFFA)
    assert guest.device.read(Register.VTEIMS) == ALL


def test_with_auto_mask_a_message_is_the_last_until_the_driver_has_polled(
    guest: Guest, ends: list[int]
) -> None:
    """VTEIAM: ixgbevf_msix_clean_rings masks nothing itself, and unmasks when NAPI is done."""
    write(guest, Register.VTEIAM, 1 << RECEIVE)
    for _ in range(3):
        guest.hear(IN)
        guest.tx[0].send(OUT)
    assert signals(*ends) == [1, 3, 0]
    write(guest, Register.VTEIMS, 1 << RECEIVE)
    assert signals(*ends) == only(RECEIVE)


# --- causes ---------------------------------------------------------------------------------


@pytest.mark.parametrize("auto_clear", [0, 1 << RECEIVE])
def test_a_cause_is_cleared_by_its_message_where_that_is_wanted(
    guest: Guest, ends: list[int], auto_clear: int
) -> None:
    """VTEIAC; otherwise by reading VTEICR, which says it once."""
    write(guest, Register.VTEIAC, auto_clear)
    guest.hear(IN)
    assert guest.device.read(Register.VTEICR) == (0 if auto_clear else 1 << RECEIVE)
    assert guest.device.read(Register.VTEICR) == 0
    assert signals(*ends) == only(RECEIVE)


def test_each_cause_is_one_message(guest: Guest, ends: list[int]) -> None:
    """One that is not cleared is not sent again by unmasking, or by another's message."""
    write(guest, Register.VTEIAC, 0)
    guest.hear(IN)
    write(guest, Register.VTEIMS, ALL)
    guest.tx[0].send(OUT)
    guest.turn()
    assert signals(*ends) == [1, 1, 0]
    guest.hear(IN)
    assert signals(*ends) == only(RECEIVE)


@pytest.mark.parametrize("by_reading", [False, True])
def test_a_cause_that_the_driver_cleared_is_not_sent(
    guest: Guest, ends: list[int], by_reading: bool
) -> None:
    """While it was masked: by reading VTEICR, or by writing its bit there; another's stays."""
    write(guest, Register.VTEIMC, ALL)
    guest.hear(IN)
    guest.tx[0].send(OUT)
    if by_reading:
        assert guest.device.read(Register.VTEICR) == 0b011
    else:
        write(guest, Register.VTEICR, 1 << RECEIVE)
        assert guest.device.read(Register.VTEICR) == 1 << TRANSMIT
    write(guest, Register.VTEIMS, ALL)
    assert signals(*ends) == [0] * VECTORS


def test_clearing_one_cause_leaves_the_others(guest: Guest, ends: list[int]) -> None:
    write(guest, Register.VTEIMC, ALL)
    guest.hear(IN)
    guest.tx[0].send(OUT)
    write(guest, Register.VTEICR, 1 << RECEIVE)
    write(guest, Register.VTEIMS, ALL)
    assert signals(*ends) == only(TRANSMIT)


def test_looking_at_causes_clears_none_of_them(guest: Guest) -> None:
    """ixgbevf_get_regs reads VTEICS for VTEICR, which it would clear."""
    write(guest, Register.VTEIMC, ALL)
    guest.device.read(Register.VTEICR)
    write(guest, Register.VTEICS, 0b101)
    assert [guest.device.read(Register.VTEICS) for _ in range(2)] == [0b101, 0b101]
    assert [guest.device.read(Register.VTEICR) for _ in range(2)] == [0b101, 0]


def test_a_reset_masks_all_and_forgets_causes(guest: Guest, ends: list[int]) -> None:
    """The eventfds are the client's, and are led to again once the driver is up."""
    write(guest, Register.VTEITR, LONGEST)
    write(guest, Register.VTEIMC, 1 << RECEIVE)
    guest.hear(IN)
    write(guest, Register.VTEIAM, ALL)
    write(guest, Register.VFCTRL, VfControl.RST)
    masks = [Register.VTEIMS, Register.VTEIAC, Register.VTEIAM]
    ways = [Register.VTIVAR, Register.VTIVAR_MISC, Register.VTEITR]
    assert [guest.device.read(register) for register in masks + ways] == [0] * 6
    write(guest, Register.VTEIMS, ALL)
    assert signals(*ends) == [0] * VECTORS
    guest.start()
    guest.hear(IN)
    assert signals(*ends) == only(RECEIVE)


def test_no_message_goes_out_without_bus_master_enable(guest: Guest, ends: list[int]) -> None:
    """It is a write to memory like another; what is due is told once the bus may be had again."""
    guest.set_master(False)
    guest.device.port.set_link(False, 10_000)
    guest.turn()
    assert signals(*ends) == [0] * VECTORS
    guest.set_master(True)
    assert signals(*ends) == only(MAILBOX)


def test_what_a_mask_held_back_is_forgotten_with_a_reset(guest: Guest, ends: list[int]) -> None:
    """It would tell a driver that is just starting of what was before it."""
    guest.device.interrupts.mask(MAILBOX, True)
    guest.device.port.set_link(False, 10_000)
    guest.device.reset()
    guest.device.interrupts.mask(MAILBOX, False)
    assert signals(*ends) == [0] * VECTORS


# --- intervals ------------------------------------------------------------------------------


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> HandClock:
    return HandClock.of(monkeypatch, interrupts)


def held_back(guest: Guest, ends: list[int]) -> None:
    """Cause an interrupt that goes out, and another one that has to wait for its interval."""
    write(guest, Register.VTEITR + 4 * RECEIVE, LONGEST)
    write(guest, Register.VTEICS, 1 << RECEIVE)
    write(guest, Register.VTEICS, 1 << RECEIVE)
    assert signals(*ends)[RECEIVE] == 1


def test_an_interrupt_that_is_too_early_waits_and_comes(
    guest: Guest, ends: list[int], clock: HandClock
) -> None:
    """However many are caused meanwhile, they are one; lost, the driver would never poll them."""
    held_back(guest, ends)
    write(guest, Register.VTEICS, 1 << RECEIVE)
    clock.go_on(guest.turn())
    assert guest.turn() == 0
    assert signals(*ends) == only(RECEIVE)
    guest.turn()
    assert signals(*ends) == [0] * VECTORS


@pytest.mark.usefixtures("clock")
def test_each_vector_has_its_own_interval(guest: Guest, ends: list[int]) -> None:
    """Those of VTEITR lie four bytes apart, and each counts from its own message; 0 is none."""
    write(guest, Register.VTEITR + 4 * TRANSMIT, LONGEST)
    held_back(guest, ends)
    write(guest, Register.VTEICS, 1 << TRANSMIT)
    for _ in range(20):
        write(guest, Register.VTEICS, 1 << MAILBOX)
    assert signals(*ends)[TRANSMIT:] == [1, 20]


def test_the_loop_waits_for_the_first_vector_of_those_that_wait(
    guest: Guest, ends: list[int], clock: HandClock
) -> None:
    """The vectors with the lowest and the highest number have longer intervals here."""
    for vector, interval in ((TRANSMIT, LONGEST // 2), (MAILBOX, LONGEST)):
        write(guest, Register.VTEITR + 4 * vector, interval)
        write(guest, Register.VTEICS, 1 << vector)
        write(guest, Register.VTEICS, 1 << vector)
    held_back(guest, ends)
    clock.go_on(guest.turn())
    guest.turn()
    assert signals(*ends) == only(TRANSMIT)


@pytest.mark.parametrize(("value", "us"), [(200, 50), (336, 84), (LONGEST, 1022)])
def test_an_interval_is_as_long_as_it_says(
    guest: Guest, ends: list[int], clock: HandClock, value: int, us: int
) -> None:
    """IXGBE_20K_ITR and IXGBE_12K_ITR are 200 and 336, for so many interrupts a second."""
    write(guest, Register.VTEITR + 4 * RECEIVE, value)
    write(guest, Register.VTEICS, 1 << RECEIVE)
    write(guest, Register.VTEICS, 1 << RECEIVE)
    assert guest.turn() == pytest.approx(us * 1e-6)
    clock.go_on((us - 1) * 1e-6)
    guest.turn()
    assert signals(*ends) == only(RECEIVE)
    clock.go_on(1e-6)
    guest.turn()
    assert signals(*ends) == only(RECEIVE)


def test_an_interval_has_nine_bits(guest: Guest) -> None:
    """The others are for what a VF's driver does not use, and change nothing here."""
    write(guest, Register.VTEITR, 0xFFFFFFFF)
    assert guest.device.read(Register.VTEITR) == LONGEST
