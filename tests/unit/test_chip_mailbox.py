"""A port's driver and a VF's talk over a mailbox; both ends are used as they use them.

Ref: Linux, ixgbe_mbx.c (the port's end) and ixgbevf/mbx.c (the VF's).
"""

from __future__ import annotations

import itertools
import os
from collections.abc import Iterator

import pytest
from descriptors import eventfds, signals
from port_driver import Port, port_of_chip

from harness.uapi.ixgbe_pf import VFLRE, Eicr, PfMailbox, Register, Row
from harness.uapi.ixgbe_vf import IVAR_VALID, MAILBOX_WORDS, Mailbox
from harness.uapi.ixgbe_vf import Register as VfRegister

OTHER = 1  # the vector of the port's other causes, with one queue
REQ, ACK = 1, 1 << 16


@pytest.fixture
def port() -> Iterator[Port]:
    with port_of_chip(63) as port:
        port.start(vfs=40)
        port.read(Register.EICR)
        yield port


class VfEnd:
    """The VF's driver has this end of the mailbox."""

    def __init__(self, port: Port, number: int) -> None:
        self.function = port.chip.vfs[number]

    def lock(self) -> bool:
        """Take the mailbox; ixgbevf_obtain_mbx_lock_vf."""
        self.function.write(VfRegister.VFMAILBOX, Mailbox.VFU)
        return bool(self.function.read(VfRegister.VFMAILBOX) & Mailbox.VFU)

    def post(self, *words: int) -> None:
        """Send a message; ixgbevf_write_mbx_vf."""
        assert self.lock()
        for at, word in enumerate(words):
            self.function.write(VfRegister.VFMBMEM + 4 * at, word)
        self.function.write(VfRegister.VFMAILBOX, Mailbox.REQ)

    def read(self, count: int) -> list[int]:
        """Read a message; ixgbevf_read_mbx_vf."""
        assert self.lock()
        words = [self.function.read(VfRegister.VFMBMEM + 4 * at) for at in range(count)]
        self.function.write(VfRegister.VFMAILBOX, Mailbox.ACK)
        return words

    def status(self) -> int:
        return self.function.read(VfRegister.VFMAILBOX)


class PortEnd:
    """The port's driver has this end of the mailbox."""

    def __init__(self, port: Port, number: int) -> None:
        self._port = port
        self._number = number

    def asked(self, bit: int) -> bool:
        """Say whether the VF did that, and clear it; ixgbe_check_for_bit_pf."""
        register = Row.MBVFICR.at(self._number // 16)
        wanted = bit << self._number % 16
        if not self._port.read(register) & wanted:
            return False
        self._port.write(register, wanted)
        return True

    def lock(self) -> bool:
        """Take the mailbox; ixgbe_obtain_mbx_lock_pf."""
        self._port.write(Row.PFMAILBOX.at(self._number), PfMailbox.PFU)
        return bool(self._port.read(Row.PFMAILBOX.at(self._number)) & PfMailbox.PFU)

    def read(self, count: int) -> list[int]:
        """Read a message; ixgbe_read_mbx_pf."""
        assert self.lock()
        first = MAILBOX_WORDS * self._number
        words = [self._port.read(Row.PFMBMEM.at(first + at)) for at in range(count)]
        self._port.write(Row.PFMAILBOX.at(self._number), PfMailbox.ACK)
        return words

    def write(self, *words: int) -> None:
        """Send a message; ixgbe_write_mbx_pf."""
        assert self.lock()
        for at, word in enumerate(words):
            self._port.write(Row.PFMBMEM.at(MAILBOX_WORDS * self._number + at), word)
        self._port.write(Row.PFMAILBOX.at(self._number), PfMailbox.STS)


@pytest.mark.parametrize("number", [0, 15, 16, 39])
def test_a_message_goes_there_and_its_answer_back(port: Port, number: int) -> None:
    """Sixteen words go each way, MBVFICR has a bit for each message, and both sides acknowledge."""
    vf, end = VfEnd(port, number), PortEnd(port, number)
    message = [0x1000 + at for at in range(MAILBOX_WORDS)]
    vf.post(*message)
    assert (end.asked(REQ), end.asked(REQ), end.asked(ACK)) == (True, False, False)
    assert end.read(MAILBOX_WORDS) == message
    assert vf.status() & Mailbox.PFACK
    end.write(*reversed(message))
    assert vf.status() & Mailbox.PFSTS
    assert vf.read(MAILBOX_WORDS) == message[::-1]
    assert (end.asked(ACK), end.asked(REQ)) == (True, False)


def test_mailboxes_of_two_vfs_are_apart(port: Port) -> None:
    VfEnd(port, 3).post(7)
    assert not PortEnd(port, 4).asked(REQ)
    assert PortEnd(port, 3).asked(REQ)
    PortEnd(port, 4).write(9)
    assert not VfEnd(port, 3).status() & Mailbox.PFSTS
    assert (PortEnd(port, 3).read(1), PortEnd(port, 4).read(1)) == ([7], [9])


def test_port_and_vf_take_turns_with_the_mailbox(port: Port) -> None:
    vf, end = VfEnd(port, 0), PortEnd(port, 0)
    assert vf.lock()
    assert not end.lock()
    vf.function.write(VfRegister.VFMAILBOX, 0)
    assert end.lock()
    assert not vf.lock()
    port.write(Row.PFMAILBOX.at(0), 0)
    assert vf.lock()


def test_the_port_can_take_the_mailbox_from_a_vf_that_keeps_it(port: Port) -> None:
    """RVFU clears the VF's hold."""
    assert VfEnd(port, 0).lock()
    port.write(Row.PFMAILBOX.at(0), PfMailbox.RVFU)
    assert PortEnd(port, 0).lock()


def test_what_the_port_says_is_told_once(port: Port) -> None:
    """A read clears PFSTS and PFACK; ixgbevf keeps what it read (v2p_mailbox)."""
    vf = VfEnd(port, 0)
    vf.status()
    PortEnd(port, 0).write(1)
    assert [vf.status() & Mailbox.PFSTS for _ in range(2)] == [Mailbox.PFSTS, 0]


def test_each_message_interrupts_the_port(port: Port) -> None:
    with eventfds(2) as (queue, other):
        port.chip.vectors.connect(OTHER, os.dup(other))
        for _ in range(2):
            VfEnd(port, 0).post(1)
            assert PortEnd(port, 0).asked(REQ)
            assert port.read(Register.EICS) & Eicr.MAILBOX
            port.write(Register.EICR, Eicr.MAILBOX)
        assert signals(queue, other) == [0, 2]
        port.chip.vectors.connect(OTHER, None)


def test_what_the_port_says_interrupts_the_vf(port: Port) -> None:
    """The port's messages and its acknowledgements use the vector in VTIVAR_MISC."""
    with eventfds(1) as (mailbox,):
        function = port.chip.vfs[5]
        function.config.write(4, b"\6\4")
        function.write(VfRegister.VTIVAR_MISC, 2 | IVAR_VALID)
        function.write(VfRegister.VTEIMS, 0b100)
        function.vectors.connect(2, os.dup(mailbox))
        PortEnd(port, 5).write(0x100)
        assert signals(mailbox) == [1]
        VfEnd(port, 5).post(1)
        PortEnd(port, 5).read(1)
        assert signals(mailbox) == [1]
        PortEnd(port, 6).write(0x100)
        assert signals(mailbox) == [0]
        function.vectors.connect(2, None)


def test_no_vf_reads_another_vfs_words(port: Port) -> None:
    for number, word in itertools.product(range(3), range(MAILBOX_WORDS)):
        port.chip.vfs[number].write(VfRegister.VFMBMEM + 4 * word, number << 8 | word)
    for number in range(3):
        words = PortEnd(port, number).read(MAILBOX_WORDS)
        assert words == [number << 8 | word for word in range(MAILBOX_WORDS)]


def test_a_silent_mailbox_tells_the_port_nothing(port: Port) -> None:
    """The VF's driver waits for PFACK in vain, and says so: that shows the fault."""
    port.chip.mailboxes.silent = True
    VfEnd(port, 0).post(1)
    assert not PortEnd(port, 0).asked(REQ)
    assert not port.read(Register.EICS) & Eicr.MAILBOX
    assert not VfEnd(port, 0).status() & Mailbox.PFACK


def test_a_lost_reset_leaves_no_trace_at_the_port(port: Port) -> None:
    """The port keeps the filters of a VF that is not there any more: that is the fault."""
    port.chip.mailboxes.loses_resets = True
    port.chip.vfs[0].reset()
    assert port.read(VFLRE[0]) == 0
    assert not port.read(Register.EICS) & Eicr.MAILBOX
